//! A process of the same user swaps directories of the staging tree for links that lead outside, while an installation writes, reads and
//! publishes there (THREATS F1). The installation may fail and be tried again; nothing outside is ever touched.

use peas_core::config::CreateOptions;
use peas_core::session::create;
use peas_core::storage::{CommitEnd, Storage, StorageOptions};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GO_ON: &(dyn Fn(u64, u64) -> bool + Sync) = &|_, _| true;
const FILES: usize = 40;

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Every directory below any staging directory, and the destination's.
fn directories(place: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![place.to_path_buf()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found
}

/// Swaps until told to stop: each directory goes aside, a link to the outside takes its name for a moment, and it comes back.
///
/// A link at the destination itself is followed by who opens an installation there, so that one is swapped only between openings. (It was
/// once met by one, which then did as it was told: it installed into the outside.)
fn swap(place: &Path, outside: &Path, opening: &Mutex<()>, stop: &AtomicBool, swaps: &AtomicU64) {
    let (aside, dest) = (place.join("aside"), place.join("dest"));
    while !stop.load(Ordering::Relaxed) {
        for dir in directories(place) {
            let _between_openings = (dir == dest).then(|| opening.lock().unwrap());
            if dir.file_name().is_some_and(|name| name == "aside") || fs::rename(&dir, &aside).is_err() {
                continue;
            }
            let linked = std::os::unix::fs::symlink(outside, &dir).is_ok();
            std::thread::yield_now();
            swaps.fetch_add(u64::from(linked), Ordering::Relaxed);
            let _ = fs::remove_file(&dir);
            if fs::rename(&aside, &dir).is_err() {
                // The installation made the directory anew meanwhile.
                let _ = fs::remove_dir_all(&aside);
            }
        }
    }
}

#[test]
fn swapped_directories_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    // The outside is another file system where there is one: the swapper itself, led astray by a link that a publish has moved, can then move
    // nothing there.
    let memory = Path::new("/dev/shm");
    let elsewhere = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (source, place, outside) = (dir.path().join("source"), dir.path().join("place"), elsewhere.path().join("outside"));
    for at in 0..FILES {
        let path = source.join(format!("d{}/e{}/f{at}", at % 4, at % 3));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(at as u64, 20_000)).unwrap();
    }
    // What a misled write, a misled mode or a misled removal would hit: the same names, outside.
    for at in 0..FILES {
        let path = outside.join(format!("e{}/f{at}", at % 3));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"canary").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::create_dir(&place).unwrap();
    let made = create(&source, &CreateOptions { piece_bytes: Some(65_536), ..Default::default() }, GO_ON).unwrap();
    let pea = Arc::new(made.manifest);
    let content: Vec<u8> = pea
        .entries()
        .iter()
        .filter(|entry| matches!(entry.kind, peas_core::manifest::EntryKind::File { .. }))
        .flat_map(|entry| fs::read(source.join(&entry.path)).unwrap())
        .collect();

    let (opening, stop, swaps) = (Mutex::new(()), AtomicBool::new(false), AtomicU64::new(0));
    let (mut rounds, mut published, mut refused) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&place, &outside, &opening, &stop, &swaps));
        while rounds < 60 || swaps.load(Ordering::Relaxed) < 2000 {
            rounds += 1;
            let options = StorageOptions { threads: 2, pooled_bytes_max: 1 << 20 };
            let alone = opening.lock().unwrap();
            let opened = Storage::open_install(pea.clone(), &place.join("dest"), &options, GO_ON);
            drop(alone);
            let Ok(opened) = opened else {
                refused += 1;
                continue;
            };
            for piece in pea.geometry().pieces().filter(|&piece| !opened.held.contains(piece)) {
                let range = pea.geometry().bytes_of(piece);
                let mut buf = opened.storage.buffer(piece);
                buf.copy_from_slice(&content[range.start as usize..range.end as usize]);
                let (send, receive) = channel();
                opened.storage.commit(piece, buf, Box::new(move |end| send.send(end).unwrap()));
                refused += u64::from(!matches!(receive.recv().unwrap(), CommitEnd::Committed(_)));
            }
            let (send, receive) = channel();
            opened.storage.publish(Box::new(move |end| send.send(end.is_ok()).unwrap()));
            published += u64::from(receive.recv().unwrap());
            assert!(opened.storage.close(Duration::from_secs(30)));
            if rounds % 4 == 0 {
                let _ = fs::remove_dir_all(place.join("dest"));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(refused > 0, "no swap was ever met ({rounds} rounds, {published} published): this proves nothing");
    for at in 0..FILES {
        assert_eq!(fs::read(outside.join(format!("e{}/f{at}", at % 3))).unwrap(), b"canary", "file {at} outside");
    }
    let kinds =
        directories(&outside).into_iter().flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().metadata().unwrap());
    let files = kinds.filter(|kind| kind.is_file()).inspect(|kind| assert_eq!(kind.permissions().mode() & 0o777, 0o640)).count();
    assert_eq!((files, directories(&outside).len()), (FILES, 3), "nothing new outside");
}
