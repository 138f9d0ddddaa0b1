//! The operating system as a [`Volume`].
//!
//! The directory is opened once and held. Every path is resolved beneath that handle by `openat2` with `RESOLVE_BENEATH`,
//! `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`; where a kernel or a sandbox does not offer it, component by component with
//! `O_NOFOLLOW`. So a directory that somebody swaps for a link while an installation runs leads to an error, not elsewhere.

use super::volume::{Access, Kind, LockGuard, Stat, Volume, VolumeFile};
use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Extended attribute that carries a mark.
const MARK: &str = "user.peas";
/// Longest mark read and written: what ext4 keeps in one block beside other attributes.
pub(crate) const MARK_BYTES_MAX: usize = 2048;

pub(crate) struct RealVolume {
    root: OwnedFd,
    /// Cleared when the kernel says that it has no `openat2`.
    by_openat2: AtomicBool,
}

impl RealVolume {
    /// Holds this directory. Links on the way to it are the caller's and are followed.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        let root = sys::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, by_openat2: AtomicBool::new(true) })
    }

    /// As on a kernel that has no `openat2`.
    #[cfg(test)]
    pub fn without_openat2(&self) {
        self.by_openat2.store(false, Ordering::Relaxed);
    }

    fn open_beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        #[cfg(target_os = "linux")]
        if self.by_openat2.load(Ordering::Relaxed) {
            let resolve = sys::ResolveFlags::BENEATH | sys::ResolveFlags::NO_SYMLINKS | sys::ResolveFlags::NO_MAGICLINKS;
            match sys::openat2(&self.root, path, flags, mode, resolve) {
                Err(Errno::NOSYS | Errno::PERM) => self.by_openat2.store(false, Ordering::Relaxed),
                // The kernel asks to try again when something was renamed meanwhile.
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        self.open_stepwise(path, flags, mode)
    }

    fn open_stepwise(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let mut dir: Option<OwnedFd> = None;
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let name = match component {
                Component::Normal(name) => name,
                Component::CurDir => OsStr::new("."),
                _ => return Err(Errno::XDEV.into()),
            };
            let at = dir.as_ref().map_or(self.root.as_fd(), |dir| dir.as_fd());
            if components.peek().is_none() {
                return Ok(sys::openat(at, name, flags, mode)?);
            }
            let step = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            let next = sys::openat(at, name, step, Mode::empty())?;
            dir = Some(next);
        }
        Err(Errno::NOENT.into())
    }

    fn dir_of<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.open_beneath(parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?, name))
    }
}

impl Volume for RealVolume {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>> {
        // Without O_NONBLOCK, opening a FIFO that lies in the way would wait for ever.
        let flags = OFlags::NONBLOCK
            | match access {
                Access::Read => OFlags::RDONLY,
                Access::Write => OFlags::RDWR,
                Access::Create => OFlags::RDWR | OFlags::CREATE,
            };
        let mode = if access == Access::Create { Mode::from_raw_mode(0o600) } else { Mode::empty() };
        let file = File::from(self.open_beneath(path, flags, mode)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        if path.as_os_str().is_empty() {
            return Ok(to_stat(&sys::fstat(&self.root)?));
        }
        let (dir, name) = self.dir_of(path)?;
        Ok(to_stat(&sys::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn stat_in(&self, dir: &Path, names: &[&OsStr]) -> io::Result<Vec<io::Result<Stat>>> {
        let dir = self.open_beneath(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let found = names.iter().map(|&name| Ok(to_stat(&sys::statat(&dir, single(name)?, AtFlags::SYMLINK_NOFOLLOW)?)));
        Ok(found.collect())
    }

    fn read_link(&self, path: &Path) -> io::Result<OsString> {
        let (dir, name) = self.dir_of(path)?;
        Ok(OsString::from_vec(sys::readlinkat(&dir, name, Vec::new())?.into_bytes()))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let dir = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in sys::Dir::read_from(&dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => to_stat(&sys::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?).kind,
                known => to_kind(known),
            };
            names.push((name.to_os_string(), kind));
        }
        Ok(names)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.dir_of(path)?;
        Ok(sys::mkdirat(&dir, name, Mode::from_raw_mode(0o700))?)
    }

    fn make_symlink(&self, target: &str, path: &Path) -> io::Result<()> {
        let (dir, name) = self.dir_of(path)?;
        Ok(sys::symlinkat(target, &dir, name)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((old_dir, old), (new_dir, new)) = (self.dir_of(from)?, self.dir_of(to)?);
        Ok(sys::linkat(&old_dir, old, &new_dir, new, AtFlags::empty())?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((old_dir, old), (new_dir, new)) = (self.dir_of(from)?, self.dir_of(to)?);
        Ok(sys::renameat(&old_dir, old, &new_dir, new)?)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let ((old_dir, old), (new_dir, new)) = (self.dir_of(a)?, self.dir_of(b)?);
            Ok(sys::renameat_with(&old_dir, old, &new_dir, new, sys::RenameFlags::EXCHANGE)?)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (a, b);
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.dir_of(path)?;
        Ok(sys::unlinkat(&dir, name, AtFlags::empty())?)
    }

    fn remove_files_in(&self, dir: &Path, names: &[OsString]) -> io::Result<()> {
        let dir = self.open_beneath(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        names.iter().try_for_each(|name| Ok(sys::unlinkat(&dir, single(name)?, AtFlags::empty())?))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.dir_of(path)?;
        Ok(sys::unlinkat(&dir, name, AtFlags::REMOVEDIR)?)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        Ok(sys::fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(sys::fsync(&dir)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return Ok(sys::syncfs(&self.root)?);
        #[cfg(not(target_os = "linux"))]
        Err(io::ErrorKind::Unsupported.into())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = sys::fstatvfs(&self.root)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let found = sys::fstatvfs(&self.root)?;
        Ok(found.f_blocks.saturating_mul(found.f_frsize))
    }

    fn set_mark(&self, path: &Path, mark: &[u8]) -> io::Result<()> {
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        set_mark(&file, mark)
    }

    fn mark(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        let mut buf = vec![0; MARK_BYTES_MAX];
        match sys::fgetxattr(&file, MARK, &mut buf[..]) {
            Ok(bytes) => {
                buf.truncate(bytes);
                Ok(Some(buf))
            }
            // Not ours, or none: on some systems "no such attribute" has its own number.
            Err(_) => Ok(None),
        }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE;
            let file = self.open_beneath(path, flags, Mode::from_raw_mode(0o600))?;
            match sys::flock(&file, sys::FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                other => other?,
            }
            // The holder before us may have removed the file: then our lock is on a file without a name, and we try again.
            match self.stat(path) {
                Ok(named) if named.inode == to_stat(&sys::fstat(&file)?).inode => return Ok(Some(Box::new(file))),
                Ok(_) => {}
                Err(error) if super::volume::is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

struct RealFile(File);

impl VolumeFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(to_stat(&sys::fstat(&self.0)?))
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(sys::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    fn set_mark(&self, mark: &[u8]) -> io::Result<()> {
        set_mark(&self.0, mark)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        #[cfg(target_os = "linux")]
        match sys::seek(&self.0, sys::SeekFrom::Data(offset)) {
            Ok(at) => return Ok(Some(at)),
            Err(Errno::NXIO) => return Ok(None),
            // A file system without holes: all of it may be data.
            Err(_) => {}
        }
        Ok(Some(offset))
    }
}

/// A name that is one component, so that nothing but the directory at hand is reached.
fn single(name: &OsStr) -> io::Result<&OsStr> {
    let mut components = Path::new(name).components();
    let alone = matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name);
    if alone { Ok(name) } else { Err(Errno::INVAL.into()) }
}

fn set_mark(file: impl AsFd, mark: &[u8]) -> io::Result<()> {
    match sys::fsetxattr(file, MARK, mark, sys::XattrFlags::empty()) {
        // A directory with more marks than fit is as one without.
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::RANGE | Errno::TOOBIG) => Err(io::ErrorKind::Unsupported.into()),
        other => Ok(other?),
    }
}

fn to_kind(kind: FileType) -> Kind {
    match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    }
}

fn to_stat(stat: &sys::Stat) -> Stat {
    Stat {
        kind: to_kind(FileType::from_raw_mode(stat.st_mode)),
        device: stat.st_dev,
        inode: stat.st_ino,
        bytes: stat.st_size as u64,
        modified_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        mode: stat.st_mode & 0o7777,
    }
}

/// Permission bits that this process does not give away. Read from `/proc`, because asking the system would change them for a moment
/// in all threads; 022 where there is no `/proc`.
pub(crate) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}
