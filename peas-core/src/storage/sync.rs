//! Making what is written durable, and saying so in the journal - in this order.
//!
//! Few files are synced one by one with `fdatasync`; when more than [`FILES_SYNCED_SINGLY_MAX`] are dirty, `syncfs` on the file system is cheaper
//! (it reports write errors since Linux 5.8). A failed sync is never repeated and believed: what was written since the last good one
//! is read, checked and written again first, because the system forgets failed pages and would call the second sync a success.

use super::files::Tree;
use super::journal::{Journal, Record};
use super::store::{Place, Store};
use super::volume::Access;
use crate::unit::{PieceIdx, PieceSet, Run};
use crate::{Error, hash};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Beyond this many dirty files and directories the whole file system is synced at once: 5,000 small files one by one take many
/// seconds on a journaling file system, together less than one.
const FILES_SYNCED_SINGLY_MAX: usize = 64;
/// Bytes written before a record is due (THREATS 3.6): what a crash costs at most in hashing.
const JOURNAL_EVERY_BYTES: u64 = 64 << 20;
/// Time before a record is due.
pub(crate) const JOURNAL_EVERY: Duration = Duration::from_secs(2);

/// What one sync covers.
struct Batch {
    pieces: BTreeSet<PieceIdx>,
    files: BTreeSet<usize>,
    dirs: BTreeSet<PathBuf>,
}

impl Store {
    /// When the next sync is due; `None`: nothing waits.
    pub fn sync_due(&self) -> Option<Instant> {
        let state = self.state();
        let since = state.waiting_since?;
        Some(if state.unsynced_bytes >= JOURNAL_EVERY_BYTES { since } else { since + JOURNAL_EVERY })
    }

    /// Everything committed before this call is durable and journaled when it returns.
    pub fn sync(&self) -> Result<(), Error> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync_holding(&mut journal)
    }

    pub(super) fn sync_holding(&self, journal: &mut Option<Journal>) -> Result<(), Error> {
        let outcome = self.rewrite_suspects().and_then(|()| {
            let batch = self.take_batch();
            match self.sync_batch(&batch) {
                Ok(()) => self.record(journal, batch),
                Err(error) => {
                    self.distrust(batch);
                    Err(error)
                }
            }
        });
        let mut state = self.state();
        if outcome.is_err() {
            // Tried again when the time is up, not at once: a full or broken disk must not keep a thread busy.
            state.waiting_since = Some(Instant::now());
            state.unsynced_bytes = 0;
        }
        outcome
    }

    fn take_batch(&self) -> Batch {
        let mut state = self.state();
        state.waiting_since = None;
        state.unsynced_bytes = 0;
        Batch {
            pieces: std::mem::take(&mut state.unsynced),
            files: std::mem::take(&mut state.dirty_files),
            dirs: std::mem::take(&mut state.dirty_dirs),
        }
    }

    fn sync_batch(&self, batch: &Batch) -> Result<(), Error> {
        #[cfg(any(test, feature = "planted"))]
        if self.planted == super::planted::Planted::NoDataSync {
            return Ok(());
        }
        let staged = self.state().place == Place::Staged;
        self.sync_tree(if staged { &self.staged } else { &self.target }, batch.files.iter().copied(), &batch.dirs)
    }

    /// These files of a tree and these directories are durable afterwards.
    pub(super) fn sync_tree(
        &self,
        tree: &Tree,
        files: impl ExactSizeIterator<Item = usize>,
        dirs: &BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        if files.len() + dirs.len() > FILES_SYNCED_SINGLY_MAX {
            match self.volume.sync_all() {
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
                other => return other.map_err(self.failure("sync the file system of", &tree.base)),
            }
        }
        for file in files {
            // Syncing needs no right to write, and a final file may grant none.
            let access = if tree.base == self.staged.base { Access::Write } else { Access::Read };
            let outcome = tree.file(file, access, &|_| {}).and_then(|open| open.sync_data());
            outcome.map_err(self.failure("sync", &tree.path_of(file)))?;
        }
        dirs.iter().try_for_each(|dir| self.volume.sync_dir(dir).map_err(self.failure("sync", dir)))
    }

    /// After a failed sync: nothing since the last good one is believed.
    fn distrust(&self, batch: Batch) {
        let mut state = self.state();
        #[cfg(any(test, feature = "planted"))]
        if self.planted == super::planted::Planted::BelieveSecondSync {
            state.unsynced.extend(batch.pieces);
            state.dirty_files.extend(batch.files);
            state.dirty_dirs.extend(batch.dirs);
            return;
        }
        state.sync_failures += 1;
        let newer = std::mem::take(&mut state.unsynced);
        let doubtful = batch.pieces.into_iter().chain(newer).filter(|&piece| state.held.contains(piece)).collect::<Vec<_>>();
        state.suspect.extend(doubtful);
        state.dirty_files.extend(batch.files);
        state.dirty_dirs.extend(batch.dirs);
    }

    /// Reads, checks and writes again what a failed sync left in doubt.
    fn rewrite_suspects(&self) -> Result<(), Error> {
        let suspects: Vec<PieceIdx> = self.state().suspect.iter().copied().collect();
        let geometry = self.pea.geometry();
        for piece in suspects {
            let mut buf = self.buffer(piece);
            let staged = self.state().place == Place::Staged;
            let tree = if staged { &self.staged } else { &self.target };
            let read = tree.read(geometry.bytes_of(piece), &mut buf);
            if read.is_ok() && hash::piece_cv(geometry, piece, &buf) == *self.pea.piece_cv(piece) {
                self.write(piece, &buf)?;
            } else {
                self.withdraw(piece);
            }
        }
        Ok(())
    }

    fn record(&self, journal: &mut Option<Journal>, batch: Batch) -> Result<(), Error> {
        let mut records = Vec::new();
        let stale = {
            let mut state = self.state();
            let state = &mut *state;
            // What was withdrawn or written anew while the sync ran is not covered by it.
            let covered =
                |piece: &PieceIdx| state.held.contains(*piece) && !state.unsynced.contains(piece) && !state.suspect.contains(piece);
            let now_durable: Vec<PieceIdx> = batch.pieces.iter().copied().filter(covered).collect();
            for &piece in &now_durable {
                state.durable.insert(piece);
            }
            if state.place != Place::Staged || journal.is_none() {
                return Ok(());
            }
            if !state.journal_stale {
                let fresh: Vec<usize> = batch.files.into_iter().filter(|file| state.journaled_files.insert(*file)).collect();
                let fresh = fresh.into_iter().filter_map(|file| Some((file as u32, *state.identity.get(&file)?)));
                records.push(Record::Files(fresh.collect()));
                records.push(Record::Pieces(runs_of(now_durable.into_iter())));
            }
            state.journal_stale
        };
        if stale {
            return self.replace_journal(journal);
        }
        self.append_journal(journal, &records)
    }

    pub(super) fn append_journal(&self, journal: &mut Option<Journal>, records: &[Record]) -> Result<(), Error> {
        let Some(open) = journal else { return Ok(()) };
        open.append(records).map_err(|error| {
            self.state().journal_stale = true;
            self.failure("write", &self.staging.join("journal"))(error)
        })
    }

    /// A journal that says what is durable now, instead of the old one.
    pub(super) fn replace_journal(&self, journal: &mut Option<Journal>) -> Result<(), Error> {
        let data_inode = if self.pea.is_single_file() {
            0
        } else {
            self.volume.stat(&self.staged.base).map_err(self.failure("examine", &self.staged.base))?.inode
        };
        let records = {
            let mut state = self.state();
            // Every change from here on finds the flag cleared and sets it again.
            state.journal_stale = false;
            state.journaled_files = state.identity.keys().copied().collect();
            let files = state.identity.iter().map(|(&file, &identity)| (file as u32, identity)).collect();
            let pieces: &PieceSet = &state.durable;
            [Record::Start { pea: self.pea.id(), data_inode }, Record::Files(files), Record::Pieces(pieces.runs())]
        };
        match Journal::replace(&*self.volume, &self.staging, &records) {
            Ok(fresh) => {
                *journal = Some(fresh);
                Ok(())
            }
            Err(error) => {
                self.state().journal_stale = true;
                Err(self.failure("write", &self.staging.join("journal"))(error))
            }
        }
    }
}

fn runs_of(pieces: impl Iterator<Item = PieceIdx>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == piece.raw() => *count += 1,
            _ => runs.push((piece.raw(), 1)),
        }
    }
    runs
}
