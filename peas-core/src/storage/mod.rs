//! Disk with evidence.
//!
//! A [`Storage`] is the disk side of one content: it verifies pieces and writes them beside the destination, remembers across
//! crashes which are durable, reads and verifies what others ask for, and at the end makes the whole content appear under its final name in
//! one step. Nothing leaves that was not verified as it was read; nothing is called committed that was not verified and written;
//! nothing outside the destination and its staging directory is touched.
//!
//! Beside the destination lies, until the content is whole, `.peas-<id>-<name>`: `data` (the files, under their relative
//! paths), `journal`, `lock`, and `state.json` for people; and `.peas-<name>.lock`, so that one destination has one writer,
//! whatever it writes. Tasks: the threads of `workers.rs`, which end with the last handle or at
//! [`Storage::close`]. What to fetch and when to give up is decided elsewhere.

mod carry;
mod files;
pub(crate) mod journal;
mod leftover;
mod lock;
mod mark;
mod open;
#[cfg(any(test, feature = "planted"))]
pub(crate) mod planted;
mod pool;
mod publish;
mod real;
mod reuse;
mod scan;
mod store;
mod sync;
mod volume;
mod workers;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod faulty_nodes;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod trouble_tests;
#[cfg(test)]
mod versions_tests;
#[cfg(test)]
mod volume_tests;

pub(crate) use files::{FileMap, MappedFile, Tree};
pub use pool::PieceBuf;
pub(crate) use real::{RealVolume, umask};
pub(crate) use scan::{Meter, each, each_piece, hashers};
pub(crate) use store::map_of;
pub(crate) use volume::{Access, Kind, Stat, Volume, is_missing, read_exact_at, write_all_at};

use crate::Error;
use crate::hash::SpanProof;
use crate::manifest::TrustedManifest;
use crate::swarm::Committed;
use crate::unit::{BlockSpan, PieceIdx, PieceSet};
use open::{Found, Opening};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use workers::Shared;

/// The disk side of one content. Cheap to clone; its threads end when the last handle is dropped or at `close`.
#[derive(Clone)]
pub struct Storage {
    owner: Arc<Owner>,
}

/// Ends the threads when the last handle goes.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

/// What `open` found.
pub struct Opened {
    /// The open storage.
    pub storage: Storage,
    /// Pieces that need not be fetched.
    pub held: PieceSet,
    /// Bytes of them.
    pub bytes_reused: u64,
    /// The content is already installed under its final name, whole and verified: nothing to publish.
    pub installed: bool,
    /// Bytes that the disk lacks for what is missing; `None`: there is room, as far as anybody can say. Whoever fetches waits for it.
    pub room_short: Option<u64>,
}

/// What a host may choose.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Pooled piece buffers kept for reuse, in bytes.
    pub pooled_bytes_max: u64,
}

/// How a commit ended.
#[derive(Debug)]
pub enum CommitEnd {
    /// Right, and written (durable with the next journal record).
    Committed(Committed),
    /// Not the content's bytes; nothing was written.
    Corrupt,
    /// The disk did not take it.
    Unwritten(Error),
}

/// How a read ended.
pub enum ReadEnd {
    /// The bytes of the span, verified.
    Bytes {
        /// The whole piece.
        buf: Arc<PieceBuf>,
        /// Where the span lies in it.
        range: std::ops::Range<usize>,
        /// The proof of the span, if it was asked for.
        proof: Option<SpanProof>,
    },
    /// What lies on disk is not the content's (rot, or the file was changed): the piece is to be withdrawn.
    Damaged,
    /// The disk did not give it.
    Failed(Error),
}

/// Why a publish did not happen.
#[derive(Debug)]
pub enum PublishError {
    /// These pieces are missing or turned out to be wrong on disk: fetch them again, then publish again.
    Damaged(Vec<PieceIdx>),
    /// The disk.
    Failed(Error),
}

impl Storage {
    /// For installing at `dest` (a file's path for a single-file content, a folder's for others); missing parents are made, and a
    /// link at `dest` itself is followed. Blocking: checks what is there; `on_bytes` as in `session::create` (false stops with
    /// `Error::Cancelled`). Errors: `Busy` when somebody else installs there, `Content` when a thing of another kind is in the
    /// way, `Storage` for the machine; with `StorageFull` and nothing written when the content is many times what the file system can hold.
    pub fn open_install(
        pea: Arc<TrustedManifest>,
        dest: &Path,
        options: &StorageOptions,
        on_bytes: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Opened, Error> {
        let (root, name) = resolve(dest, Missing::Make)?;
        start(Opening::real(pea, root, name, options, on_bytes)?.install()?, options)
    }

    /// For serving what lies at `source`. Sizes must match (`Error::Content`); each piece is hashed when read (or all now, with
    /// `check_first`: then `held` lacks what is wrong).
    pub fn open_seed(
        pea: Arc<TrustedManifest>,
        source: &Path,
        check_first: bool,
        options: &StorageOptions,
        on_bytes: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Opened, Error> {
        let (root, name) = resolve(source, Missing::Fail)?;
        start(Opening::real(pea, root, name, options, on_bytes)?.seed(check_first)?, options)
    }

    /// A buffer of exactly the piece's size. Contents are undefined (old data), never uninitialised.
    pub fn buffer(&self, piece: PieceIdx) -> PieceBuf {
        self.store().buffer(piece)
    }

    /// Verifies, writes, reports - on a storage thread. Never blocks (the caller bounds what is under way by its byte budget).
    /// `done` runs on the storage thread: it must only hand the value on. After `close` it runs here, with `Error::Closed`.
    pub fn commit(&self, piece: PieceIdx, buf: PieceBuf, done: Box<dyn FnOnce(CommitEnd) + Send>) {
        self.submit(done, move |store| store.commit(piece, buf), CommitEnd::Unwritten(Error::Closed));
    }

    /// Reads a span of a held piece, verified before it is given out. Never blocks. A small cache keeps the last pieces read and written;
    /// what is in it is given at once, on the calling thread.
    pub fn read(&self, span: BlockSpan, with_proof: bool, done: Box<dyn FnOnce(ReadEnd) + Send>) {
        if let Some(end) = self.store().at_hand(span, with_proof) {
            return done(end);
        }
        self.submit(done, move |store| store.read(span, with_proof), ReadEnd::Failed(Error::Closed));
    }

    /// All pieces are committed: makes everything durable, checks what needs checking, switches to the final names. On a
    /// storage thread. After success reads go to the final files.
    pub fn publish(&self, done: Box<dyn FnOnce(Result<(), PublishError>) + Send>) {
        self.submit(done, Store::publish, Err(PublishError::Failed(Error::Closed)));
    }

    /// Makes everything committed so far durable and journaled. Commits still queued before this call on other threads may not
    /// be covered: wait for their `done` first.
    pub fn flush(&self, done: Box<dyn FnOnce(Result<(), Error>) + Send>) {
        self.submit(done, Store::sync, Err(Error::Closed));
    }

    /// Stops the threads after the queued work, waiting at most this long. True: all ended. Flushes the journal.
    pub fn close(&self, timeout: Duration) -> bool {
        self.owner.0.close(timeout)
    }

    /// Keeps something until the threads have ended and the locks are free, or what is left of them goes.
    pub(crate) fn keep_until_closed(&self, kept: Box<dyn Send + Sync>) {
        self.owner.0.keep_until_closed(kept);
    }

    /// Where the content will be, or is.
    pub fn dest(&self) -> PathBuf {
        self.store().root.join(&self.store().target.base)
    }

    /// Asks the disk, after it refused: whether there is room for another piece, and whether a write of some size reaches it. On a
    /// storage thread.
    pub fn probe(&self, done: Box<dyn FnOnce(Result<(), Error>) + Send>) {
        self.submit(done, Store::probe, Err(Error::Closed));
    }

    fn store(&self) -> &Store {
        &self.owner.0.store
    }

    fn submit<T: Send + 'static>(&self, done: Box<dyn FnOnce(T) + Send>, work: impl FnOnce(&Store) -> T + Send + 'static, closed: T) {
        // Whoever runs it takes the callback out: the queue, or this call when the queue is closed.
        let done = Arc::new(std::sync::Mutex::new(Some(done)));
        let take = |done: &std::sync::Mutex<Option<_>>| done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let queued = done.clone();
        let job = Box::new(move |store: &Store| {
            let end = work(store);
            if let Some(done) = take(&queued) {
                done(end);
            }
        });
        if self.owner.0.submit(job).is_err()
            && let Some(done) = take(&done)
        {
            done(closed);
        }
    }
}

impl<'a> Opening<'a> {
    pub(crate) fn real(
        pea: Arc<TrustedManifest>,
        root: PathBuf,
        name: PathBuf,
        options: &StorageOptions,
        on_bytes: &'a (dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Self, Error> {
        let volume = RealVolume::open(&root).map_err(|source| Error::Storage { op: "open", path: root.clone(), source })?;
        let pooled_bytes_max = options.pooled_bytes_max;
        Ok(Self { pea, volume: Arc::new(volume), root, name, pooled_bytes_max, hashers: hashers(), on_bytes })
    }
}

fn start(found: Found, options: &StorageOptions) -> Result<Opened, Error> {
    let held = found.store.state().held.clone();
    let shared = Shared::start(found.store, options.threads)?;
    let storage = Storage { owner: Arc::new(Owner(shared)) };
    Ok(Opened { storage, held, bytes_reused: found.bytes_reused, installed: found.installed, room_short: found.room_short })
}

/// Makes a directory and those above it, each durable under its name: a content that is there after a crash in a folder that is not is
/// lost all the same.
fn make_parents(dir: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    std::fs::create_dir_all(dir)?;
    for made in missing.into_iter().rev() {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// What to do about a path that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make the directories above it.
    Make,
    Fail,
}

/// A path as a directory that exists and a name in it. Links in the path are the caller's wish and are followed.
pub(crate) fn resolve(path: &Path, missing: Missing) -> Result<(PathBuf, PathBuf), Error> {
    let failure = |op, source| Error::Storage { op, path: path.to_path_buf(), source };
    let whole = match path.canonicalize() {
        Ok(whole) => whole,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && missing == Missing::Make => {
            if path.symlink_metadata().is_ok() {
                return Err(Error::Content { path: path.to_path_buf(), what: "is a link to nothing".into() });
            }
            let name = path.file_name().ok_or_else(|| Error::Misuse(format!("{}: has no last component", path.display())))?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            make_parents(parent).map_err(|source| failure("make the folder of", source))?;
            parent.canonicalize().map_err(|source| failure("find", source))?.join(name)
        }
        Err(source) => return Err(failure("find", source)),
    };
    match (whole.parent(), whole.file_name()) {
        (Some(root), Some(name)) => Ok((root.to_path_buf(), PathBuf::from(name))),
        _ => Err(Error::Misuse(format!("{}: is a root directory", path.display()))),
    }
}
