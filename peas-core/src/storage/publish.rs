//! The change from staged to final names.
//!
//! Order: everything is durable and in order under staged names; the journal says "complete"; one rename (or one exchange with the
//! tree that was there) changes the names; both directories are synced; only then is success reported and the staging
//! directory removed. What the user put into a folder that was there (settings, saved games) is carried over by a second name before
//! the old tree is removed; what went with the old version goes with it (`mark.rs`).

use super::PublishError;
use super::journal::{Journal, Record};
use super::mark::mark_file;
use super::store::{Place, Store};
use super::volume::{Access, Kind, kind_at, make_dirs, remove_tree};
use crate::manifest::EntryKind;
use crate::unit::PieceIdx;
use crate::{Error, hash};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

impl Store {
    /// Blocking. May be called again after an error: it goes on where it stopped.
    pub fn publish(&self) -> Result<(), PublishError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().place == Place::Staged {
            self.prove_all(&mut journal)?;
            self.prepare_tree()?;
            self.sync_holding(&mut journal)?;
            self.none_missing()?;
            if self.state().journal_stale {
                self.replace_journal(&mut journal)?;
            }
            self.append_journal(&mut journal, &[Record::Complete])?;
            self.switch_names()?;
            self.staged.close_files();
            self.state().place = Place::Switched;
        }
        if self.state().place == Place::Switched {
            self.settle(&mut journal)?;
        }
        Ok(())
    }

    fn none_missing(&self) -> Result<(), PublishError> {
        let held = self.state().held.clone();
        let missing: Vec<PieceIdx> = self.pea.geometry().pieces().filter(|&piece| !held.contains(piece)).collect();
        if missing.is_empty() { Ok(()) } else { Err(PublishError::Damaged(missing)) }
    }

    /// Hashes what was taken over from an earlier process, and what lies in files that are not the ones it was written to.
    fn prove_all(&self, journal: &mut Option<Journal>) -> Result<(), PublishError> {
        self.none_missing()?;
        // First what a failed sync left in doubt: it may turn out to be missing.
        self.sync_holding(journal)?;
        let geometry = self.pea.geometry();
        #[cfg(any(test, feature = "planted"))]
        if self.planted == super::planted::Planted::BelieveJournal {
            return Ok(());
        }
        self.doubt_other_files()?;
        let inherited: Vec<PieceIdx> = self.state().inherited.iter().collect();
        for piece in inherited {
            let mut buf = self.buffer(piece);
            let read = self.staged.read(geometry.bytes_of(piece), &mut buf);
            match read {
                Ok(()) if hash::piece_cv(geometry, piece, &buf) == *self.pea.piece_cv(piece) => {
                    self.state().inherited.remove(piece);
                }
                Err(error) if !super::volume::is_missing(&error) && error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(self.failure("read", &self.staged.base)(error).into());
                }
                _ => self.withdraw(piece),
            }
        }
        if self.state().journal_stale {
            self.replace_journal(journal)?;
        }
        self.none_missing()
    }

    /// Somebody may have taken a staged file away, or put another in its place, and we would not see it: we hold it open. What counts
    /// is what the names lead to. (Where a file system numbers its files anew, this costs hashing and no more.)
    fn doubt_other_files(&self) -> Result<(), Error> {
        self.staged.close_files();
        let stats = self.staged.stats().map_err(self.failure("examine", &self.staged.base))?;
        let geometry = self.pea.geometry();
        let piece_bytes = u64::from(geometry.piece_bytes());
        let mut state = self.state();
        for (file, (mapped, stat)) in self.staged.map.files.iter().zip(stats).enumerate().filter(|(_, (mapped, _))| mapped.bytes > 0) {
            let now = stat.filter(|stat| stat.bytes >= mapped.bytes).map(|stat| (stat.device, stat.inode));
            if now.is_some() && now == state.identity.get(&file).copied() {
                continue;
            }
            let pieces = mapped.offset / piece_bytes..(mapped.offset + mapped.bytes).div_ceil(piece_bytes);
            for piece in pieces.filter_map(|raw| geometry.piece(raw as u32)) {
                state.inherited.insert(piece);
            }
            // Learnt anew when it is written.
            state.identity.remove(&file);
            state.journal_stale = true;
        }
        Ok(())
    }

    /// Empty files, directories, exact sizes, permissions, marks, links, and what is carried over.
    fn prepare_tree(&self) -> Result<(), Error> {
        let mask = super::real::umask();
        let mut dirs: BTreeSet<PathBuf> = BTreeSet::new();
        let on_made = |made: Vec<PathBuf>| self.state().dirty_dirs.extend(made);
        for (file, mapped) in self.staged.map.files.iter().enumerate() {
            let path = self.staged.path_of(file);
            let open = self.staged.file(file, Access::Create, &on_made).map_err(self.failure("make", &path))?;
            let mut stat = open.stat().map_err(self.failure("examine", &path))?;
            if stat.bytes != mapped.bytes {
                open.set_len(mapped.bytes).map_err(self.failure("set the size of", &path))?;
                stat = open.stat().map_err(self.failure("examine", &path))?;
            }
            let mode = if mapped.executable { 0o755 } else { 0o644 };
            open.set_mode(mode & !mask).map_err(self.failure("set the mode of", &path))?;
            mark_file(&*open, &stat);
            self.state().dirty_files.insert(file);
            dirs.extend(mapped.path.ancestors().skip(1).map(Path::to_path_buf));
        }
        if self.pea.is_single_file() {
            return Ok(());
        }
        for entry in self.pea.entries() {
            let path = self.staged.at(Path::new(&entry.path));
            match &entry.kind {
                EntryKind::File { .. } => continue,
                EntryKind::Directory => {
                    on_made(make_dirs(&*self.volume, &path).map_err(self.failure("make", &path))?);
                    dirs.insert(PathBuf::from(&entry.path));
                }
                EntryKind::Symlink { target } => {
                    let parent = path.parent().unwrap_or(Path::new(""));
                    on_made(make_dirs(&*self.volume, parent).map_err(self.failure("make", parent))?);
                    if kind_at(&*self.volume, &path).map_err(self.failure("examine", &path))?.is_some() {
                        remove_tree(&*self.volume, &path).map_err(self.failure("remove", &path))?;
                    }
                    self.volume.make_symlink(target, &path).map_err(self.failure("make", &path))?;
                    self.state().dirty_dirs.insert(parent.to_path_buf());
                }
            }
            dirs.extend(Path::new(&entry.path).ancestors().skip(1).map(Path::to_path_buf));
        }
        dirs.insert(PathBuf::new());
        if kind_at(&*self.volume, &self.target.base).map_err(self.failure("examine", &self.target.base))? == Some(Kind::Directory) {
            self.carry_over(&self.target.base, &self.staged.base)?;
        }
        self.mark_dirs(&dirs);
        for dir in &dirs {
            let path = self.staged.at(dir);
            self.volume.set_mode(&path, 0o755 & !mask).map_err(self.failure("set the mode of", &path))?;
            self.state().dirty_dirs.insert(path);
        }
        Ok(())
    }

    fn switch_names(&self) -> Result<(), Error> {
        let (new, dest) = (&self.staged.base, &self.target.base);
        let there = kind_at(&*self.volume, dest).map_err(self.failure("examine", dest))?;
        #[cfg(any(test, feature = "planted"))]
        if self.planted == super::planted::Planted::RemoveBeforeRename && there.is_some() {
            remove_tree(&*self.volume, dest).map_err(self.failure("remove", dest))?;
            // Here it stays until a kill from outside has come.
            #[cfg(all(feature = "planted", not(test)))]
            loop {
                std::thread::park();
            }
            #[cfg(any(not(feature = "planted"), test))]
            return self.volume.rename(new, dest).map_err(self.failure("rename", dest));
        }
        match (there, self.pea.is_single_file()) {
            (None, _) | (Some(Kind::File), true) => self.volume.rename(new, dest).map_err(self.failure("rename", dest)),
            (Some(Kind::Directory), false) => match self.volume.exchange(new, dest) {
                Err(error) if cannot_exchange(&error) => self.switch_in_two_steps(),
                other => other.map_err(self.failure("exchange", dest)),
            },
            _ => Err(Error::Content { path: self.root.join(dest), what: "another kind of thing is in the way".into() }),
        }
    }

    /// Where the file system cannot exchange: a crash in between leaves no destination for a moment, and `open_install` mends it.
    fn switch_in_two_steps(&self) -> Result<(), Error> {
        let (new, dest, old) = (&self.staged.base, &self.target.base, self.staging.join("old"));
        remove_tree(&*self.volume, &old).map_err(self.failure("remove", &old))?;
        self.volume.rename(dest, &old).map_err(self.failure("rename", dest))?;
        self.volume.rename(new, dest).map_err(|error| {
            // Best effort: the old tree back in its place. If this fails, too, the next `open_install` does it.
            let _ = self.volume.rename(&old, dest);
            self.failure("rename", dest)(error)
        })
    }

    /// After the names changed: both directories are synced, what appeared in the old tree meanwhile is carried over, and
    /// the staging directory goes.
    fn settle(&self, journal: &mut Option<Journal>) -> Result<(), Error> {
        let parent = Path::new("");
        for old in [&self.staged.base, &self.staging.join("old")] {
            if !self.pea.is_single_file() && kind_at(&*self.volume, old).map_err(self.failure("examine", old))? == Some(Kind::Directory) {
                self.carry_over(old, &self.target.base)?;
            }
        }
        let late: Vec<PathBuf> = std::mem::take(&mut self.state().dirty_dirs).into_iter().collect();
        for dir in late.iter().filter(|dir| dir.starts_with(&self.target.base)) {
            self.volume.sync_dir(dir).map_err(self.failure("sync", dir))?;
        }
        #[cfg(any(test, feature = "planted"))]
        let skip = self.planted == super::planted::Planted::NoDirectorySync;
        #[cfg(not(any(test, feature = "planted")))]
        let skip = false;
        if !skip {
            self.volume.sync_dir(&self.staging).map_err(self.failure("sync", &self.staging))?;
            self.volume.sync_dir(parent).map_err(self.failure("sync", parent))?;
        }
        let stats = self.target.stats().map_err(self.failure("examine", &self.target.base))?;
        {
            let mut state = self.state();
            state.final_stats = stats;
            state.dirty_files.clear();
            state.waiting_since = None;
            state.place = Place::Final;
        }
        *journal = None;
        self.remove_staging();
        Ok(())
    }

    /// The content is whole without it. A failure costs disk space only; the next `open_install` tries again.
    pub(super) fn remove_staging(&self) {
        // The journal goes first: without it, what is left over is nothing but old files.
        let _ = self.volume.remove_file(&self.staging.join("journal"));
        let _ = remove_tree(&*self.volume, &self.staging);
        self.remove_leftovers();
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn cannot_exchange(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unable = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].map(|errno| Some(errno.raw_os_error()));
    error.kind() == io::ErrorKind::Unsupported || unable.contains(&error.raw_os_error())
}

impl From<Error> for PublishError {
    fn from(error: Error) -> Self {
        PublishError::Failed(error)
    }
}
