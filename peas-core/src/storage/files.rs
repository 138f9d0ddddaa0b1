//! Where the bytes of a content lie in its files.
//!
//! [`FileMap`] is arithmetic; [`Tree`] is a map at a place on a volume, with a bounded number of open files. Nothing here knows
//! whether bytes are right.

use super::volume::{Access, Stat, Volume, VolumeFile, make_dirs, read_exact_at, write_all_at};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Open files kept per tree; a storage has at most two trees. 128 in all leaves a host with the usual 1,024 descriptors its share; where
/// there are fewer, a sixteenth of them is kept.
const OPEN_FILES_MAX: usize = 64;
const OPEN_FILES_MIN: usize = 4;

/// Files to keep open in a process that may have so many descriptors.
fn open_files_max(descriptors_max: u64) -> usize {
    usize::try_from(descriptors_max / 16).unwrap_or(usize::MAX).clamp(OPEN_FILES_MIN, OPEN_FILES_MAX)
}

/// Descriptors that this process may have open.
fn descriptors_max() -> u64 {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    #[cfg(not(unix))]
    u64::MAX
}

/// Whether a file was not opened because there are no descriptors left: it says nothing about the file.
fn lacks_descriptors(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// A file of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MappedFile {
    /// Relative to the tree's base; empty for a content that is one file.
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: u64,
    pub executable: bool,
}

/// A stretch of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub file: usize,
    pub offset: u64,
    pub bytes: usize,
}

/// The files of a content in the order of their bytes.
#[derive(Debug)]
pub(crate) struct FileMap {
    pub files: Vec<MappedFile>,
}

impl FileMap {
    /// What of which files these bytes of the content are, in order. Empty files never appear.
    pub fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let first = self.files.partition_point(|file| file.offset + file.bytes <= range.start);
        self.files[first..]
            .iter()
            .enumerate()
            .take_while({
                let end = range.end;
                move |(_, file)| file.offset < end
            })
            .filter_map(move |(at, file)| {
                let start = range.start.max(file.offset);
                let end = range.end.min(file.offset + file.bytes);
                (start < end).then(|| Segment { file: first + at, offset: start - file.offset, bytes: (end - start) as usize })
            })
    }
}

/// The files of a content at a place.
pub(crate) struct Tree {
    pub volume: Arc<dyn Volume>,
    /// The file or the folder.
    pub base: PathBuf,
    pub map: Arc<FileMap>,
    /// Files that lie under another name than the content's (when looking for old bytes to use again).
    pub elsewhere: HashMap<usize, PathBuf>,
    open: Mutex<Handles>,
    open_files_max: usize,
}

#[derive(Default)]
struct Handles {
    files: HashMap<usize, Handle>,
    clock: u64,
}

struct Handle {
    file: Arc<dyn VolumeFile>,
    writable: bool,
    used: u64,
}

impl Tree {
    pub fn new(volume: Arc<dyn Volume>, base: PathBuf, map: Arc<FileMap>) -> Self {
        Self { volume, base, map, elsewhere: HashMap::new(), open: Mutex::default(), open_files_max: open_files_max(descriptors_max()) }
    }

    /// The file's path on the volume.
    pub fn path_of(&self, file: usize) -> PathBuf {
        self.elsewhere.get(&file).cloned().unwrap_or_else(|| self.at(&self.map.files[file].path))
    }

    /// A path of the content on the volume.
    pub fn at(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.base.clone() } else { self.base.join(path) }
    }

    /// The open file; opens it if need be. Directories above a file to be made are made, and told to `on_made` (parents whose
    /// names changed), as is the file's own directory when the file was opened to be created.
    pub fn file(&self, file: usize, access: Access, on_made: &dyn Fn(Vec<PathBuf>)) -> io::Result<Arc<dyn VolumeFile>> {
        if let Some(handle) = self.known(file, access) {
            return Ok(handle);
        }
        let path = self.path_of(file);
        let parent = path.parent().unwrap_or(Path::new(""));
        let opened = match self.volume.open(&path, access) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && access == Access::Create => {
                on_made(make_dirs(&*self.volume, parent)?);
                self.volume.open(&path, access)
            }
            // Files kept open for later are the first to go.
            Err(error) if lacks_descriptors(&error) => {
                self.close_files();
                self.volume.open(&path, access)
            }
            other => other,
        }?;
        if access == Access::Create {
            on_made(vec![parent.to_path_buf()]);
        }
        self.remember(file, opened.clone(), access != Access::Read);
        Ok(opened)
    }

    fn known(&self, file: usize, access: Access) -> Option<Arc<dyn VolumeFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clock += 1;
        let now = open.clock;
        let handle = open.files.get_mut(&file).filter(|handle| handle.writable || access == Access::Read)?;
        handle.used = now;
        Some(handle.file.clone())
    }

    fn remember(&self, file: usize, opened: Arc<dyn VolumeFile>, writable: bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.files.len() >= self.open_files_max {
            let oldest = open.files.iter().min_by_key(|(_, handle)| handle.used).map(|(&file, _)| file);
            oldest.map(|file| open.files.remove(&file));
        }
        let used = open.clock;
        open.files.insert(file, Handle { file: opened, writable, used });
    }

    /// Closes all files that nobody is using.
    pub fn close_files(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).files.clear();
    }

    /// Reads this range of the content. Errors: a missing file is `NotFound`, a short one `UnexpectedEof`.
    pub fn read(&self, range: Range<u64>, buf: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        for segment in self.map.segments(range) {
            let file = self.file(segment.file, Access::Read, &|_| {})?;
            read_exact_at(&*file, &mut buf[at..at + segment.bytes], segment.offset)?;
            at += segment.bytes;
        }
        Ok(())
    }

    /// Writes this range of the content.
    pub fn write(&self, range: Range<u64>, bytes: &[u8], access: Access, on_made: &dyn Fn(Vec<PathBuf>)) -> io::Result<()> {
        let mut at = 0;
        for segment in self.map.segments(range) {
            let file = self.file(segment.file, access, on_made)?;
            write_all_at(&*file, &bytes[at..at + segment.bytes], segment.offset)?;
            at += segment.bytes;
        }
        Ok(())
    }

    /// What is under each file's name; `None` where nothing is, or where a link or something else stands in the way.
    pub fn stats(&self) -> io::Result<Vec<Option<Stat>>> {
        let nothing = |error: &io::Error| super::volume::is_missing(error) || is_loop(error);
        let paths: Vec<PathBuf> = (0..self.map.files.len()).map(|file| self.path_of(file)).collect();
        let mut by_dir: BTreeMap<&Path, Vec<(usize, &OsStr)>> = BTreeMap::new();
        for (file, path) in paths.iter().enumerate() {
            if let (Some(dir), Some(name)) = (path.parent(), path.file_name()) {
                by_dir.entry(dir).or_default().push((file, name));
            }
        }
        let mut found = vec![None; paths.len()];
        for (dir, files) in by_dir {
            let names: Vec<&OsStr> = files.iter().map(|&(_, name)| name).collect();
            let stats = match self.volume.stat_in(dir, &names) {
                Err(error) if nothing(&error) => continue,
                other => other?,
            };
            for ((file, _), stat) in files.into_iter().zip(stats) {
                match stat {
                    Ok(stat) => found[file] = Some(stat).filter(|stat| stat.kind == super::volume::Kind::File),
                    Err(error) if nothing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    }
}

/// Whether the error says that a symbolic link stands where a directory is expected.
pub(crate) fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_a_range_once_and_skip_empty_files() {
        let sizes = [0u64, 3, 0, 0, 5, 1, 0];
        let mut offset = 0;
        let mut files = Vec::new();
        for (at, bytes) in sizes.into_iter().enumerate() {
            files.push(MappedFile { path: PathBuf::from(at.to_string()), offset, bytes, executable: false });
            offset += bytes;
        }
        let map = FileMap { files };
        for start in 0..9u64 {
            for end in start..=9 {
                let mut at = start;
                for segment in map.segments(start..end) {
                    let file = &map.files[segment.file];
                    assert_eq!(file.offset + segment.offset, at);
                    assert!(segment.bytes > 0 && segment.offset + segment.bytes as u64 <= file.bytes);
                    at += segment.bytes as u64;
                }
                assert_eq!(at, end);
            }
        }
    }
}
