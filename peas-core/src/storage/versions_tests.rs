//! Several contents at one destination: one writer at a time, what a killed installation of another version left, and what of an old tree
//! stays.

use super::faulty::{Fault, FaultyVolume, Survival};
use super::fixture::{Fixture, folder, mixed, noise, single};
use super::open::Found;
use super::{CommitEnd, PublishError};
use crate::Error;
use crate::manifest::EntryKind;
use std::path::Path;

const SETTINGS: (&str, &[u8]) = ("dest/a/settings", b"mine");

fn fill(fixture: &Fixture, found: &Found) -> Option<u64> {
    let held = found.store.state().held.clone();
    let missing: Vec<_> = fixture.pieces().into_iter().filter(|&piece| !held.contains(piece)).collect();
    for &piece in &missing {
        if !matches!(found.store.commit(piece, fixture.filled(&found.store, piece)), CommitEnd::Committed(_)) {
            return None;
        }
    }
    Some(missing.iter().map(|&piece| u64::from(fixture.pea.geometry().len_of(piece))).sum())
}

/// Installs and gives the bytes that had to be fetched; `None` at the first error.
fn install(fixture: &Fixture, volume: &FaultyVolume) -> Option<u64> {
    let found = fixture.open(volume).ok()?;
    let fetched = fill(fixture, &found)?;
    found.store.publish().ok()?;
    Some(fetched)
}

fn names(volume: &FaultyVolume) -> Vec<String> {
    use super::volume::Volume;
    let found = volume.list(Path::new("")).unwrap();
    found.into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
}

/// The bug: the lock lay in the staging directory, which is named after the content, so that installations of two contents at one
/// destination did not see each other, and the later one published over the earlier.
#[test]
fn one_destination_has_one_writer_whatever_it_writes() {
    let (one, other) = (mixed(1), mixed(50));
    let volume = FaultyVolume::new();
    let found = one.open(&volume).unwrap();
    for _ in 0..2 {
        assert!(matches!(other.open(&volume), Err(Error::Busy { .. })));
        assert!(matches!(one.open(&volume), Err(Error::Busy { .. })));
    }
    fill(&one, &found).unwrap();
    found.store.publish().unwrap();
    // The content is in place: who serves it from there does not keep the next version out.
    assert!(install(&other, &volume).is_some());
    drop(found);
    assert!(other.is_installed(&volume));
    assert_eq!(names(&volume), ["dest"]);
}

#[test]
fn a_lock_file_that_a_killed_process_left_is_taken_over_and_goes() {
    let fixture = single(1);
    let volume = FaultyVolume::new();
    drop(fixture.open(&volume).unwrap());
    let lock = names(&volume).into_iter().find(|name| name.ends_with(".lock"));
    assert_eq!(lock, None, "who lets go removes it");
    let found = fixture.open(&volume).unwrap();
    let killed = volume.after_kill();
    assert!(names(&killed).iter().any(|name| name.ends_with(".lock")));
    drop(found);
    assert!(install(&fixture, &killed).is_some());
    assert_eq!(names(&killed), ["dest"]);
    // Whole content and a lock file alone: nothing is locked, and the file goes all the same.
    let lock = format!(".peas-{}.lock", fixture.opening(&killed).apart());
    killed.plant(&lock, b"");
    assert!(fixture.open(&killed).unwrap().installed);
    assert_eq!(names(&killed), ["dest"]);
}

/// Two versions that have a file in common.
fn versions() -> (Fixture, Fixture, Fixture) {
    let make = |seed: u64, more: &[(&str, Vec<u8>)]| {
        let mut files = vec![("a/one", noise(seed, 20_000)), ("big", noise(7, 200_000))];
        files.extend(more.iter().cloned());
        folder(&files, &[])
    };
    (make(1, &[("gone", noise(9, 4_000)), ("gonedir/x", noise(8, 10))]), make(2, &[]), make(3, &[("fresh", noise(4, 500))]))
}

#[test]
fn what_a_killed_installation_of_another_version_staged_is_used_and_removed() {
    let (one, two, _) = versions();
    let volume = FaultyVolume::new();
    {
        let found = one.open(&volume).unwrap();
        fill(&one, &found).unwrap();
        found.store.sync().unwrap();
    }
    let killed = volume.after_kill();
    assert_eq!(names(&killed).len(), 1);
    let fetched = install(&two, &killed).unwrap();
    // The large file is whole in it; the pieces beside it hold bytes of small files, too.
    assert!(fetched <= 2 * 65_536, "{fetched} bytes were fetched");
    assert!(two.is_installed(&killed));
    assert_eq!(names(&killed), ["dest"]);
}

/// Kills and power cuts at every call of an update to a second version, and then a third one is installed: it always can be, it is whole, nothing is
/// left over, and the user's file is where it was.
#[test]
fn a_third_version_follows_a_broken_off_second_one() {
    let (old, broken_off, new) = versions();
    for exchange in [true, false] {
        let start = FaultyVolume::new();
        assert!(install(&old, &start).is_some());
        start.settle();
        start.plant(SETTINGS.0, SETTINGS.1);
        if !exchange {
            start.without_exchange();
        }
        let rehearsal = start.fork();
        assert!(install(&broken_off, &rehearsal).is_some());
        for call in 0..=rehearsal.calls() {
            let volume = start.fork();
            volume.fail_at(call, Fault::PowerOff);
            install(&broken_off, &volume);
            let states = [
                volume.after_kill(),
                volume.after_power_loss(&|_| Survival::Lost),
                volume.after_power_loss(&|at| [Survival::Kept, Survival::Lost][at % 2]),
            ];
            for (which, back) in states.iter().enumerate() {
                let place = format!("call {call}, state {which}, exchange {exchange}");
                assert!(install(&new, back).is_some(), "{place}: the third version cannot be installed");
                assert!(new.is_installed(back), "{place}");
                assert_eq!(back.bytes_at(Path::new(SETTINGS.0)).as_deref(), Some(SETTINGS.1), "{place}: a file of the user's is lost");
                assert_eq!(names(back), ["dest"], "{place}");
                assert_eq!(back.bytes_at(Path::new("dest/gone")), None, "{place}: a file of an older version stays");
            }
        }
    }
}

/// The bug: everything that the new version did not name was kept, so that files of versions long gone lay beside it for ever.
#[test]
fn an_update_takes_away_what_the_old_version_brought_and_keeps_what_the_user_made() {
    let link = |target: &str| EntryKind::Symlink { target: target.into() };
    let old = folder(
        &[
            ("kept", noise(1, 9_000)),
            ("gone", noise(2, 500)),
            ("changed", noise(3, 500)),
            ("dir/in/gone", noise(4, 10)),
            ("was-dir/x", noise(5, 7)),
        ],
        &[("link", link("kept")), ("hollow", EntryKind::Directory), ("emptied", EntryKind::Directory)],
    );
    let new = folder(&[("kept", noise(6, 9_000)), ("was-dir", noise(7, 10))], &[]);
    let volume = FaultyVolume::new();
    assert!(install(&old, &volume).is_some());
    volume.plant("dest/changed", b"changed by the user");
    volume.plant("dest/own", b"own");
    volume.plant("dest/hollow/own", b"own, too");
    assert!(install(&new, &volume).is_some());
    assert!(new.is_installed(&volume));
    let bytes = |path: &str| volume.bytes_at(Path::new(path));
    assert_eq!(bytes("dest/changed").as_deref(), Some(&b"changed by the user"[..]));
    assert_eq!(bytes("dest/own").as_deref(), Some(&b"own"[..]));
    assert_eq!(bytes("dest/hollow/own").as_deref(), Some(&b"own, too"[..]));
    use super::volume::Volume;
    for gone in ["dest/gone", "dest/dir", "dest/link", "dest/emptied"] {
        assert!(volume.stat(Path::new(gone)).is_err(), "{gone} went with the old version");
    }
    // The control: without marks nobody can tell, and all of it stays; what has no place in the new tree is named.
    let volume = FaultyVolume::new();
    assert!(install(&old, &volume).is_some());
    volume.forget_marks();
    assert!(matches!(new.open(&volume), Err(Error::Content { path, .. }) if path.ends_with("was-dir/x")));
    super::volume::remove_tree(&volume, Path::new("dest/was-dir")).unwrap();
    assert!(install(&new, &volume).is_some());
    assert!(["dest/gone", "dest/dir/in/gone", "dest/link", "dest/emptied"].iter().all(|kept| volume.stat(Path::new(kept)).is_ok()));
}

/// The bug: a content found whole was called installed after one sync of the directory above it. Files that somebody had just copied
/// there were lost with the power, acknowledged as they were.
#[test]
fn what_is_found_whole_is_durable_before_it_is_called_installed() {
    for fixture in [mixed(1), single(1)] {
        let volume = FaultyVolume::new();
        assert!(install(&fixture, &volume).is_some());
        // The same tree, but as if it had been copied a moment ago: nothing of it has reached the disk.
        let copied = FaultyVolume::new();
        copied.copy_unsynced(&volume);
        let found = fixture.open(&copied).unwrap();
        assert!(found.installed);
        assert!(fixture.is_installed(&copied.after_power_loss(&|_| Survival::Lost)));
    }
}

#[test]
fn a_content_without_room_is_known_before_it_is_begun() {
    let fixture = mixed(1);
    let volume = FaultyVolume::new();
    volume.set_total_bytes(fixture.bytes.len() as u64 / 3);
    volume.set_free_bytes(1000);
    let found = fixture.open(&volume).unwrap();
    assert_eq!(found.room_short, Some(fixture.bytes.len() as u64 - 1000));
    assert_eq!(found.store.probe().map_err(|error| error.code()), Err(4));
    volume.set_free_bytes(fixture.bytes.len() as u64);
    found.store.probe().unwrap();
    volume.fail_at(volume.calls() + 2, Fault::Once(rustix::io::Errno::DQUOT.raw_os_error()));
    assert_eq!(found.store.probe().map_err(|error| error.code()), Err(4), "a quota shows only when something is written");
    let Err(PublishError::Damaged(missing)) = found.store.publish() else { panic!("nothing was fetched") };
    assert_eq!(missing.len(), fixture.pieces().len());
}
