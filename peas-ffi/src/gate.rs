//! What keeps the committed header, bindings and lists true. `PEAS_BLESS=1 cargo test -p peas-ffi` writes them anew.
//!
//! Two tools read one spelling: cbindgen the text, safer-ffi the compiled types. The first writes include/peas.h; the second writes
//! bindings/csharp/Peas.g.cs and a second C header that is only a witness: prototypes and layouts of both must agree, so that
//! neither can be wrong alone.

use crate::types::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

/// Compares a committed file with what it must be; with PEAS_BLESS=1 writes it.
pub(crate) fn same_or_blessed(path: &Path, wanted: &str) {
    if std::env::var_os("PEAS_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folder");
        std::fs::write(path, wanted).expect("write");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == wanted, "{} is not current: run PEAS_BLESS=1 cargo test -p peas-ffi", path.display());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn header() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut bytes = Vec::new();
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(here.join("src/types.rs"))
        .with_src(here.join("src/api.rs"))
        .with_src(here.join("src/api_events.rs"))
        .generate();
    bindings.expect("cbindgen").write(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    text.replace("\r\n", "\n")
}

/// What safer-ffi makes of the same items: in C, a witness; in C#, the binding.
fn generated(language: safer_ffi::headers::Language) -> String {
    // SAFETY: the generator names the library after this; tests of this crate read it nowhere else.
    unsafe { std::env::set_var("CARGO_CRATE_NAME", "peas") };
    let mut out = std::io::Cursor::new(Vec::new());
    safer_ffi::headers::builder().with_language(language).with_guard("PEAS_WITNESS_H").to_writer(&mut out).generate().expect("safer-ffi");
    String::from_utf8(out.into_inner()).expect("UTF-8")
}

/// The enums that no signature names (their values travel as plain integers), in C#. safer-ffi writes what signatures reach.
fn enums_for_csharp(header: &str, known: &str) -> String {
    let mut out = String::new();
    for block in header.split("\nenum ").skip(1) {
        let name = block.split_whitespace().next().expect("an enum has a name");
        if known.contains(&format!("enum {name}_t")) {
            continue;
        }
        let values = block.split_once('{').and_then(|(_, rest)| rest.split_once("};")).expect("an enum has values").0;
        let base = if values.contains("= -") { "Int32" } else { "UInt32" };
        let _ = writeln!(out, "/// <summary>{name} of peas.h.</summary>\npublic enum {name}_t : {base} {{");
        for line in values.lines().map(str::trim) {
            match line.strip_prefix("* ") {
                Some(doc) => out += &format!("    /// {doc}\n"),
                None if line.contains(" = ") => out += &format!("    {line}\n"),
                None => {}
            }
        }
        out += "}\n\n";
    }
    out
}

/// "name -> (return type; argument types)" of each prototype, spelled one way.
fn prototypes(header: &str) -> BTreeMap<String, String> {
    let text = without_comments(header).replace("PEAS_API", " ");
    let mut found = BTreeMap::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("peas_") {
        let (before, name_on) = rest.split_at(at);
        let name: String = name_on.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        rest = &name_on[name.len()..];
        let Some(arguments) = rest.trim_start().strip_prefix('(') else { continue };
        let Some(end) = arguments.find(';') else { continue };
        let arguments = arguments[..end].trim_end().strip_suffix(')').expect("a prototype ends with )");
        let start = before.rfind([';', '}', '{', '"']).map_or(0, |at| at + 1);
        let answer = before[start..].lines().rfind(|line| !line.trim().is_empty() && !line.contains('#')).unwrap_or_default();
        found.insert(name, format!("{} ({})", c_type(answer, false), split_arguments(arguments)));
        rest = &rest[rest.find(';').expect("seen above")..];
    }
    found
}

fn split_arguments(arguments: &str) -> String {
    let mut depth = 0;
    let parts = arguments.split(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    parts.map(|part| c_type(part, true)).collect::<Vec<_>>().join(", ")
}

/// One spelling of a C type: const to the right, `_t` of struct names off, callbacks as "callback", names of arguments off.
fn c_type(text: &str, named: bool) -> String {
    if text.contains("(*") || text.contains("peas_event_fn") || text.contains("peas_wake_fn") {
        return if text.contains("peas_event_t") || text.contains("peas_event_fn") { "event callback" } else { "wake callback" }.into();
    }
    let spaced = text.replace('*', " * ");
    let mut words: Vec<String> =
        spaced.split_whitespace().filter(|word| *word != "extern" && *word != "struct").map(str::to_owned).collect();
    if named && words.len() > 1 && words.last().is_some_and(|word| word != "*" && word != "const") {
        words.pop();
    }
    for word in &mut words {
        if word.starts_with("peas_") && word.ends_with("_t") {
            word.truncate(word.len() - 2);
        }
        *word = match word.as_str() {
            "peas_job" => "uint64_t".into(),
            "ptrdiff_t" | "intptr_t" => "ssize_t".into(),
            _ => word.clone(),
        };
    }
    if words.first().is_some_and(|word| word == "const") && words.len() > 1 {
        words.swap(0, 1);
    }
    words.join(" ")
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once("*/").map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Each field's place, and each struct's size.
fn layout() -> String {
    let mut out = String::from("# Written by the tests of peas-ffi. Within libpeas.so.0 lines may be added, and none may change.\n");
    macro_rules! lay {
        ($name:ident: $($field:ident),*) => {
            let _ = writeln!(out, "{} size {} align {}", stringify!($name), size_of::<$name>(), align_of::<$name>());
            $(let _ = writeln!(out, "{}.{} at {}", stringify!($name), stringify!($field), offset_of!($name, $field));)*
        };
    }
    lay!(peas_error: status, os_code, message);
    lay!(peas_engine_info: upload_limit, download_limit, jobs, port, listen, peer_id, reserved);
    lay!(peas_info: state, status, verb, paused, complete, pieces_done, pieces_total, pieces_bad, bytes_done, bytes_total, bytes_reused,
        bytes_from_origin, bytes_from_peers, bytes_wasted, bytes_sent, rate_received, rate_sent, remaining_ms, peers, members,
        origin_linked, reserved_1, bytes_from_web, reserved);
    lay!(peas_event: kind, status, job, bytes_done, bytes_total, level, notice, value, os_code, reserved_1, reserved, message);
    out
}

#[test]
fn the_version_is_the_packages() {
    let parts: Vec<u32> = env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().expect("a number")).collect();
    assert_eq!(PEAS_VERSION, parts[0] << 16 | parts[1] << 8 | parts[2]);
}

#[test]
fn header_is_current() {
    same_or_blessed(&root().join("include/peas.h"), &header());
}

#[test]
fn csharp_is_current() {
    let text = generated(safer_ffi::headers::Language::CSharp);
    let enums = enums_for_csharp(&header(), &text);
    assert!(enums.contains("PEAS_EVENT_ENDED = 3"));
    let text = format!("{text}\nnamespace Peas {{\nusing System;\n\n{enums}}}\n");
    same_or_blessed(&root().join("bindings/csharp/Peas.g.cs"), &text);
}

#[test]
fn the_list_of_symbols_is_current() {
    let list: String = prototypes(&header()).keys().fold(String::new(), |list, name| list + name + "\n");
    assert!(list.lines().count() > 20);
    same_or_blessed(&root().join("include/peas.symbols"), &list);
}

#[test]
fn the_list_of_layouts_is_current() {
    same_or_blessed(&root().join("include/peas.layout"), &layout());
}

/// The header that was made from text against the one that was made from types.
#[test]
fn both_readers_see_the_same_prototypes() {
    let (text, types) = (prototypes(&header()), prototypes(&generated(safer_ffi::headers::Language::C)));
    assert!(text.len() > 20, "{text:?}");
    assert_eq!(text, types);
}

/// The comparison is worth nothing if it cannot see a difference.
#[test]
fn a_difference_would_be_seen() {
    let text = header();
    for (from, to) in
        [("int32_t timeout_ms", "int64_t timeout_ms"), ("const char *pea", "char *pea"), ("size_t capacity", "uint32_t capacity")]
    {
        assert!(text.contains(from), "{from}");
        assert_ne!(prototypes(&text), prototypes(&text.replacen(from, to, 1)), "{from}");
    }
}
