//! A disk that is full: the session stands still, says why, and goes on by itself. Runs in a mount namespace of its own, on a small
//! file system in memory. And a pea that claims more than any disk holds (THREATS F2).

mod common;

use common::{engine, origin, single_file, until, wait};
use peas_core::config::{InstallOptions, SeedPolicy};
use peas_core::manifest::{Builder, EntryKind, FileEntry};
use peas_core::storage::{Storage, StorageOptions};
use peas_core::unit::Geometry;
use peas_core::{Error, Event, PauseReason};
use std::path::Path;
use std::process::Command;

const PLACE: &str = "PEAS_TEST_SMALL_DISK";

/// Runs one test of this file again as the only one of a process that has a file system of this size at a place of its own.
/// False: this is that process. Systems that grant no such namespace cannot run it, which is a failure and not a pass.
fn elsewhere(test: &str, size: &str) -> bool {
    if std::env::var_os(PLACE).is_some() {
        return false;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={size} tmpfs \"${PLACE}\" && exec \"$0\" --exact {test} --nocapture");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    let status = command.env(PLACE, dir.path()).status().unwrap();
    assert!(status.success(), "see above");
    true
}

#[test]
fn a_full_disk_is_waited_for() {
    if elsewhere("a_full_disk_is_waited_for", "48m") {
        return;
    }
    let place = std::env::var(PLACE).unwrap();
    let place = Path::new(&place);
    let made = single_file(12 << 20);
    let (seed_engine, _seed) = origin(&made);
    let receiver = engine();
    // Slowly enough that no busy machine lets it end before the disk is full.
    receiver.set_limits(0, 1 << 20);
    let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], seed: SeedPolicy::Forever, ..Default::default() };
    let session = receiver.install(made.pea.clone(), &place.join("out"), options).unwrap();
    // Somebody else fills the disk once the session is under way.
    until(|| session.progress().bytes_done > 0);
    let ballast = place.join("ballast");
    let filled = (0..).try_for_each(|_| {
        use std::io::Write as _;
        std::fs::OpenOptions::new().create(true).append(true).open(&ballast)?.write_all(&[7; 64 * 1024])
    });
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let mut events = Vec::new();
    while !events.contains(&Event::Paused(PauseReason::DiskFull)) {
        events.push(session.next_event_timeout(common::PATIENCE).unwrap_or_else(|| panic!("{events:?} {}", session.stats_json())));
    }
    until(|| session.progress().paused == Some(PauseReason::DiskFull));
    let (done, state) = (session.progress().bytes_done, session.progress().state);
    assert!(done < session.progress().bytes_total, "{state:?}");
    // No spin: what is received in vain while the disk is full is a few pieces.
    std::fs::remove_file(&ballast).unwrap();
    receiver.set_limits(0, 0);
    wait(&session);
    made.assert_same(&place.join("out"));
    let mut after = Vec::new();
    while let Some(event) = session.try_next_event() {
        after.push(event);
    }
    assert_eq!(after, [Event::Resumed, Event::Installed]);
    assert!(session.progress().bytes_done >= done);
}

/// Everything has come, and the last step fails: the name is busy, because something is mounted there. The session says so, and goes on when it no
/// longer is.
#[test]
fn a_publish_that_the_system_refuses_is_tried_again() {
    if elsewhere("a_publish_that_the_system_refuses_is_tried_again", "48m") {
        return;
    }
    let place = std::env::var(PLACE).unwrap();
    let out = Path::new(&place).join("out");
    let made = single_file(2 << 20);
    let (seed_engine, _seed) = origin(&made);
    std::fs::write(&out, "before").unwrap();
    let run = |words: &[&str]| assert!(Command::new(words[0]).args(&words[1..]).arg(&out).status().unwrap().success(), "{words:?}");
    run(&["mount", "--bind", out.to_str().unwrap()]);
    let receiver = engine();
    let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], seed: SeedPolicy::Forever, ..Default::default() };
    let session = receiver.install(made.pea.clone(), &out, options).unwrap();
    let mut events = Vec::new();
    while !events.contains(&Event::Paused(PauseReason::DiskError)) {
        events.push(session.next_event_timeout(common::PATIENCE).unwrap_or_else(|| panic!("{events:?} {}", session.stats_json())));
    }
    assert!(!events.contains(&Event::Installed), "{events:?}");
    until(|| session.progress().bytes_done == session.progress().bytes_total);
    run(&["umount"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"before", "the control: what was there is there still");
    wait(&session);
    made.assert_same(&out);
}

/// Somebody made a folder where the file belongs: that is theirs, so the session ends and says what is in the way.
#[test]
fn a_publish_with_something_else_in_the_way_ends_the_session() {
    let (place, made) = (tempfile::tempdir().unwrap(), single_file(4 << 20));
    let (seed_engine, _seed) = origin(&made);
    let (receiver, out) = (engine(), place.path().join("out"));
    receiver.set_limits(0, 1 << 20);
    let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], seed: SeedPolicy::Forever, ..Default::default() };
    let session = receiver.install(made.pea.clone(), &out, options).unwrap();
    until(|| session.progress().bytes_done > 0);
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("theirs"), "kept").unwrap();
    receiver.set_limits(0, 0);
    let end = session.wait_installed_timeout(common::PATIENCE);
    assert!(matches!(&end, Some(Err(Error::Content { what, .. })) if what.contains("in the way")), "{end:?}");
    assert_eq!(std::fs::read(out.join("theirs")).unwrap(), b"kept");
}

/// A content of 2 TiB less a piece, which nobody has to have: made of hashes alone.
fn bomb() -> Vec<u8> {
    let piece_bytes = 16 << 20;
    let geometry = Geometry::new(131_071 * u64::from(piece_bytes), piece_bytes).unwrap();
    let kind = |offset, bytes| EntryKind::File { offset, bytes, executable: false, hash: [7; 32] };
    let entries = vec![
        FileEntry { path: "large".into(), kind: kind(0, geometry.total_bytes() - 1) },
        FileEntry { path: "small".into(), kind: kind(geometry.total_bytes() - 1, 1) },
    ];
    let piece_cvs = vec![[9; 32]; geometry.piece_count() as usize];
    Builder::new("bomb", geometry, entries, piece_cvs).build(&[]).unwrap()
}

#[test]
fn a_content_of_many_disks_is_refused_and_costs_nothing() {
    if elsewhere("a_content_of_many_disks_is_refused_and_costs_nothing", "48m") {
        return;
    }
    let place = std::env::var(PLACE).unwrap();
    let pea = common::trusted(&bomb());
    let options = StorageOptions { threads: 1, pooled_bytes_max: 1 << 20 };
    let begun = std::time::Instant::now();
    let refused = Storage::open_install(pea, &Path::new(&place).join("out"), &options, &|_, _| true).err().unwrap();
    println!("refused after {:?}: {refused}", begun.elapsed());
    assert_eq!(refused.code(), 4);
    assert_eq!(std::fs::read_dir(place).unwrap().count(), 0, "nothing was written");
}
