//! What every volume must do: the real one and the fake pass the same tests, so that what the crash tests prove about the fake says
//! something about disks.

use super::faulty::FaultyVolume;
use super::real::RealVolume;
use super::volume::{Access, Kind, Volume, is_missing, kind_at, make_dirs, read_exact_at, remove_tree, write_all_at};
use std::path::Path;

fn on_each(test: impl Fn(&dyn Volume)) {
    test(&FaultyVolume::new());
    let dir = tempfile::tempdir().unwrap();
    test(&RealVolume::open(dir.path()).unwrap());
}

fn put(volume: &dyn Volume, path: &str, bytes: &[u8]) {
    let file = volume.open(Path::new(path), Access::Create).unwrap();
    write_all_at(&*file, bytes, 0).unwrap();
    file.sync_data().unwrap();
}

fn get(volume: &dyn Volume, path: &str) -> Vec<u8> {
    let file = volume.open(Path::new(path), Access::Read).unwrap();
    let mut bytes = vec![0; file.stat().unwrap().bytes as usize];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    bytes
}

#[test]
fn bytes_come_back_and_sizes_are_exact() {
    on_each(|volume| {
        put(volume, "f", b"hello");
        let file = volume.open(Path::new("f"), Access::Write).unwrap();
        write_all_at(&*file, b"J", 0).unwrap();
        write_all_at(&*file, b"!", 9).unwrap();
        assert_eq!(get(volume, "f"), b"Jello\0\0\0\0!");
        file.set_len(3).unwrap();
        assert_eq!(get(volume, "f"), b"Jel");
        let mut buf = [0; 4];
        assert_eq!(read_exact_at(&*file, &mut buf, 0).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(file.next_data(3).unwrap(), None);
        assert!(is_missing(&volume.open(Path::new("g"), Access::Write).err().unwrap()));
    });
}

#[test]
fn names_change_in_one_step_and_trees_go() {
    on_each(|volume| {
        make_dirs(volume, Path::new("a/b")).unwrap();
        make_dirs(volume, Path::new("c")).unwrap();
        put(volume, "a/b/f", b"1");
        put(volume, "c/g", b"2");
        volume.exchange(Path::new("a"), Path::new("c")).unwrap();
        assert_eq!(get(volume, "c/b/f"), b"1");
        assert_eq!(get(volume, "a/g"), b"2");
        volume.rename(Path::new("a/g"), Path::new("c/b/f")).unwrap();
        assert_eq!(get(volume, "c/b/f"), b"2");
        volume.link(Path::new("c/b/f"), Path::new("a/h")).unwrap();
        assert_eq!(volume.link(Path::new("c/b/f"), Path::new("a/h")).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        let (one, two) = (volume.stat(Path::new("c/b/f")).unwrap(), volume.stat(Path::new("a/h")).unwrap());
        assert_eq!(one.inode, two.inode);
        volume.sync_dir(Path::new("c/b")).unwrap();
        volume.sync_dir(Path::new("")).unwrap();
        volume.sync_all().unwrap();
        remove_tree(volume, Path::new("c")).unwrap();
        remove_tree(volume, Path::new("c")).unwrap();
        assert_eq!(kind_at(volume, Path::new("c")).unwrap(), None);
        assert_eq!(get(volume, "a/h"), b"2");
        assert_eq!(volume.list(Path::new("")).unwrap(), vec![("a".into(), Kind::Directory)]);
    });
}

#[test]
fn no_link_is_followed() {
    on_each(|volume| {
        make_dirs(volume, Path::new("real")).unwrap();
        put(volume, "real/f", b"1");
        volume.make_symlink("real", Path::new("link")).unwrap();
        volume.make_symlink("real/f", Path::new("file")).unwrap();
        assert_eq!(volume.stat(Path::new("link")).unwrap().kind, Kind::Symlink);
        assert_eq!(volume.read_link(Path::new("link")).unwrap(), "real");
        for path in ["link/f", "file"] {
            for access in [Access::Read, Access::Write, Access::Create] {
                assert!(volume.open(Path::new(path), access).is_err(), "{path}");
            }
        }
        assert!(volume.make_dir(Path::new("link/d")).is_err());
        assert!(volume.rename(Path::new("real/f"), Path::new("link/g")).is_err());
        remove_tree(volume, Path::new("link")).unwrap();
        assert_eq!(get(volume, "real/f"), b"1");
    });
}

#[test]
fn a_lock_is_held_by_one() {
    on_each(|volume| {
        let first = volume.try_lock(Path::new("lock")).unwrap();
        assert!(first.is_some());
        assert!(volume.try_lock(Path::new("lock")).unwrap().is_none());
        drop(first);
        assert!(volume.try_lock(Path::new("lock")).unwrap().is_some());
    });
}

#[test]
fn nothing_outside_the_root_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    std::fs::write(dir.path().join("outside"), b"secret").unwrap();
    let volume = RealVolume::open(&dir.path().join("root")).unwrap();
    for path in ["../outside", "/etc/passwd", "a/../../outside"] {
        assert!(volume.open(Path::new(path), Access::Read).is_err(), "{path}");
    }
    std::os::unix::fs::symlink("..", dir.path().join("root/up")).unwrap();
    assert!(volume.open(Path::new("up/outside"), Access::Read).is_err());
    assert!(volume.open(Path::new("up/new"), Access::Create).is_err());
    assert!(!dir.path().join("new").exists());
}

#[test]
fn a_fifo_in_the_way_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    let volume = RealVolume::open(dir.path()).unwrap();
    assert!(volume.open(Path::new("fifo"), Access::Read).is_err());
}
