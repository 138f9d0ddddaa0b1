//! Power loss, kill and failing disks, after every call and with every error (THREATS B1b, B3, B4).
//!
//! What must hold after any crash: a held piece that the journal vouched for has the right bytes on disk; a final name shows the
//! old content or the new one, whole; what was acknowledged as installed or flushed is there. Each rule has a planted bug that the same
//! test has to catch.

use super::faulty::{Fault, FaultyVolume, Survival};
use super::fixture::{Fixture, mixed, noise, single};
use super::open::Found;
use super::{CommitEnd, PublishError, ReadEnd};
use crate::hash;
use crate::unit::PieceIdx;
use rustix::io::Errno;
use std::path::Path;

/// Bugs on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// Journal records before their data are durable.
    NoDataSync,
    /// Success before the new names are durable.
    NoDirectorySync,
    /// The old content goes before the new one comes.
    RemoveBeforeRename,
}

/// What an installation had been told when it ended.
#[derive(Default)]
struct Told {
    flushed: Vec<PieceIdx>,
    installed: bool,
}

/// Opens, commits all that is missing with a flush in between, publishes. Ends at the first error.
fn install(fixture: &Fixture, volume: &FaultyVolume, planted: Planted) -> Told {
    let mut told = Told::default();
    let Ok(mut found) = fixture.open(volume) else { return told };
    found.store.planted = planted;
    let store = &found.store;
    if found.installed {
        told.installed = true;
        return told;
    }
    let held = store.state().held.clone();
    for (at, piece) in fixture.pieces().into_iter().filter(|&piece| !held.contains(piece)).enumerate() {
        if !matches!(store.commit(piece, fixture.filled(store, piece)), CommitEnd::Committed(_)) {
            return told;
        }
        if at % 2 == 1 {
            if store.sync().is_err() {
                return told;
            }
            told.flushed = store.state().held.iter().collect();
        }
    }
    told.installed = store.publish().is_ok();
    told
}

/// Which changes survive: all, none, one alone, all but one, and patterns; all subsets when there are few.
fn survivals(waiting: usize, seed: u64) -> Vec<Box<dyn Fn(usize) -> Survival>> {
    let mut all: Vec<Box<dyn Fn(usize) -> Survival>> = Vec::new();
    let pick = |yes: bool| if yes { Survival::Kept } else { Survival::Lost };
    if waiting <= 5 {
        for mask in 0u32..1 << waiting {
            all.push(Box::new(move |at| pick(mask >> at & 1 == 1)));
        }
    } else {
        all.push(Box::new(|_| Survival::Kept));
        all.push(Box::new(|_| Survival::Lost));
        for salt in 0..10u64 {
            let pattern = noise(seed * 100 + salt, waiting);
            all.push(Box::new(move |at| [Survival::Kept, Survival::Lost, Survival::Torn][usize::from(pattern[at] % 3)]));
        }
        for one in 0..waiting.min(12) {
            let one = waiting - 1 - one;
            all.push(Box::new(move |at| pick(at == one)));
            all.push(Box::new(move |at| pick(at != one)));
        }
    }
    all.push(Box::new(|_| Survival::Torn));
    all
}

/// A file of the user's in the old tree: it must be there after every crash.
const SETTINGS: (&str, &[u8]) = ("dest/a/settings", b"mine");

/// The rules, judged on a machine that has just come back. Gives the first one broken.
fn judge(
    fixture: &Fixture,
    old: Option<&Fixture>,
    told: &Told,
    volume: &FaultyVolume,
    power_lost: bool,
    had_settings: bool,
) -> Result<(), String> {
    let whole = fixture.is_installed(volume);
    if told.installed && !whole {
        return Err("an acknowledged installation is lost".into());
    }
    // In the two steps of a switch without exchange the name is missing for a moment; opening mends that.
    let any = fixture.files().iter().any(|(path, _)| volume.bytes_at(path).is_some());
    let old_whole = old.is_some_and(|old| old.is_installed(volume));
    if any && !whole && !old_whole {
        return Err("a final name shows neither the old content nor the new one".into());
    }
    let found = fixture.open(volume).map_err(|error| format!("opening failed: {error}"))?;
    if old.is_some() && !fixture.is_installed(volume) && !old.is_some_and(|old| old.is_installed(volume)) {
        return Err("the old content is lost".into());
    }
    if found.installed != fixture.is_installed(volume) {
        return Err("opening misjudged what is installed".into());
    }
    if !found.installed {
        let held = found.store.state().held.clone();
        for piece in held.iter() {
            let mut buf = found.store.buffer(piece);
            let range = fixture.pea.geometry().bytes_of(piece);
            found.store.staged.read(range, &mut buf).map_err(|error| format!("a held piece cannot be read: {error}"))?;
            if hash::piece_cv(fixture.pea.geometry(), piece, &buf) != *fixture.pea.piece_cv(piece) {
                return Err(format!("piece {piece} is called held, and its bytes are wrong"));
            }
        }
        if let Some(lost) = told.flushed.iter().find(|&&piece| !held.contains(piece)) {
            return Err(format!("piece {lost} was flushed and is lost (power lost: {power_lost})"));
        }
    }
    drop(found);
    if had_settings && volume.bytes_at(Path::new(SETTINGS.0)).as_deref() != Some(SETTINGS.1) {
        return Err("a file of the user's is lost".into());
    }
    let again = install(fixture, volume, Planted::Nothing);
    if !again.installed || !fixture.is_installed(volume) {
        return Err("the installation could not be finished afterwards".into());
    }
    if had_settings && volume.bytes_at(Path::new(SETTINGS.0)).as_deref() != Some(SETTINGS.1) {
        return Err("a file of the user's is lost at the end".into());
    }
    Ok(())
}

/// Crashes after every call of an installation onto `start`, with many subsets of what was not synced. Gives how many states were
/// judged, and the first broken rule.
fn every_crash(fixture: &Fixture, old: Option<&Fixture>, start: &FaultyVolume, planted: Planted) -> (u64, Option<String>) {
    let rehearsal = start.fork();
    assert!(install(fixture, &rehearsal, planted).installed);
    let had_settings = start.bytes_at(Path::new(SETTINGS.0)).is_some();
    let calls = rehearsal.calls();
    let mut states = 0;
    for call in 0..=calls {
        let volume = start.fork();
        volume.fail_at(call, Fault::PowerOff);
        let told = install(fixture, &volume, planted);
        let killed = volume.after_kill();
        states += 1;
        if let Err(broken) = judge(fixture, old, &told, &killed, false, had_settings) {
            return (states, Some(format!("kill at call {call} of {calls}: {broken}")));
        }
        for (which, survives) in survivals(volume.waiting(), call).iter().enumerate() {
            states += 1;
            let back = volume.after_power_loss(survives);
            if let Err(broken) = judge(fixture, old, &told, &back, true, had_settings) {
                return (states, Some(format!("power loss {which} at call {call} of {calls}: {broken}")));
            }
        }
    }
    (states, None)
}

fn with_old(old: &Fixture) -> FaultyVolume {
    let volume = FaultyVolume::new();
    assert!(install(old, &volume, Planted::Nothing).installed);
    volume.settle();
    volume
}

#[test]
fn no_crash_of_a_new_folder_breaks_a_rule() {
    let (states, broken) = every_crash(&mixed(1), None, &FaultyVolume::new(), Planted::Nothing);
    assert_eq!(broken, None);
    assert!(states > 1000, "{states} states are too few to mean anything");
}

#[test]
fn no_crash_of_a_single_file_breaks_a_rule() {
    assert_eq!(every_crash(&single(1), None, &FaultyVolume::new(), Planted::Nothing).1, None);
    let old = single(9);
    assert_eq!(every_crash(&single(1), Some(&old), &with_old(&old), Planted::Nothing).1, None);
}

#[test]
fn no_crash_of_an_update_breaks_a_rule() {
    let old = mixed(50);
    let start = with_old(&old);
    start.plant(SETTINGS.0, SETTINGS.1);
    assert_eq!(every_crash(&mixed(1), Some(&old), &start, Planted::Nothing).1, None);
}

#[test]
fn no_crash_of_an_update_without_exchange_breaks_a_rule() {
    let old = mixed(50);
    let start = with_old(&old);
    start.without_exchange();
    start.plant(SETTINGS.0, SETTINGS.1);
    assert_eq!(every_crash(&mixed(1), Some(&old), &start, Planted::Nothing).1, None);
}

#[test]
fn planted_bugs_are_caught() {
    let fixture = mixed(1);
    let (_, broken) = every_crash(&fixture, None, &FaultyVolume::new(), Planted::NoDataSync);
    let broken = broken.expect("journaling before syncing must be caught");
    assert!(broken.contains("wrong") || broken.contains("flushed and is lost"), "{broken}");
    let (_, broken) = every_crash(&fixture, None, &FaultyVolume::new(), Planted::NoDirectorySync);
    assert!(broken.expect("a missing sync of the directory must be caught").contains("acknowledged"));
    let old = single(9);
    let (_, broken) = every_crash(&single(1), Some(&old), &with_old(&old), Planted::RemoveBeforeRename);
    assert!(broken.expect("removing the old content first must be caught").contains("old content is lost"));
}

#[test]
fn an_update_keeps_what_is_not_ours() {
    let (old, new) = (mixed(50), mixed(1));
    for (exchange, links) in [(true, true), (false, true), (true, false), (false, false)] {
        let volume = with_old(&old);
        if !exchange {
            volume.without_exchange();
        }
        if !links {
            volume.without_links();
        }
        volume.plant("dest/hollow/log", b"kept");
        volume.plant("dest/a/settings", b"mine");
        volume.plant("dest/saves/1/game", b"also mine");
        assert!(install(&new, &volume, Planted::Nothing).installed);
        assert!(new.is_installed(&volume));
        assert_eq!(volume.bytes_at(Path::new("dest/a/settings")).as_deref(), Some(&b"mine"[..]));
        assert_eq!(volume.bytes_at(Path::new("dest/hollow/log")).as_deref(), Some(&b"kept"[..]));
        assert_eq!(volume.bytes_at(Path::new("dest/saves/1/game")).as_deref(), Some(&b"also mine"[..]));
    }
}

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
fn every_error(fixture: &Fixture, start: &FaultyVolume, errors: &[Errno]) {
    let rehearsal = start.fork();
    assert!(install(fixture, &rehearsal, Planted::Nothing).installed);
    let calls = rehearsal.calls();
    for call in 0..calls {
        for errno in errors {
            let volume = start.fork();
            volume.fail_at(call, Fault::Once(errno.raw_os_error()));
            let found = match fixture.open(&volume) {
                Ok(found) => found,
                Err(_) => fixture.open(&volume).expect("the second try meets no error"),
            };
            if !found.installed {
                persist(fixture, &found).unwrap_or_else(|last| panic!("call {call}, {errno:?}: {last}"));
            }
            let back = volume.after_power_loss(&|_| Survival::Lost);
            assert!(fixture.is_installed(&back), "call {call}, {errno:?}: told installed, and it is not durable");
        }
    }
}

#[test]
fn each_error_at_each_call_is_survived_without_a_lie() {
    let errors = [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::MFILE];
    every_error(&mixed(1), &FaultyVolume::new(), &errors);
    every_error(&single(1), &FaultyVolume::new(), &errors);
    every_error(&mixed(1), &with_old(&mixed(50)), &[Errno::NOSPC, Errno::IO]);
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
        assert!(!found.store.has_room());
        volume.heal();
        volume.set_free_bytes(1 << 30);
        assert!(found.store.has_room());
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

#[test]
fn mutated_journals_are_never_trusted_with_wrong_bytes() {
    let fixture = mixed(1);
    let volume = FaultyVolume::new();
    {
        let found = fixture.open(&volume).unwrap();
        for piece in &fixture.pieces()[..3] {
            assert!(matches!(found.store.commit(*piece, fixture.filled(&found.store, *piece)), CommitEnd::Committed(_)));
        }
        found.store.sync().unwrap();
    }
    let staging = fixture.open(&volume.fork()).unwrap().store.staging.clone();
    let journal = volume.bytes_at(&staging.join("journal")).unwrap();
    let path = staging.join("journal").to_string_lossy().into_owned();
    for round in 0..1000u64 {
        let chance = noise(round, 8);
        let mut bytes = journal.clone();
        match chance[0] % 5 {
            0 => bytes.truncate(usize::from(chance[1]) * bytes.len() / 256),
            1 => bytes.clear(),
            2 => bytes = noise(round, 200),
            _ => {
                for pair in chance[1..].chunks_exact(2) {
                    let at = usize::from(pair[0]) * bytes.len() / 256;
                    bytes[at] ^= pair[1].max(1);
                }
            }
        }
        let copy = volume.fork();
        copy.plant(&path, &bytes);
        // Right bytes are found again whatever the journal says; wrong ones are not believed.
        let found = fixture.open(&copy).unwrap();
        assert!(fixture.pieces()[..3].iter().all(|&piece| found.store.state().held.contains(piece)), "round {round}");
        drop(found);
        let big = staging.join("data/big").to_string_lossy().into_owned();
        let wrong = volume.fork();
        wrong.plant(&path, &bytes);
        wrong.plant(&big, &noise(77, 150_000));
        let told = install(&fixture, &wrong, Planted::Nothing);
        // Wrong bytes under a good journal are found by the hash before publishing; then they are to be fetched again.
        assert!(!told.installed || fixture.is_installed(&wrong), "round {round}");
    }
}

#[test]
fn rot_under_a_good_journal_is_found_before_publishing() {
    let fixture = mixed(1);
    let volume = FaultyVolume::new();
    {
        let found = fixture.open(&volume).unwrap();
        for piece in fixture.pieces() {
            assert!(matches!(found.store.commit(piece, fixture.filled(&found.store, piece)), CommitEnd::Committed(_)));
        }
        found.store.sync().unwrap();
    }
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
    assert!(matches!(found.store.read(geometry.whole(good), true), ReadEnd::Bytes { .. }));
    for with_proof in [true, false] {
        assert!(matches!(found.store.read(geometry.whole(bad), with_proof), ReadEnd::Damaged));
    }
    assert!(matches!(found.store.commit(bad, fixture.filled(&found.store, bad)), CommitEnd::Committed(_)));
    assert!(fixture.is_installed(&volume));
    assert!(matches!(found.store.read(geometry.whole(bad), true), ReadEnd::Bytes { .. }));
}
