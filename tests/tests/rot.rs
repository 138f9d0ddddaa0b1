//! Rot under a live server (THREATS B5): nothing wrong leaves it, nobody bans it, and what is rotten is fetched again from whoever has it.
//! What somebody changed on purpose is not served and not touched.

mod common;

use common::{Made, bytes, engine, single_file, until, wait};
use peas_core::config::{InstallOptions, SeedOptions, SeedPolicy};
use peas_core::storage::{CommitEnd, ReadEnd, Storage, StorageOptions};
use peas_core::{Engine, Event, Session, State};
use std::collections::BTreeSet;
use std::fs::{File, FileTimes, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::channel;

const PIECE: u64 = 64 * 1024;

/// Flips one bit somewhere in the piece, as a disk does it: nobody's clock tells of it.
fn flip(path: &Path, piece: u64, salt: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let end = file.metadata().unwrap().len().min((piece + 1) * PIECE);
    let at = piece * PIECE + salt % (end - piece * PIECE);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (salt % 8))], at).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

/// So many different pieces out of so many, by chance.
fn chosen(count: usize, of: u64, salt: u64) -> BTreeSet<u64> {
    let chance = bytes(count * 64, salt);
    let chosen: BTreeSet<u64> =
        chance.chunks_exact(8).map(|part| u64::from_le_bytes(part.try_into().unwrap()) % of).take(count * 8).collect();
    chosen.into_iter().take(count).collect()
}

#[test]
fn a_thousand_flips_are_each_found_and_each_mended() {
    let made = single_file(1_100 * PIECE as usize - 77);
    let original = std::fs::read(&made.source).unwrap();
    let options = StorageOptions { threads: 2, pooled_bytes_max: 1 << 20 };
    let opened = Storage::open_seed(made.pea.clone(), &made.source, true, &options, &|_, _| true).unwrap();
    let geometry = *made.pea.geometry();
    let flipped = chosen(1_000, 1_100, 5);
    flipped.iter().for_each(|&piece| flip(&made.source, piece, piece * 7919));
    assert_ne!(std::fs::read(&made.source).unwrap(), original, "the control: the bytes on the disk are wrong");
    let read = |piece: u64, with_proof: bool| {
        let (send, receive) = channel();
        let span = geometry.whole(geometry.piece(piece as u32).unwrap());
        opened.storage.read(span, with_proof, Box::new(move |end| drop(send.send(end))));
        receive.recv().unwrap()
    };
    let right = |piece: u64| &original[(piece * PIECE) as usize..original.len().min(((piece + 1) * PIECE) as usize)];
    let mut rotten = BTreeSet::new();
    for piece in 0..1_100 {
        match read(piece, piece % 2 == 0) {
            ReadEnd::Bytes { buf, range, .. } => assert!(buf[range] == *right(piece), "piece {piece}"),
            ReadEnd::Damaged => drop(rotten.insert(piece)),
            ReadEnd::Failed(error) => panic!("piece {piece}: {error}"),
        }
    }
    assert_eq!(rotten, flipped);
    for &piece in &rotten {
        let mut buf = opened.storage.buffer(geometry.piece(piece as u32).unwrap());
        buf.copy_from_slice(right(piece));
        let (send, receive) = channel();
        opened.storage.commit(geometry.piece(piece as u32).unwrap(), buf, Box::new(move |end| send.send(end).unwrap()));
        assert!(matches!(receive.recv().unwrap(), CommitEnd::Committed(_)), "piece {piece}");
        assert!(matches!(read(piece, true), ReadEnd::Bytes { .. }), "piece {piece}");
    }
    assert!(std::fs::read(&made.source).unwrap() == original);
}

/// A server of what lies at `source`, hashed first; it knows another one.
fn server(made: &Made, source: &Path, peers: &[&Engine]) -> (Engine, Session) {
    let engine = engine();
    let peers = peers.iter().map(|engine| engine.listen_addr().unwrap()).collect();
    let session = engine.seed(made.pea.clone(), source, SeedOptions { check_first: true, peers, ..Default::default() }).unwrap();
    until(|| session.progress().state == State::Sharing);
    (engine, session)
}

fn events(session: &Session) -> Vec<Event> {
    std::iter::from_fn(|| session.try_next_event()).collect()
}

/// Whoever sends one wrong block is banned at once: no ban, no wrong byte.
fn assert_nobody_is_banned(events: &[Event]) {
    assert!(!events.iter().any(|event| matches!(event, Event::PeerBanned { .. })), "{events:?}");
}

#[test]
fn a_rotten_server_sends_nothing_wrong_is_not_banned_and_mends_itself() {
    let made = single_file(200 * PIECE as usize);
    let original = std::fs::read(&made.source).unwrap();
    let rotten_at = made.dir.path().join("rotten");
    std::fs::copy(&made.source, &rotten_at).unwrap();
    let (good, good_session) = server(&made, &made.source, &[]);
    let (rotten, rotten_session) = server(&made, &rotten_at, &[&good]);
    until(|| rotten_session.progress().peers == 1);
    let flipped = chosen(100, 200, 9);
    flipped.iter().for_each(|&piece| flip(&rotten_at, piece, piece * 31));

    let (client, place) = (engine(), tempfile::tempdir().unwrap());
    let options = InstallOptions { peers: vec![rotten.listen_addr().unwrap()], seed: SeedPolicy::Forever, ..Default::default() };
    let session = client.install(made.pea.clone(), &place.path().join("out"), options).unwrap();
    wait(&session);
    made.assert_same(&place.path().join("out"));
    let told = events(&rotten_session);
    let damaged: BTreeSet<u64> =
        told.iter().filter_map(|event| if let Event::Damaged { piece } = event { Some(u64::from(*piece)) } else { None }).collect();
    let times = told.iter().filter(|event| matches!(event, Event::Damaged { .. })).count();
    assert!(!damaged.is_empty() && damaged.is_subset(&flipped), "{damaged:?}");
    assert_eq!(times, damaged.len(), "one event for each");
    [&told, &events(&session), &events(&good_session)].into_iter().for_each(|told| assert_nobody_is_banned(told));
    // Each of those that it found is mended in place; those that nobody asked for are as they were.
    let is_right = |piece: &u64| {
        let range = (piece * PIECE) as usize..((piece + 1) * PIECE) as usize;
        std::fs::read(&rotten_at).unwrap()[range.clone()] == original[range]
    };
    until(|| damaged.iter().all(is_right));
    assert!(flipped.difference(&damaged).all(|piece| !is_right(piece)));
}

#[test]
fn what_is_changed_under_a_server_is_not_served_and_not_touched() {
    let made = common::folder(40);
    let changed_at = made.dir.path().join("changed");
    assert!(std::process::Command::new("cp").arg("-r").args([&made.source, &changed_at]).status().unwrap().success());
    let (good, _good_session) = server(&made, &made.source, &[]);
    let (changed, changed_session) = server(&made, &changed_at, &[&good]);
    // Cut, replaced, grown, touched, removed, and a link instead.
    let mut files: Vec<_> =
        made.pea.entries().iter().filter(|entry| std::fs::metadata(made.source.join(&entry.path)).unwrap().len() > 1_000).collect();
    files.truncate(6);
    let at: Vec<_> = files.iter().map(|entry| changed_at.join(&entry.path)).collect();
    OpenOptions::new().write(true).open(&at[0]).unwrap().set_len(100).unwrap();
    std::fs::write(at[1].with_extension("new"), bytes(1_300, 1)).unwrap();
    std::fs::rename(at[1].with_extension("new"), &at[1]).unwrap();
    OpenOptions::new().write(true).open(&at[2]).unwrap().write_all_at(&bytes(9_000, 2), 0).unwrap();
    File::open(&at[3]).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    std::fs::remove_file(&at[4]).unwrap();
    std::fs::remove_file(&at[5]).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &at[5]).unwrap();
    let as_changed: Vec<_> = at.iter().map(|path| (std::fs::read_link(path).ok(), std::fs::read(path).ok())).collect();

    let (client, place) = (engine(), tempfile::tempdir().unwrap());
    let peers = vec![changed.listen_addr().unwrap(), good.listen_addr().unwrap()];
    let session = client
        .install(made.pea.clone(), &place.path().join("out"), InstallOptions { peers, seed: SeedPolicy::Forever, ..Default::default() })
        .unwrap();
    wait(&session);
    made.assert_same(&place.path().join("out"));
    [events(&session), events(&changed_session)].iter().for_each(|told| assert_nobody_is_banned(told));
    let now: Vec<_> = at.iter().map(|path| (std::fs::read_link(path).ok(), std::fs::read(path).ok())).collect();
    assert!(now == as_changed, "what somebody changed is theirs");
    assert_ne!(changed_session.progress().state, State::Ended);
}
