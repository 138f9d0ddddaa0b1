//! What every volume must do: the real one and the fake pass the same tests, so that what the crash tests prove about the fake says
//! something about disks.

use super::faulty::FaultyVolume;
use super::real::RealVolume;
use super::volume::{Access, Kind, Volume, is_missing, kind_at, make_dirs, read_exact_at, remove_tree, write_all_at};
use std::path::Path;

fn on_each(test: impl Fn(&dyn Volume)) {
    test(&FaultyVolume::new());
    for stepwise in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        test(&real(dir.path(), stepwise));
    }
}

/// `stepwise`: as on a kernel without `openat2`.
fn real(root: &Path, stepwise: bool) -> RealVolume {
    let volume = RealVolume::open(root).unwrap();
    if stepwise {
        volume.without_openat2();
    }
    volume
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

#[test]
fn marks_stay_with_what_carries_them() {
    on_each(|volume| {
        make_dirs(volume, Path::new("d")).unwrap();
        put(volume, "d/f", b"1");
        assert_eq!(volume.mark(Path::new("d/f")).unwrap(), None);
        volume.set_mark(Path::new("d/f"), b"one").unwrap();
        volume.set_mark(Path::new("d"), b"two").unwrap();
        put(volume, "d/h", b"3");
        volume.open(Path::new("d/h"), Access::Write).unwrap().set_mark(b"three").unwrap();
        assert_eq!(volume.mark(Path::new("d/h")).unwrap().as_deref(), Some(&b"three"[..]));
        volume.rename(Path::new("d"), Path::new("e")).unwrap();
        assert_eq!(volume.mark(Path::new("e/f")).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(volume.mark(Path::new("e")).unwrap().as_deref(), Some(&b"two"[..]));
        put(volume, "g", b"2");
        volume.rename(Path::new("g"), Path::new("e/f")).unwrap();
        assert_eq!(volume.mark(Path::new("e/f")).unwrap(), None, "another file under the same name");
    });
}

#[test]
fn several_names_of_a_directory_are_as_one_after_the_other() {
    on_each(|volume| {
        make_dirs(volume, Path::new("d/e")).unwrap();
        put(volume, "d/f", b"1");
        put(volume, "d/g", b"22");
        put(volume, "top", b"333");
        volume.make_symlink("f", Path::new("d/link")).unwrap();
        volume.make_symlink("d", Path::new("door")).unwrap();
        let look = |dir: &str, names: &[&str]| {
            let names: Vec<&std::ffi::OsStr> = names.iter().map(std::ffi::OsStr::new).collect();
            let one_by_one: Vec<_> = names.iter().map(|name| volume.stat(&Path::new(dir).join(name))).collect();
            let found = volume.stat_in(Path::new(dir), &names);
            if let Ok(found) = &found {
                assert!(found.iter().zip(&one_by_one).all(|(a, b)| a.as_ref().ok() == b.as_ref().ok()), "{found:?} {one_by_one:?}");
            }
            // Where the directory's error is not told apart, it is that of each name.
            found.and_then(|found| found.into_iter().collect::<std::io::Result<Vec<_>>>())
        };
        assert_eq!(look("d", &["g", "f"]).unwrap().iter().map(|stat| stat.bytes).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(look("", &["top"]).unwrap()[0].bytes, 3);
        assert_eq!(look("d", &["link", "e"]).unwrap().iter().map(|stat| stat.kind).collect::<Vec<_>>(), [Kind::Symlink, Kind::Directory]);
        assert!(is_missing(&look("d", &["f", "no"]).unwrap_err()) && is_missing(&look("no", &["f"]).unwrap_err()));
        assert!(is_missing(&look("d/f", &["x"]).unwrap_err()));
        assert!(look("door", &["f"]).is_err(), "a link is not followed");

        let remove = |dir: &str, names: &[&str]| {
            let names: Vec<std::ffi::OsString> = names.iter().map(std::ffi::OsString::from).collect();
            volume.remove_files_in(Path::new(dir), &names)
        };
        assert!(remove("door", &["f"]).is_err(), "a link is not followed");
        assert!(is_missing(&remove("d", &["f", "no", "g"]).unwrap_err()));
        assert_eq!(kind_at(volume, Path::new("d/f")).unwrap(), None);
        assert_eq!(get(volume, "d/g"), b"22", "after the first that fails nothing is removed");
        remove("d", &["g", "link"]).unwrap();
        remove("", &["top"]).unwrap();
        assert_eq!(volume.list(Path::new("d")).unwrap(), vec![("e".into(), Kind::Directory)]);
    });
}

/// A root with a canary beside it, and what lies outside the root as text.
struct Yard {
    dir: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/d")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/canary"), b"sings").unwrap();
        Self { dir }
    }

    fn outside_is_untouched(&self) -> bool {
        let names = |path: &Path| {
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
        };
        let outside = self.dir.path().join("outside");
        names(self.dir.path()) == ["root".into(), "outside".into()].into()
            && names(&outside) == ["canary".into()].into()
            && std::fs::read(outside.join("canary")).unwrap() == b"sings"
    }
}

/// Everything that a volume can do to a name.
fn do_all(volume: &dyn Volume, path: &Path) {
    for access in [Access::Create, Access::Write] {
        if let Ok(file) = volume.open(path, access) {
            let _ = file.write_at(b"x", 0);
            let _ = file.set_mode(0o777);
            let _ = file.set_mark(b"mark");
        }
    }
    let _ = volume.set_mode(path, 0o777);
    let _ = volume.set_mark(path, b"mark");
    let _ = volume.make_dir(path);
    let _ = volume.make_symlink("nowhere", path);
    let _ = volume.rename(path, Path::new("taken"));
    let _ = volume.rename(Path::new("taken"), path);
    let _ = volume.link(path, Path::new("second"));
    let _ = volume.link(Path::new("second"), path);
    let _ = volume.exchange(path, Path::new("second"));
    let _ = make_dirs(volume, &path.join("more/and/more"));
    let _ = volume.try_lock(path);
    let _ = volume.remove_files_in(path, &["canary".into()]);
    let _ = volume.remove_files_in(Path::new("d"), &[path.into()]);
    let _ = volume.remove_file(path);
    let _ = volume.remove_dir(path);
    let _ = remove_tree(volume, path);
}

/// THREATS F1. A pea with such paths is refused before a volume hears of them; this is the wall behind that wall.
#[test]
fn five_thousand_hostile_paths_reach_nothing_outside() {
    let yard = Yard::new();
    let root = yard.dir.path().join("root");
    let ways = ["..", "/", ".", "", "link", "../outside", "//", "link/..", "d/../..", "\u{202e}", "up", "d"];
    let above = yard.dir.path().to_string_lossy().into_owned();
    for stepwise in [false, true] {
        let volume = real(&root, stepwise);
        for number in 0..5000usize {
            // Somebody puts links in the way, and a hostile path made one of its own go away.
            let _ = std::os::unix::fs::symlink("../outside", root.join("link"));
            let _ = std::os::unix::fs::symlink("..", root.join("up"));
            let mut parts = vec![];
            let mut rest = number;
            for _ in 0..1 + number % 4 {
                parts.push(ways[rest % ways.len()]);
                rest /= ways.len();
            }
            let path = match number % 5 {
                0 => format!("{above}/outside/canary"),
                1 => format!("{}/canary", parts.join("/")),
                2 => format!("{above}/{}", parts.join("/")),
                _ => parts.join("/"),
            };
            // What is a plain path into the root may be used; the root itself is not to be removed.
            if path.is_empty() || Path::new(&path).components().all(|part| part == std::path::Component::CurDir) {
                continue;
            }
            do_all(&volume, Path::new(&path));
            assert!(yard.outside_is_untouched(), "path {number}, stepwise {stepwise}: {path:?}");
            std::fs::create_dir_all(root.join("d")).unwrap();
        }
    }
}

/// THREATS F1: a process of the same user that swaps a directory for a link, over and over, while we work in it.
#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    for stepwise in [Some(false), Some(true), None] {
        let yard = Yard::new();
        let root = yard.dir.path().join("root");
        std::os::unix::fs::symlink("../outside", root.join("trap")).unwrap();
        let (stop, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                while !stop.load(Ordering::Relaxed) {
                    if renameat_with(CWD, root.join("d"), CWD, root.join("trap"), RenameFlags::EXCHANGE).is_ok() {
                        swaps.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let volume = real(&root, stepwise == Some(true));
            let mut round = 0;
            // As many as there are swaps to meet, however busy the machine is.
            while swaps.load(Ordering::Relaxed) < 4000 || round < 2000 {
                let path = format!("d/f{}", round % 7);
                match stepwise {
                    Some(_) => do_all(&volume, Path::new(&path)),
                    // The control: the same by name alone.
                    None => drop(std::fs::write(root.join(&path), b"x")),
                }
                round += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(yard.outside_is_untouched(), stepwise.is_some(), "stepwise {stepwise:?}");
    }
}
