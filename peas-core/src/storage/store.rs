//! One content on one volume: what is held, and how it is written and read. Everything here happens on the calling thread.
//!
//! Always true: a piece is in `held` only after its bytes were verified and written (or taken over from a journal that said so); bytes
//! are verified whenever they leave; nothing is journaled before the sync that made it durable (`sync.rs`). Threads and queues
//! must not come in (`workers.rs`).

use super::files::{FileMap, Tree};
use super::journal::{Identity, Journal};
use super::pool::{Cached, PieceBuf, PieceCache, Pool};
use super::volume::{Access, LockGuard, Stat, Volume, is_missing};
use super::{CommitEnd, ReadEnd};
use crate::Error;
use crate::hash::{self, Cv, SpanProof, SpanVerifier};
use crate::manifest::TrustedManifest;
use crate::swarm::Committed;
use crate::unit::{BlockSpan, PieceIdx, PieceSet};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// What a probe writes: more than a file system keeps beside an inode, and no burden.
const PROBE_BYTES: usize = 64 << 10;

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the staging directory.
    Staged,
    /// The names have changed, but not all that belongs to it is done; `publish` goes on from here.
    Switched,
    /// Under their final names.
    Final,
}

pub(crate) struct State {
    pub place: Place,
    pub held: PieceSet,
    /// Held, and known to be on the disk itself: what a journal may say.
    pub durable: PieceSet,
    /// Held because a journal said so; not hashed by this process.
    pub inherited: PieceSet,
    /// Was right under the eyes of this process: if it is not any more and nobody touched the file, that is rot.
    pub proven: PieceSet,
    /// Written, but not yet synced.
    pub unsynced: BTreeSet<PieceIdx>,
    pub unsynced_bytes: u64,
    pub dirty_files: BTreeSet<usize>,
    pub dirty_dirs: BTreeSet<PathBuf>,
    /// Since when something waits to be synced or journaled.
    pub waiting_since: Option<Instant>,
    /// A sync failed after these were written: the page cache may show bytes that no disk holds. They are read, checked and
    /// written once more before they are synced again.
    pub suspect: BTreeSet<PieceIdx>,
    /// Failed syncs so far: a write that was under way during one is suspect, too.
    pub sync_failures: u64,
    /// The journal says more than is true, or ends nobody knows how.
    pub journal_stale: bool,
    /// Device and inode of the staged files.
    pub identity: BTreeMap<usize, Identity>,
    /// Those of them that the journal names already.
    pub journaled_files: BTreeSet<usize>,
    /// What final files looked like: one that somebody changed is never written to.
    pub final_stats: Vec<Option<Stat>>,
}

pub(crate) struct Store {
    pub pea: Arc<TrustedManifest>,
    pub volume: Arc<dyn Volume>,
    /// The directory that the volume is, for messages.
    pub root: PathBuf,
    pub staging: PathBuf,
    /// Staging directories of other contents for the same destination: removed with our own.
    pub leftovers: Vec<PathBuf>,
    pub staged: Tree,
    pub target: Tree,
    pub state: Mutex<State>,
    /// Held while syncing and publishing, so that these happen one at a time. `None`: nothing to journal.
    pub journal: Mutex<Option<Journal>>,
    pub lock: Mutex<Option<LockGuard>>,
    pub pool: Arc<Pool>,
    pub cache: PieceCache,
    /// A bug that the crash tests have to find.
    #[cfg(any(test, feature = "planted"))]
    pub planted: super::planted::Planted,
}

/// The map of a content's files; for a content that is one file, its path is empty.
pub(crate) fn map_of(pea: &TrustedManifest) -> Arc<FileMap> {
    use crate::manifest::EntryKind;
    let files = pea.entries().iter().filter_map(|entry| match entry.kind {
        EntryKind::File { offset, bytes, executable, .. } => {
            let path = if pea.is_single_file() { PathBuf::new() } else { PathBuf::from(&entry.path) };
            Some(super::files::MappedFile { path, offset, bytes, executable })
        }
        _ => None,
    });
    Arc::new(FileMap { files: files.collect() })
}

impl Store {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of the file system as ours.
    pub fn failure(&self, op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = self.root.join(path);
        move |source| Error::Storage { op, path, source }
    }

    pub fn buffer(&self, piece: PieceIdx) -> PieceBuf {
        self.pool.take(self.pea.geometry().len_of(piece) as usize)
    }

    fn tree(&self, place: Place) -> &Tree {
        if place == Place::Staged { &self.staged } else { &self.target }
    }

    /// Verifies and writes a piece.
    pub fn commit(&self, piece: PieceIdx, buf: PieceBuf) -> CommitEnd {
        let geometry = self.pea.geometry();
        if buf.len() != geometry.len_of(piece) as usize || hash::piece_cv(geometry, piece, &buf) != *self.pea.piece_cv(piece) {
            return CommitEnd::Corrupt;
        }
        match self.write(piece, &buf) {
            Ok(()) => {
                self.cache.put(piece, Cached { buf: Arc::new(buf), block_cvs: Arc::default() });
                CommitEnd::Committed(Committed::witnessed(piece))
            }
            Err(error) => CommitEnd::Unwritten(error),
        }
    }

    /// Writes bytes that are known to be right.
    pub fn write(&self, piece: PieceIdx, bytes: &[u8]) -> Result<(), Error> {
        let (place, failures_before) = {
            let state = self.state();
            if state.held.contains(piece) && !state.suspect.contains(&piece) {
                return Ok(());
            }
            (state.place, state.sync_failures)
        };
        let range = self.pea.geometry().bytes_of(piece);
        let tree = self.tree(place);
        let files: Vec<usize> = tree.map.segments(range.clone()).map(|segment| segment.file).collect();
        let access = if place == Place::Staged { Access::Create } else { Access::Write };
        if place != Place::Staged {
            self.may_repair(piece, &files)?;
        }
        let on_made = |dirs: Vec<PathBuf>| self.state().dirty_dirs.extend(dirs);
        let first = files.first().map_or_else(PathBuf::new, |&file| tree.path_of(file));
        let written = tree.write(range, bytes, access, &on_made);
        #[cfg(any(test, feature = "planted"))]
        let written = if self.planted == super::planted::Planted::SwallowWriteErrors { Ok(()) } else { written };
        written.map_err(self.failure("write", &first))?;
        let mut identities = Vec::new();
        for &file in &files {
            if place != Place::Staged || !self.state().identity.contains_key(&file) {
                let stat = tree.file(file, access, &on_made).and_then(|open| open.stat());
                identities.push((file, stat.map_err(self.failure("examine", &tree.path_of(file)))?));
            }
        }

        let mut state = self.state();
        for (file, stat) in identities {
            state.identity.insert(file, (stat.device, stat.inode));
            if place != Place::Staged {
                state.final_stats[file] = Some(stat);
            }
        }
        state.dirty_files.extend(files);
        state.held.insert(piece);
        state.inherited.remove(piece);
        state.proven.insert(piece);
        if state.sync_failures == failures_before {
            state.suspect.remove(&piece);
            state.unsynced.insert(piece);
        } else {
            state.suspect.insert(piece);
        }
        state.unsynced_bytes += bytes.len() as u64;
        state.waiting_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// A final file is written to only if the piece was right before and nobody has touched the file since: then what is
    /// wrong in it is rot, not somebody's work.
    fn may_repair(&self, piece: PieceIdx, files: &[usize]) -> Result<(), Error> {
        for &file in files {
            let path = self.target.path_of(file);
            let now = self.volume.stat(&path).map_err(self.failure("examine", &path))?;
            let state = self.state();
            if !state.proven.contains(piece) || state.final_stats[file] != Some(now) {
                return Err(Error::Content { path: self.root.join(path), what: "was changed by somebody else; it is left alone".into() });
            }
        }
        Ok(())
    }

    /// What [`read`](Store::read) would give, if it is in memory and nobody has to be waited for.
    pub fn at_hand(&self, span: BlockSpan, with_proof: bool) -> Option<ReadEnd> {
        let is_held = self.state.try_lock().is_ok_and(|state| state.held.contains(span.piece()));
        let cached = self.cache.get(span.piece()).filter(|cached| is_held && (!with_proof || cached.block_cvs.get().is_some()))?;
        Some(self.give(cached, span, with_proof))
    }

    /// Reads and verifies.
    pub fn read(&self, span: BlockSpan, with_proof: bool) -> ReadEnd {
        let piece = span.piece();
        let cached = match self.cache.get(piece) {
            Some(cached) if self.state().held.contains(piece) => cached,
            _ => match self.load(piece, with_proof) {
                Ok(Some(cached)) => cached,
                Ok(None) => {
                    self.withdraw(piece);
                    return ReadEnd::Damaged;
                }
                Err(error) => return ReadEnd::Failed(error),
            },
        };
        self.give(cached, span, with_proof)
    }

    fn give(&self, cached: Cached, span: BlockSpan, with_proof: bool) -> ReadEnd {
        let (geometry, piece) = (self.pea.geometry(), span.piece());
        let proof = with_proof.then(|| {
            let block_cvs = cached.block_cvs.get_or_init(|| hash::block_cvs(geometry, piece, &cached.buf));
            SpanProof::new(geometry, span, block_cvs)
        });
        let range = geometry.bytes_in_piece(span);
        ReadEnd::Bytes { buf: cached.buf, range: range.start as usize..range.end as usize, proof }
    }

    /// The piece from disk if it is right.
    fn load(&self, piece: PieceIdx, with_proof: bool) -> Result<Option<Cached>, Error> {
        let geometry = self.pea.geometry();
        let place = {
            let state = self.state();
            if !state.held.contains(piece) {
                return Ok(None);
            }
            state.place
        };
        let mut buf = self.buffer(piece);
        let range = geometry.bytes_of(piece);
        let outcome = match self.tree(place).read(range.clone(), &mut buf) {
            // The names may have changed between the look and the read.
            Err(_) if self.state().place != place => self.target.read(range, &mut buf),
            other => other,
        };
        match outcome {
            Ok(()) => {}
            Err(error) if is_missing(&error) || error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(self.failure("read", &self.tree(place).base)(error)),
        }
        let block_cvs = Arc::new(OnceLock::new());
        if with_proof {
            // Block values are needed anyway: checking that they lead to the piece's value spares a second pass.
            let cvs = hash::block_cvs(geometry, piece, &buf);
            if !leads_to(geometry, piece, &cvs, self.pea.piece_cv(piece)) {
                return Ok(None);
            }
            let _ = block_cvs.set(cvs);
        } else if hash::piece_cv(geometry, piece, &buf) != *self.pea.piece_cv(piece) {
            return Ok(None);
        }
        let cached = Cached { buf: Arc::new(buf), block_cvs };
        self.cache.put(piece, cached.clone());
        let mut state = self.state();
        state.inherited.remove(piece);
        state.proven.insert(piece);
        drop(state);
        Ok(Some(cached))
    }

    /// The piece turned out to be wrong.
    pub fn withdraw(&self, piece: PieceIdx) {
        let mut state = self.state();
        state.held.remove(piece);
        state.inherited.remove(piece);
        state.unsynced.remove(&piece);
        state.suspect.remove(&piece);
        if state.durable.remove(piece) {
            state.journal_stale = true;
            state.waiting_since.get_or_insert_with(Instant::now);
        }
    }

    /// A few words for people who find the staging directory. Nothing reads it.
    pub fn write_state_file(&self) {
        let held = self.state().held.len();
        let state = serde_json::json!({
            "what": "an unfinished peas installation; installing again goes on from here, and this directory may be removed",
            "pea": self.pea.id().to_string(),
            "name": self.pea.name(),
            "destination": self.root.join(&self.target.base).to_string_lossy(),
            "pieces": self.pea.geometry().piece_count(),
            "pieces_held": held,
        });
        let text = format!("{state:#}\n");
        let written = self.volume.open(&self.staging.join("state.json"), Access::Create).and_then(|file| {
            file.set_len(0)?;
            super::volume::write_all_at(&*file, text.as_bytes(), 0)
        });
        // For people only: a failure changes nothing.
        drop(written);
    }

    /// Whether the disk takes writes: there is room for all that is missing (going on with less would only fill it to the brim once
    /// more), and a small file can be written and synced. Cheap enough to be asked twice a second for days.
    pub fn probe(&self) -> Result<(), Error> {
        let geometry = self.pea.geometry();
        let missing = geometry.total_bytes() - self.state().held.iter().map(|piece| u64::from(geometry.len_of(piece))).sum::<u64>();
        let free = self.volume.free_bytes().map_err(self.failure("examine", Path::new("")))?;
        if free < missing {
            return Err(self.failure("write", &self.staging)(rustix::io::Errno::NOSPC.into()));
        }
        if self.state().place != Place::Staged {
            // Where the content lies in place, the next repair is the probe: nothing else is to be written there.
            return Ok(());
        }
        let path = self.staging.join("probe");
        let written = self.volume.open(&path, Access::Create).and_then(|file| {
            super::volume::write_all_at(&*file, &[0x55; PROBE_BYTES], 0)?;
            file.sync_data()
        });
        // Whatever happens to it, the next probe writes over it, and it goes with the staging directory.
        let _ = self.volume.remove_file(&path);
        written.map_err(self.failure("write", &path))
    }
}

fn leads_to(geometry: &crate::unit::Geometry, piece: PieceIdx, block_cvs: &[Cv], piece_cv: &Cv) -> bool {
    let whole = geometry.whole(piece);
    SpanVerifier::new(geometry, whole, &SpanProof::new(geometry, whole, block_cvs), piece_cv).is_ok()
}
