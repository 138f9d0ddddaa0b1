//! What storage asks of a file system, and nothing more.
//!
//! A volume is a held directory; every path given to it is relative, stays beneath it, and crosses no symbolic link: what a pea or a
//! stranger's tree says can never reach outside. [`RealVolume`](super::real::RealVolume) is the operating system; tests put a
//! volume in its place that forgets what was not synced and fails on command. Policy (what to write when) must not come in here.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What kind of thing a name stands for. Links are never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

/// What is known about a name or an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub kind: Kind,
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i128,
    /// The permission bits.
    pub mode: u32,
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Reading and writing.
    Write,
    /// Reading and writing; made (for its owner alone) if missing.
    Create,
}

/// Holds a lock until dropped.
pub(crate) type LockGuard = Box<dyn Send + Sync>;

/// An open file.
pub(crate) trait VolumeFile: Send + Sync {
    /// Like `pread`: may give fewer bytes than asked; none at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Like `pwrite`: may take fewer bytes than given.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Bytes and size are durable afterwards.
    fn sync_data(&self) -> io::Result<()>;
    fn stat(&self) -> io::Result<Stat>;
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    /// As [`Volume::set_mark`].
    fn set_mark(&self, mark: &[u8]) -> io::Result<()>;
    /// The first position from `offset` on that may hold data (not a hole); `None`: only holes follow.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// A directory with everything beneath it.
pub(crate) trait Volume: Send + Sync {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>>;
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// `stat` of several names (single components) in one directory, in their order. The outer error is the directory's, where it is
    /// told apart.
    fn stat_in(&self, dir: &Path, names: &[&OsStr]) -> io::Result<Vec<io::Result<Stat>>> {
        Ok(names.iter().map(|name| self.stat(&dir.join(name))).collect())
    }
    fn read_link(&self, path: &Path) -> io::Result<OsString>;
    /// Names in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Kind)>>;
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    fn make_symlink(&self, target: &str, path: &Path) -> io::Result<()>;
    /// A second name for a file (or for a symbolic link itself).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Replaces what is at `to` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Both names change places in one step.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// `remove_file` of several names (single components) in one directory, one after the other, up to the first that fails.
    fn remove_files_in(&self, dir: &Path, names: &[OsString]) -> io::Result<()> {
        names.iter().try_for_each(|name| self.remove_file(&dir.join(name)))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// The names in this directory are durable afterwards.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Everything on the file system is durable afterwards.
    fn sync_all(&self) -> io::Result<()>;
    /// Bytes that an ordinary user may still write.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Bytes that the file system has in all.
    fn total_bytes(&self) -> io::Result<u64>;
    /// Leaves a note on a file or directory, for [`mark`](Self::mark). Errors: `Unsupported` where a file system keeps none.
    fn set_mark(&self, path: &Path, mark: &[u8]) -> io::Result<()>;
    /// The note; `None` where there is none or none can be.
    fn mark(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Makes the file if missing and locks it; `None`: somebody else holds it. The lock ends with the process.
    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
}

/// Whether the name exists, as what.
pub(crate) fn kind_at(volume: &dyn Volume, path: &Path) -> io::Result<Option<Kind>> {
    match volume.stat(path) {
        Ok(stat) => Ok(Some(stat.kind)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the error says that there is nothing under this name.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Fills the buffer; a file that ends early is an `UnexpectedEof`.
pub(crate) fn read_exact_at(file: &dyn VolumeFile, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buf = &mut buf[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all bytes; a disk that takes none is a `WriteZero`.
pub(crate) fn write_all_at(file: &dyn VolumeFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a directory and those above it that are missing; gives the parents of those it made, whose names are to be synced.
pub(crate) fn make_dirs(volume: &dyn Volume, path: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && kind_at(volume, at)? != Some(Kind::Directory) {
        missing.push(at);
        at = at.parent().unwrap_or(Path::new(""));
    }
    let mut changed = Vec::new();
    for dir in missing.into_iter().rev() {
        match volume.make_dir(dir) {
            // Another storage thread may have been faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        changed.push(dir.parent().unwrap_or(Path::new("")).to_path_buf());
    }
    Ok(changed)
}

/// Removes a file or a whole tree; nothing there is fine. Links are removed, not followed.
pub(crate) fn remove_tree(volume: &dyn Volume, path: &Path) -> io::Result<()> {
    match kind_at(volume, path)? {
        None => return Ok(()),
        Some(Kind::Directory) => {}
        Some(_) => return volume.remove_file(path),
    }
    // Without recursion: a stranger's tree may be deeper than a stack.
    let mut dirs = vec![path.to_path_buf()];
    let mut at = 0;
    while at < dirs.len() {
        let (below, others): (Vec<_>, Vec<_>) = volume.list(&dirs[at])?.into_iter().partition(|(_, kind)| *kind == Kind::Directory);
        let others: Vec<OsString> = others.into_iter().map(|(name, _)| name).collect();
        volume.remove_files_in(&dirs[at], &others)?;
        let below: Vec<_> = below.into_iter().map(|(name, _)| dirs[at].join(name)).collect();
        dirs.extend(below);
        at += 1;
    }
    dirs.iter().rev().try_for_each(|dir| volume.remove_dir(dir))
}
