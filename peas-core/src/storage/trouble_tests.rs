//! Failing disks, damaged journals and rot: every error at every call, ten thousand journals (THREATS B3, B4, B5).
//!
//! What must hold: nothing wrong is ever published or called held on a journal's word alone, an error loses nothing that was
//! committed, and the installation goes on when its cause ends.

use super::crash_tests::{Told, install, judge, with_old};
use super::faulty::{Fault, FaultyVolume, Survival};
use super::fixture::{Fixture, mixed, noise, single, small};
use super::journal::{self, Record};
use super::open::Found;
use super::planted::Planted;
use super::volume::{Access, Volume};
use super::{CommitEnd, PublishError, ReadEnd};
use crate::unit::PeaId;
use rustix::io::Errno;
use std::path::Path;

/// Commits and publishes with patience: what fails is tried again a few times, what is damaged is committed again.
fn persist(fixture: &Fixture, found: &Found) -> Result<(), String> {
    let store = &found.store;
    let mut last = String::from("nothing");
    for _ in 0..6 {
        let held = store.state().held.clone();
        for piece in fixture.pieces().into_iter().filter(|&piece| !held.contains(piece)) {
            // An error here shows again as a missing piece at publish.
            let _ = store.commit(piece, fixture.filled(store, piece));
        }
        let _ = store.sync();
        match store.publish() {
            Ok(()) => return Ok(()),
            Err(PublishError::Damaged(pieces)) => last = format!("{} damaged", pieces.len()),
            Err(PublishError::Failed(error)) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Every call fails once, with each of these; afterwards the installation is finished by the same process, and what it was told
/// holds even if the power goes right then.
fn every_error(fixture: &Fixture, start: &FaultyVolume, errors: &[Errno], planted: Planted) -> Result<(), String> {
    let rehearsal = start.fork();
    assert!(install(fixture, &rehearsal, Planted::Nothing).installed);
    let calls = rehearsal.calls();
    for call in 0..calls {
        for errno in errors {
            let volume = start.fork();
            volume.fail_at(call, Fault::Once(errno.raw_os_error()));
            let mut found = match fixture.open(&volume) {
                Ok(found) => found,
                Err(_) => fixture.open(&volume).expect("the second try meets no error"),
            };
            found.store.planted = planted;
            if !found.installed {
                persist(fixture, &found).map_err(|last| format!("call {call}, {errno:?}: {last}"))?;
            }
            let back = volume.after_power_loss(&|_| Survival::Lost);
            if !fixture.is_installed(&back) {
                return Err(format!("call {call}, {errno:?}: told installed, and it is not durable"));
            }
        }
    }
    Ok(())
}

#[test]
fn each_error_at_each_call_is_survived_without_a_lie() {
    let errors = [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::MFILE, Errno::STALE, Errno::TIMEDOUT];
    assert_eq!(every_error(&mixed(1), &FaultyVolume::new(), &errors, Planted::Nothing), Ok(()));
    assert_eq!(every_error(&single(1), &FaultyVolume::new(), &errors, Planted::Nothing), Ok(()));
    assert_eq!(every_error(&mixed(1), &with_old(&mixed(50)), &[Errno::NOSPC, Errno::IO], Planted::Nothing), Ok(()));
}

/// The control: who repeats a failed sync and believes the second one is told "durable" of bytes that the system has thrown away.
#[test]
fn a_planted_belief_in_second_syncs_is_caught() {
    let broken = every_error(&mixed(1), &FaultyVolume::new(), &[Errno::IO], Planted::BelieveSecondSync);
    assert!(broken.is_err_and(|broken| broken.contains("not durable")));
}

/// Every read and write gives or takes a part only, which systems may do at any time.
#[test]
fn short_reads_and_writes_are_continued() {
    for fixture in [mixed(1), single(1)] {
        for bytes in [1_001, 4_096, 65_535] {
            let volume = FaultyVolume::new();
            volume.short_transfers(bytes);
            assert!(install(&fixture, &volume, Planted::Nothing).installed);
            assert!(fixture.is_installed(&volume.after_power_loss(&|_| Survival::Lost)));
            assert!(fixture.open(&volume).unwrap().installed);
        }
    }
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_goes_on_when_there_is_room() {
    let fixture = mixed(1);
    let rehearsal = FaultyVolume::new();
    assert!(install(&fixture, &rehearsal, Planted::Nothing).installed);
    for call in 0..rehearsal.calls() {
        let volume = FaultyVolume::new();
        volume.fail_at(call, Fault::From(Errno::NOSPC.raw_os_error()));
        let Ok(found) = fixture.open(&volume) else { continue };
        let mut committed = Vec::new();
        for piece in fixture.pieces() {
            match found.store.commit(piece, fixture.filled(&found.store, piece)) {
                CommitEnd::Committed(proof) => committed.push(proof.piece()),
                CommitEnd::Unwritten(error) => assert_eq!(error.code(), 4, "{error}"),
                CommitEnd::Corrupt => panic!("right bytes"),
            }
        }
        volume.set_free_bytes(0);
        if !found.store.state().held.is_full() {
            assert_eq!(found.store.probe().map_err(|error| error.code()), Err(4));
        }
        volume.heal();
        volume.set_free_bytes(1 << 30);
        found.store.probe().unwrap();
        let held = found.store.state().held.clone();
        assert!(committed.iter().all(|&piece| held.contains(piece)));
        persist(&fixture, &found).expect("there is room");
        assert!(fixture.is_installed(&volume));
    }
}

#[test]
fn a_failed_sync_is_not_believed_when_repeated() {
    let fixture = mixed(1);
    let volume = FaultyVolume::new();
    let found = fixture.open(&volume).unwrap();
    let store = &found.store;
    let first = fixture.pieces()[0];
    assert!(matches!(store.commit(first, fixture.filled(store, first)), CommitEnd::Committed(_)));
    volume.fail_at(volume.calls(), Fault::Once(Errno::IO.raw_os_error()));
    assert!(store.sync().is_err());
    // The fake threw the bytes away, as Linux may: only writing them anew makes them durable.
    store.sync().unwrap();
    drop(found);
    let back = volume.after_power_loss(&|_| Survival::Lost);
    let found = fixture.open(&back).unwrap();
    assert!(found.store.state().held.contains(first));
    assert_eq!(judge(&fixture, None, &Told { flushed: vec![first], installed: false }, &back.fork(), true, false), Ok(()));
}

/// A volume with three of the pieces staged, journaled and durable, and where the journal lies.
fn begun(fixture: &Fixture) -> (FaultyVolume, std::path::PathBuf, Vec<u8>) {
    let volume = FaultyVolume::new();
    let path = {
        let found = fixture.open(&volume).unwrap();
        for piece in &fixture.pieces()[..3] {
            assert!(matches!(found.store.commit(*piece, fixture.filled(&found.store, *piece)), CommitEnd::Committed(_)));
        }
        found.store.sync().unwrap();
        found.store.staging.join("journal")
    };
    let bytes = volume.bytes_at(&path).unwrap();
    (volume, path, bytes)
}

/// The journal of the round, and what was done to it.
fn mutated(round: u64, right: &[u8], fixture: &Fixture) -> Vec<u8> {
    let chance = noise(round, 16);
    let mut bytes = right.to_vec();
    let records = |records: &[Record]| {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| journal::encode(record, &mut bytes));
        bytes
    };
    let identities: Vec<(u32, (u64, u64))> = (0..5).map(|file| (file, (u64::from(chance[2]) % 2, u64::from(chance[3]) % 40))).collect();
    match round % 8 {
        0 => bytes.truncate(usize::from(chance[1]) * bytes.len() / 256),
        1 => bytes.clear(),
        2 => bytes = noise(round, usize::from(chance[1]) * 2),
        // Another version of the format, with right checksums.
        3 => {
            let at = bytes.windows(12).position(|part| part == b"peas journal").unwrap() + 13;
            bytes[at] ^= chance[1].max(1);
            let length = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            let checksum = crc32fast::hash(&bytes[8..8 + length]).to_le_bytes();
            bytes[4..8].copy_from_slice(&checksum);
        }
        // Another content's.
        4 => {
            bytes = records(&[Record::Start { pea: PeaId([chance[1]; 32]), data_inode: 3 }, Record::Pieces(vec![(0, 5)]), Record::Complete])
        }
        // Ours by its checksums, and everything in it made up: other files' inodes, pieces that are not there, "complete".
        5 => {
            let start = Record::Start { pea: fixture.pea.id(), data_inode: u64::from(chance[4]) };
            bytes =
                records(&[start, Record::Files(identities), Record::Pieces(vec![(0, fixture.pieces().len() as u32)]), Record::Complete]);
        }
        // More at the end than is true.
        6 => bytes.extend(records(&[
            Record::Files(identities),
            Record::Pieces(vec![(u32::from(chance[1]) % 5, 1 + u32::from(chance[2]) % 200)]),
            Record::Complete,
        ])),
        _ => {
            for pair in chance[1..].chunks_exact(2) {
                let at = usize::from(pair[0]) * bytes.len() / 256;
                bytes[at] ^= pair[1].max(1);
            }
        }
    }
    bytes
}

const MUTATIONS: u64 = 10_000;

/// Opens, and goes on as the engine does: what publishing finds wrong is committed again. Gives whether wrong bytes were ever shown.
fn resumed_right(fixture: &Fixture, volume: &FaultyVolume, planted: Planted) -> bool {
    let mut found = fixture.open(volume).unwrap();
    found.store.planted = planted;
    persist(fixture, &found).unwrap();
    drop(found);
    fixture.is_installed(volume)
}

#[test]
fn ten_thousand_mutated_journals_are_never_trusted_with_wrong_bytes() {
    let fixture = small(1);
    let (volume, path, right) = begun(&fixture);
    let path = path.to_string_lossy().into_owned();
    for round in 0..MUTATIONS {
        let copy = volume.fork();
        copy.plant(&path, &mutated(round, &right, &fixture));
        if round / 8 % 2 == 0 {
            // Right bytes are found again whatever the journal says.
            let found = fixture.open(&copy).unwrap();
            assert!(fixture.pieces()[..3].iter().all(|&piece| found.store.state().held.contains(piece)), "round {round}");
        } else {
            // Wrong bytes under whatever it says are found by their hash, at the latest before anything is published.
            let big = Path::new(&path).with_file_name("data/big");
            copy.plant(&big.to_string_lossy(), &noise(77, 150_000));
        }
        assert!(resumed_right(&fixture, &copy, Planted::Nothing), "round {round}");
    }
}

/// The control of the one before: who believes a journal when publishing shows wrong bytes.
#[test]
fn a_planted_belief_in_journals_is_caught() {
    let fixture = small(1);
    let (volume, path, right) = begun(&fixture);
    volume.plant(&path.to_string_lossy(), &right);
    volume.plant(&path.with_file_name("data/big").to_string_lossy(), &noise(77, 150_000));
    assert!(resumed_right(&fixture, &volume.fork(), Planted::Nothing));
    assert!(!resumed_right(&fixture, &volume, Planted::BelieveJournal));
}

/// An installation that has everything, on the disk and not yet under its name.
fn received(fixture: &Fixture, volume: &FaultyVolume) -> Found {
    let found = fixture.open(volume).unwrap();
    for piece in fixture.pieces() {
        assert!(matches!(found.store.commit(piece, fixture.filled(&found.store, piece)), CommitEnd::Committed(_)));
    }
    found.store.sync().unwrap();
    found
}

#[test]
fn rot_under_a_good_journal_is_found_before_publishing() {
    let fixture = mixed(1);
    let volume = FaultyVolume::new();
    drop(received(&fixture, &volume));
    let found = fixture.open(&volume).unwrap();
    let path = found.store.staging.join("data/big");
    let mut bytes = volume.bytes_at(&path).unwrap();
    bytes[100_000] ^= 1;
    volume.plant(&path.to_string_lossy(), &bytes);
    assert!(found.store.state().held.is_full());
    let Err(PublishError::Damaged(pieces)) = found.store.publish() else { panic!("rot was published") };
    assert_eq!(pieces.len(), 1);
    persist(&fixture, &found).unwrap();
    assert!(fixture.is_installed(&volume));
}

/// Somebody tidies up beneath us: what was verified and is gone again by its name must not be published as zeros, nor not at all.
#[test]
fn a_staged_file_that_is_taken_away_is_noticed_before_publishing() {
    type Misdeed = fn(&FaultyVolume, &Path);
    let misdeeds: [Misdeed; 3] = [
        |volume, path| volume.remove_file(path).unwrap(),
        |volume, path| volume.open(path, Access::Write).unwrap().set_len(1000).unwrap(),
        |volume, path| {
            volume.open(Path::new("other"), Access::Create).unwrap().set_len(30_000).unwrap();
            volume.rename(Path::new("other"), path).unwrap();
        },
    ];
    for misdeed in misdeeds {
        for closed in [false, true] {
            let fixture = mixed(1);
            let volume = FaultyVolume::new();
            let found = received(&fixture, &volume);
            misdeed(&volume, &found.store.staging.join("data/a/one"));
            if closed {
                found.store.staged.close_files();
            }
            let Err(PublishError::Damaged(pieces)) = found.store.publish() else { panic!("not noticed (closed: {closed})") };
            assert_eq!(pieces.len(), 1);
            persist(&fixture, &found).unwrap();
            assert!(fixture.is_installed(&volume));
        }
    }
}

#[test]
fn rot_is_not_served_and_is_mended_in_place() {
    let fixture = single(1);
    let volume = FaultyVolume::new();
    assert!(install(&fixture, &volume, Planted::Nothing).installed);
    let found = fixture.open(&volume).unwrap();
    assert!(found.installed);
    let mut bytes = fixture.bytes.clone();
    bytes[70_000] ^= 4;
    volume.plant("dest", &bytes);
    let (good, bad) = (fixture.pieces()[0], fixture.pieces()[1]);
    let geometry = fixture.pea.geometry();
    let at_hand = |piece, with_proof| found.store.at_hand(geometry.whole(piece), with_proof).is_some();
    assert!(!at_hand(good, false), "nothing was read yet");
    assert!(matches!(found.store.read(geometry.whole(good), true), ReadEnd::Bytes { .. }));
    assert!(at_hand(good, false) && at_hand(good, true));
    for with_proof in [true, false] {
        assert!(matches!(found.store.read(geometry.whole(bad), with_proof), ReadEnd::Damaged));
    }
    assert!(!at_hand(bad, false), "it is wrong");
    assert!(matches!(found.store.commit(bad, fixture.filled(&found.store, bad)), CommitEnd::Committed(_)));
    assert!(at_hand(bad, false) && !at_hand(bad, true), "what it is proven by is not known yet");
    let state = found.store.state();
    assert!(!at_hand(bad, false), "nobody is waited for");
    drop(state);
    assert!(fixture.is_installed(&volume));
    assert!(matches!(found.store.read(geometry.whole(bad), true), ReadEnd::Bytes { .. }));
}
