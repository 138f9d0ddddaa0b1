//! Making a pea: walking a file or folder, hashing it on all cores, describing it.
//!
//! Each byte of a piece is read once for the piece's value; files that lie across pieces are read a second time for their own hash, right after
//! the first time, when they are still in the system's memory. What changes while it is read is an error, never a pea.

use super::OnBytes;
use crate::Error;
use crate::config::CreateOptions;
use crate::hash::{self, Cv};
use crate::manifest::{Builder, EntryKind, FileEntry, Manifest, Trust, TrustContext, TrustedManifest, check_path};
use crate::storage::{
    Access, FileMap, Kind, MappedFile, Meter, Missing, RealVolume, Stat, Tree, Volume, each, hashers, is_missing, read_exact_at, resolve,
};
use crate::unit::{Geometry, PieceIdx};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest pea file read: the limit of its body, with room for signatures and owners.
const PEA_BYTES_MAX: u64 = (64 << 20) + (1 << 20);

/// What `create` made.
#[derive(Debug)]
pub struct Created {
    /// What it says.
    pub manifest: TrustedManifest,
    /// The file to write.
    pub bytes: Vec<u8>,
}

/// Reads a file or folder and describes it. Blocking; hashes on all cores. Errors: `Content` names what may not be in a pea or
/// changed meanwhile; `Storage` what could not be read; `Cancelled` when `on_bytes` said so.
pub fn create(source: &Path, options: &CreateOptions, on_bytes: OnBytes<'_>) -> Result<Created, Error> {
    let (root, name) = resolve(source, Missing::Fail)?;
    let failure = |source| Error::Storage { op: "read", path: root.join(&name), source };
    let volume: Arc<dyn Volume> = Arc::new(RealVolume::open(&root).map_err(failure)?);
    let walk = Walk { root: &root, name: &name, volume: volume.clone() };
    let (mut found, single_file) = match volume.stat(&name).map_err(failure)? {
        stat if stat.kind == Kind::File => (walk.single(stat)?, true),
        _ => (walk.folder()?, false),
    };
    let total_bytes = found.map.files.last().map_or(0, |file| file.offset + file.bytes);
    let piece_bytes = options.piece_bytes.unwrap_or_else(|| Geometry::piece_bytes_for(total_bytes));
    let geometry = Geometry::new(total_bytes, piece_bytes).map_err(|error| Error::Misuse(error.to_string()))?;
    let tree = Tree::new(volume, name.clone(), found.map.clone());
    let threads = if options.threads == 0 { hashers() } else { options.threads };
    let hashed = hash_tree(&tree, &geometry, threads, single_file, on_bytes).map_err(|error| in_tree(error, &root))?;
    walk.unchanged(&tree, &found.stats)?;

    let mut hashes = hashed.files.into_iter();
    for entry in &mut found.entries {
        if let EntryKind::File { hash, .. } = &mut entry.kind {
            *hash = hashes.next().expect("a hash was made for every file");
        }
    }
    let shown = options.name.clone().unwrap_or_else(|| name.to_string_lossy().into_owned());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let builder = Builder {
        name: shown,
        geometry,
        single_file,
        entries: found.entries,
        piece_cvs: hashed.pieces,
        owners: options.owners.clone(),
        web: options.web.clone(),
        channel: options.channel.clone(),
        release: options.release,
        created_unix_s: now,
        expires_unix_s: options.expires_unix_s,
    };
    let bytes = builder.build_for(options.access, &options.sign_with)?;
    // What was just made here is what is wanted.
    let manifest = Manifest::decode(&bytes)?.trust(&Trust::File, &TrustContext::default())?;
    Ok(Created { manifest, bytes })
}

/// Paths in errors of a tree are relative to its volume.
fn in_tree(error: Error, root: &Path) -> Error {
    match error {
        Error::Storage { op, path, source } => Error::Storage { op, path: root.join(path), source },
        Error::Content { path, what } => Error::Content { path: root.join(path), what },
        other => other,
    }
}

/// What lies at the source.
struct FoundTree {
    entries: Vec<FileEntry>,
    map: Arc<FileMap>,
    /// Of each file.
    stats: Vec<Stat>,
}

struct Walk<'a> {
    root: &'a Path,
    name: &'a Path,
    volume: Arc<dyn Volume>,
}

impl Walk<'_> {
    fn refuse(&self, path: &Path, what: impl Into<String>) -> Error {
        Error::Content { path: self.root.join(path), what: what.into() }
    }

    fn checked<'p>(&self, path: &'p Path) -> Result<&'p str, Error> {
        let text = path.to_str().ok_or_else(|| self.refuse(path, "its name is not UTF-8"))?;
        check_path(text).map_err(|why| self.refuse(path, format!("may not be in a pea: {why}")))?;
        Ok(text)
    }

    fn single(&self, stat: Stat) -> Result<FoundTree, Error> {
        let path = self.checked(self.name)?.to_string();
        let executable = stat.mode & 0o100 != 0;
        let kind = EntryKind::File { offset: 0, bytes: stat.bytes, executable, hash: [0; 32] };
        let file = MappedFile { path: PathBuf::new(), offset: 0, bytes: stat.bytes, executable };
        Ok(FoundTree { entries: vec![FileEntry { path, kind }], map: Arc::new(FileMap { files: vec![file] }), stats: vec![stat] })
    }

    fn folder(&self) -> Result<FoundTree, Error> {
        let mut found: Vec<(String, EntryKind, Option<Stat>)> = Vec::new();
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let at = self.beneath(&dir);
            let names = self.volume.list(&at).map_err(|source| self.failure("list", &at, source))?;
            if names.is_empty() && !dir.as_os_str().is_empty() {
                found.push((self.checked(&dir)?.to_string(), EntryKind::Directory, None));
            }
            for (name, kind) in names {
                let path = dir.join(name);
                let text = self.checked(&path)?.to_string();
                let at = self.beneath(&path);
                match kind {
                    Kind::Directory => dirs.push(path),
                    Kind::File => {
                        let stat = self.volume.stat(&at).map_err(|source| self.failure("examine", &at, source))?;
                        let executable = stat.mode & 0o100 != 0;
                        let kind = EntryKind::File { offset: 0, bytes: stat.bytes, executable, hash: [0; 32] };
                        found.push((text, kind, Some(stat)));
                    }
                    Kind::Symlink => {
                        let target = self.volume.read_link(&at).map_err(|source| self.failure("read", &at, source))?;
                        let target = target.into_string().map_err(|_| self.refuse(&at, "its target is not UTF-8"))?;
                        found.push((text, EntryKind::Symlink { target }, None));
                    }
                    Kind::Other => return Err(self.refuse(&at, "is neither a file, nor a folder, nor a link")),
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut entries, mut files, mut stats, mut at) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
        for (path, mut kind, stat) in found {
            if let EntryKind::File { offset, bytes, executable, .. } = &mut kind {
                *offset = at;
                files.push(MappedFile { path: PathBuf::from(&path), offset: at, bytes: *bytes, executable: *executable });
                at = at.checked_add(*bytes).ok_or_else(|| self.refuse(self.name, "is larger than any content may be"))?;
                stats.extend(stat);
            }
            entries.push(FileEntry { path, kind });
        }
        Ok(FoundTree { entries, map: Arc::new(FileMap { files }), stats })
    }

    fn beneath(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.name.to_path_buf() } else { self.name.join(path) }
    }

    fn failure(&self, op: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::Storage { op, path: self.root.join(path), source }
    }

    /// Size, time and inode of every file are still what they were before it was read.
    fn unchanged(&self, tree: &Tree, before: &[Stat]) -> Result<(), Error> {
        for (file, before) in before.iter().enumerate() {
            let path = tree.path_of(file);
            let now = self.volume.stat(&path).map_err(|source| self.failure("examine", &path, source))?;
            if (now.bytes, now.modified_ns, now.inode, now.device) != (before.bytes, before.modified_ns, before.inode, before.device) {
                return Err(self.refuse(&path, "changed while it was read"));
            }
        }
        Ok(())
    }
}

struct Hashed {
    pieces: Vec<Cv>,
    files: Vec<Cv>,
}

/// A stretch that is hashed in one go.
enum Work {
    /// A piece of the content, and the whole files in it.
    Piece(PieceIdx),
    /// A part of a file that lies across pieces, as a piece of its own tree.
    Part { file: usize, part: PieceIdx, slot: usize },
}

fn hash_tree(tree: &Tree, geometry: &Geometry, threads: usize, single_file: bool, on_bytes: OnBytes<'_>) -> Result<Hashed, Error> {
    let files = &tree.map.files;
    let piece_of = |at: u64| at / u64::from(geometry.piece_bytes());
    let across = |file: &MappedFile| !single_file && file.bytes > 0 && piece_of(file.offset) != piece_of(file.offset + file.bytes - 1);
    let mut work: Vec<(u64, Work)> = geometry.pieces().map(|piece| (geometry.bytes_of(piece).end, Work::Piece(piece))).collect();
    let mut slots = 0;
    let mut parts_of: Vec<(usize, Geometry, Range<usize>)> = Vec::new();
    for (at, file) in files.iter().enumerate().filter(|(_, file)| across(file)) {
        let own = Geometry::new(file.bytes, geometry.piece_bytes()).expect("a file has no more pieces than the content");
        let first = slots;
        for part in own.pieces() {
            work.push((file.offset + own.bytes_of(part).end, Work::Part { file: at, part, slot: slots }));
            slots += 1;
        }
        parts_of.push((at, own, first..slots));
    }
    // By position, so that the second read of a file comes soon after the first.
    work.sort_by_key(|(end, _)| *end);
    let own_of: std::collections::HashMap<usize, Geometry> = parts_of.iter().map(|(file, own, _)| (*file, *own)).collect();

    let pieces = Mutex::new(vec![[0; 32]; geometry.piece_count() as usize]);
    let parts = Mutex::new(vec![[0; 32]; slots]);
    let hashes = Mutex::new(vec![*blake3::hash(b"").as_bytes(); files.len()]);
    let meter = Meter::new(geometry.total_bytes(), on_bytes);
    each(threads, work.len(), |at, buf| {
        if buf.is_empty() {
            buf.resize(geometry.piece_bytes() as usize, 0);
        }
        match work[at].1 {
            Work::Piece(piece) => {
                let range = geometry.bytes_of(piece);
                let buf = &mut buf[..geometry.len_of(piece) as usize];
                tree.read(range.clone(), buf).map_err(|error| read_failure(tree, range.start, error))?;
                let cv = hash::piece_cv(geometry, piece, buf);
                locked(&pieces)[piece.at()] = cv;
                for segment in tree.map.segments(range.clone()).filter(|segment| !single_file && !across(&files[segment.file])) {
                    let start = (files[segment.file].offset - range.start) as usize;
                    let hash = *blake3::hash(&buf[start..start + segment.bytes]).as_bytes();
                    locked(&hashes)[segment.file] = hash;
                }
                meter.add(buf.len() as u64)
            }
            Work::Part { file, part, slot } => {
                let own = own_of[&file];
                let buf = &mut buf[..own.len_of(part) as usize];
                let open = tree.file(file, Access::Read, &|_| {});
                let read = open.and_then(|open| read_exact_at(&*open, buf, own.bytes_of(part).start));
                read.map_err(|error| read_failure(tree, files[file].offset, error))?;
                locked(&parts)[slot] = hash::piece_cv(&own, part, buf);
                Ok(())
            }
        }
    })?;
    let pieces = pieces.into_inner().unwrap_or_else(PoisonError::into_inner);
    let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut hashes = hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (file, own, slots) in parts_of {
        hashes[file] = hash::root(&own, &parts[slots]);
    }
    if single_file {
        hashes = vec![hash::root(geometry, &pieces)];
    }
    Ok(Hashed { pieces, files: hashes })
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_failure(tree: &Tree, at: u64, error: std::io::Error) -> Error {
    let file = tree.map.segments(at..at + 1).next().map_or(0, |segment| segment.file);
    let path = tree.path_of(file);
    if error.kind() == std::io::ErrorKind::UnexpectedEof || is_missing(&error) {
        return Error::Content { path, what: "changed while it was read".into() };
    }
    Error::Storage { op: "read", path, source: error }
}

/// Writes a pea so that a crash leaves the old file or the new one: temporary name, fsync, rename, fsync of the folder.
pub fn write_pea(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let (root, name) = resolve(path, Missing::Make)?;
    let failure = |op: &'static str| {
        let path = root.join(&name);
        move |source| Error::Storage { op, path, source }
    };
    let volume = RealVolume::open(&root).map_err(failure("open the folder of"))?;
    let passing = PathBuf::from(format!(".{}.{:x}.new", name.to_string_lossy(), std::process::id()));
    let written = volume.open(&passing, Access::Create).and_then(|file| {
        file.set_len(0)?;
        crate::storage::write_all_at(&*file, bytes, 0)?;
        file.set_mode(0o644 & !crate::storage::umask())?;
        file.sync_data()
    });
    let renamed = written.and_then(|()| volume.rename(&passing, &name)).and_then(|()| volume.sync_dir(Path::new("")));
    renamed.map_err(|source| {
        // The name may be gone already; what matters is the error before.
        let _ = volume.remove_file(&passing);
        failure("write")(source)
    })
}

/// Reads a pea file, at most the size that a pea may have; a longer one is `Error::Content`.
pub fn read_pea(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let failure = |source| Error::Storage { op: "read", path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failure)?.take(PEA_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failure)?;
    if bytes.len() as u64 > PEA_BYTES_MAX {
        return Err(Error::Content { path: path.to_path_buf(), what: "is larger than a pea may be".into() });
    }
    Ok(bytes)
}
