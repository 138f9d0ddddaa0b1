//! The drawing of the house, compared with the house.
//!
//! Rust lets sibling modules import each other, so the table of who may know whom is kept honest by reading the sources: each
//! `crate::<room>` in a room's files must be in the table below, and nothing in the table may be unused. The pure rooms must
//! name no clock, no socket, no lock and no hash map, and `bincode` may be named in one file only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms it may import. Ground floor first.
const TABLE: &[(&str, &[&str])] = &[
    ("unit", &[]),
    ("hash", &["unit"]),
    ("wire", &["unit"]),
    ("manifest", &["config", "hash", "unit", "wire"]),
    ("swarm", &["unit", "wire"]),
    ("config", &["swarm", "unit"]),
    ("error", &["manifest"]),
    ("event", &["unit"]),
    ("storage", &["error", "hash", "manifest", "swarm", "unit"]),
    ("transport", &["hash", "unit", "wire"]),
    ("discovery", &["manifest", "swarm", "unit", "wire"]),
    ("source", &["manifest"]),
    ("engine", &["config", "discovery", "error", "event", "hash", "manifest", "source", "storage", "swarm", "transport", "unit", "wire"]),
    ("session", &["config", "engine", "error", "event", "hash", "manifest", "storage", "swarm", "unit", "wire"]),
];

/// Rooms without hands.
const PURE: &[&str] = &["unit", "hash", "wire", "manifest", "swarm", "config", "error", "event"];

/// What a pure room may not name.
const IMPURE: &[&str] =
    &["Instant", "SystemTime", "HashMap", "HashSet", "Mutex", "RwLock", "tokio", "async ", "std::fs", "TcpStream", "UdpSocket", "thread::"];

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../peas-core/src")
}

fn files_below(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder of sources") {
            files_below(&entry.expect("a readable entry").path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && path.file_name().is_some_and(|name| name != "tests.rs") {
        found.push(path.to_owned());
    }
}

/// The text of a source without comments and without its tests (which stand last in each file).
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a readable source");
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

fn files_of(room: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_below(&source_root().join(room), &mut files);
    let single = source_root().join(format!("{room}.rs"));
    if single.exists() {
        files.push(single);
    }
    assert!(!files.is_empty(), "room {room} has no files");
    files
}

fn imports_in(code: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut imports: BTreeSet<String> = code.split("crate::").skip(1).map(name).collect();
    // Names that the crate's root re-exports.
    for (exported, room) in [
        ("Error", "error"),
        ("Event", "event"),
        ("Progress", "event"),
        ("Manifest", "manifest"),
        ("TrustedManifest", "manifest"),
        ("Trust", "manifest"),
    ] {
        if imports.remove(exported) {
            imports.insert(room.to_owned());
        }
    }
    imports.remove("");
    imports
}

#[test]
fn rooms_import_what_the_drawing_says() {
    let drawing: BTreeMap<&str, BTreeSet<&str>> = TABLE.iter().map(|(room, may)| (*room, may.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (room, may) in &drawing {
        let mut seen = BTreeSet::new();
        for file in files_of(room) {
            for import in imports_in(&code_of(&file)) {
                if import != *room && !may.contains(import.as_str()) {
                    wrong.push(format!("{room} imports {import} ({})", file.display()));
                }
                seen.insert(import);
            }
        }
        println!("{room:10} -> {}", seen.iter().filter(|other| other != room).cloned().collect::<Vec<_>>().join(" "));
        wrong.extend(may.iter().filter(|other| !seen.contains(**other)).map(|other| format!("{room} does not use {other} any more")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_them() {
    let code = "use crate::unit::Time;\nfn f() { crate::storage::open() }\nuse crate::Error;\n";
    assert_eq!(imports_in(code), ["error", "storage", "unit"].map(str::to_owned).into());
}

#[test]
fn pure_rooms_name_nothing_impure() {
    let mut wrong = Vec::new();
    for room in PURE {
        for file in files_of(room) {
            let code = code_of(&file);
            wrong.extend(IMPURE.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn evidence_is_made_where_the_checking_is_done() {
    let mut all = Vec::new();
    files_below(&source_root(), &mut all);
    for (word, home) in [("bincode::", "wire/codec.rs"), ("::witnessed(", "storage/")] {
        let users: Vec<&PathBuf> = all.iter().filter(|file| code_of(file).contains(word)).collect();
        assert!(!users.is_empty(), "{word} is not used at all: this test reads the wrong files");
        for user in users {
            assert!(user.to_string_lossy().contains(home), "{word} is named in {}", user.display());
        }
    }
}
