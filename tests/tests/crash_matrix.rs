//! A process that installs is killed at random moments and started again until it is done (THREATS B2).
//!
//! After every kill: no final name with wrong bytes, and no piece is asked for again that had been flushed. The installing process is this test's own
//! executable, started with a variable that makes `installer` do its work.

use peas_core::config::CreateOptions;
use peas_core::session::{create, read_pea, write_pea};
use peas_core::storage::{CommitEnd, Storage, StorageOptions};
use peas_core::{Manifest, Trust};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;

const GO_ON: &(dyn Fn(u64, u64) -> bool + Sync) = &|_, _| true;
const KILLS: u32 = 60;

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Work of the child: installs from `<dir>/source` and says what it has done, a line each.
#[test]
fn installer() {
    let Some(dir) = std::env::var_os("PEAS_CRASH_DIR").map(PathBuf::from) else { return };
    let pea = Manifest::decode(&read_pea(&dir.join("x.peas")).unwrap()).unwrap().trust(&Trust::File, &Default::default()).unwrap();
    let pea = Arc::new(pea);
    let content = fs::read(dir.join("content")).unwrap();
    let options = StorageOptions { threads: 2, pooled_bytes_max: 1 << 20 };
    let opened = Storage::open_install(pea.clone(), &dir.join("dest"), &options, GO_ON).unwrap();
    let say = |line: String| {
        let mut out = std::io::stderr().lock();
        writeln!(out, "{line}").unwrap();
    };
    say(format!("opened {}", opened.held.len()));
    let mut count = opened.held.len();
    for piece in pea.geometry().pieces().filter(|&piece| !opened.held.contains(piece)) {
        let range = pea.geometry().bytes_of(piece);
        let mut buf = opened.storage.buffer(piece);
        buf.copy_from_slice(&content[range.start as usize..range.end as usize]);
        let (send, receive) = channel();
        opened.storage.commit(piece, buf, Box::new(move |end| send.send(end).unwrap()));
        assert!(matches!(receive.recv().unwrap(), CommitEnd::Committed(_)));
        count += 1;
        say(format!("committed {count}"));
        if count.is_multiple_of(16) {
            let (send, receive) = channel();
            opened.storage.flush(Box::new(move |end| send.send(end).unwrap()));
            receive.recv().unwrap().unwrap();
        }
    }
    let (send, receive) = channel();
    opened.storage.publish(Box::new(move |end| send.send(end).unwrap()));
    receive.recv().unwrap().unwrap();
    say("installed".into());
}

/// Runs the child and kills it after this many lines; gives the pieces it found at the start, those it committed, and whether it
/// said that it was done.
fn run(dir: &Path, lines_max: usize) -> (u32, u32, bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "installer", "--nocapture"])
        .env("PEAS_CRASH_DIR", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stderr.take().unwrap());
    let (mut found, mut committed, mut installed) = (0, 0, false);
    let mut killed = false;
    for (at, line) in out.lines().enumerate() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("opened", count)) => found = count.parse().unwrap(),
            Some(("committed", count)) => committed = count.parse().unwrap(),
            _ if line == "installed" => installed = true,
            _ => assert!(killed, "{line}"),
        }
        if at + 1 >= lines_max && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(killed || status.success());
    (found, committed.max(found), installed)
}

#[test]
fn a_killed_installation_loses_nothing_and_shows_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = dir.join("source");
    let names = ["a", "b/c", "b/d", "e"];
    fs::create_dir_all(source.join("b")).unwrap();
    for (seed, name) in names.into_iter().enumerate() {
        fs::write(source.join(name), noise(seed as u64, 1_500_000)).unwrap();
    }
    let made = create(&source, &CreateOptions { piece_bytes: Some(65_536), ..Default::default() }, GO_ON).unwrap();
    write_pea(&dir.join("x.peas"), &made.bytes).unwrap();
    let content: Vec<u8> = names.into_iter().flat_map(|name| fs::read(source.join(name)).unwrap()).collect();
    fs::write(dir.join("content"), &content).unwrap();
    let piece_count = made.manifest.geometry().piece_count();

    let (mut known, mut completions) = (0, 0);
    for kill in 0..KILLS {
        let chance = usize::from(noise(1_000 + u64::from(kill), 1)[0]);
        let (found, committed, installed) = run(dir, 1 + chance % 45);
        // A killed process loses nothing that it had written: the system has it.
        assert!(found >= known, "kill {kill}: {known} pieces were committed, {found} are found again");
        known = committed;
        let whole = || names.into_iter().all(|name| fs::read(dir.join("dest").join(name)).ok() == fs::read(source.join(name)).ok());
        assert!(!dir.join("dest").exists() || whole(), "kill {kill}: the destination is half");
        assert!(!installed || whole(), "kill {kill}: said installed, and it is not");
        if installed || dir.join("dest").exists() {
            completions += 1;
            let (found, _, installed) = run(dir, usize::MAX);
            assert!(found == piece_count && installed);
            fs::remove_dir_all(dir.join("dest")).unwrap();
            known = 0;
        }
    }
    assert!(completions > 0, "no installation was ever finished: the test proves little");
}
