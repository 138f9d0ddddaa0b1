//! What is already there: an installed content, a staging directory that an earlier process left, an older version to take from.
//!
//! No state that a crash can leave makes opening fail: what is not understood is checked by hash or thrown away. Nothing under the
//! final name is changed here.

use super::files::{Tree, is_loop};
use super::journal::{Contents, Journal};
use super::pool::Pool;
use super::reuse;
use super::scan::{Meter, each_piece};
use super::store::{Place, State, Store, map_of};
use super::volume::{Kind, Stat, Volume, kind_at, remove_tree};
use crate::manifest::{EntryKind, TrustedManifest};
use crate::unit::{PieceIdx, PieceSet};
use crate::{Error, hash};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A content so many times the size of the file system is not going to fit, whatever is made room for...
const OVERSIZE: u64 = 4;
/// ...if it is this large: file systems below that are in memory or in tests, and are made larger in a moment.
const OVERSIZE_BYTES_MIN: u64 = 16 << 30;

/// What opening needs to know.
pub(crate) struct Opening<'a> {
    pub pea: Arc<TrustedManifest>,
    pub volume: Arc<dyn Volume>,
    /// The directory that the volume is.
    pub root: PathBuf,
    /// The file's or folder's name in it.
    pub name: PathBuf,
    pub pooled_bytes_max: u64,
    /// Threads that hash.
    pub hashers: usize,
    pub on_bytes: &'a (dyn Fn(u64, u64) -> bool + Sync),
}

/// What was found.
pub(crate) struct Found {
    pub store: Store,
    pub bytes_reused: u64,
    pub installed: bool,
    /// Bytes that the disk lacks for the rest.
    pub room_short: Option<u64>,
}

impl Opening<'_> {
    /// What tells destinations beside each other apart, in the names of what lies there meanwhile.
    pub(super) fn apart(&self) -> String {
        format!("{:08x}", crc32fast::hash(self.name.as_os_str().as_encoded_bytes()))
    }

    fn store(&self, place: Place) -> Store {
        let map = map_of(&self.pea);
        let geometry = self.pea.geometry();
        let staging = PathBuf::from(format!(".peas-{}-{}", &self.pea.id().to_string()[..16], self.apart()));
        Store {
            staged: Tree::new(self.volume.clone(), staging.join("data"), map.clone()),
            target: Tree::new(self.volume.clone(), self.name.clone(), map.clone()),
            pea: self.pea.clone(),
            volume: self.volume.clone(),
            root: self.root.clone(),
            staging,
            leftovers: Vec::new(),
            state: Mutex::new(State {
                place,
                held: PieceSet::empty(geometry),
                durable: PieceSet::empty(geometry),
                inherited: PieceSet::empty(geometry),
                proven: PieceSet::empty(geometry),
                unsynced: BTreeSet::new(),
                unsynced_bytes: 0,
                dirty_files: BTreeSet::new(),
                dirty_dirs: BTreeSet::new(),
                waiting_since: None,
                suspect: BTreeSet::new(),
                sync_failures: 0,
                journal_stale: false,
                identity: BTreeMap::new(),
                journaled_files: BTreeSet::new(),
                final_stats: vec![None; map.files.len()],
            }),
            journal: Mutex::default(),
            lock: Mutex::default(),
            pool: Pool::new(geometry.piece_bytes() as usize, self.pooled_bytes_max),
            cache: Default::default(),
            #[cfg(any(test, feature = "planted"))]
            planted: super::planted::Planted::chosen(),
        }
    }

    /// For installing.
    pub fn install(&self) -> Result<Found, Error> {
        let mut store = self.store(Place::Staged);
        self.check_in_the_way(&store)?;
        self.check_it_can_fit(&store)?;
        let mut locked = None;
        let others = self.leftovers(&store)?;
        if !others.is_empty() || kind_at(&*self.volume, &store.staging).map_err(store.failure("examine", &store.staging))?.is_some() {
            locked = self.lock(&store)?;
        }
        if locked.is_some() {
            self.finish_switch(&store)?;
            for other in &others {
                if self.settle_leftover(&store, other)? {
                    store.leftovers.push(other.clone());
                }
            }
        }
        let geometry = self.pea.geometry();
        let mut good_at_dest = None;
        let stats = store.target.stats().map_err(store.failure("examine", &self.name))?;
        let same_sizes = stats.iter().zip(&store.target.map.files).all(|(stat, file)| stat.is_some_and(|stat| stat.bytes == file.bytes));
        if same_sizes {
            let good = self.survey(&store.target, &stats, &geometry.pieces().collect::<Vec<_>>())?;
            if good.is_full() && self.rest_is_right(&store, &stats)? {
                *store.lock.lock().unwrap_or_else(PoisonError::into_inner) = locked;
                self.sweep_lock();
                return self.installed(store, stats);
            }
            good_at_dest = Some(good);
        }
        if !self.pea.is_single_file() && kind_at(&*self.volume, &self.name).map_err(store.failure("examine", &self.name))?.is_some() {
            store.foreign(&self.name)?;
        }
        let lock = match locked {
            Some(lock) => lock,
            None => self.lock(&store)?.ok_or_else(|| Error::Busy { path: self.root.join(&self.name) })?,
        };
        *store.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
        self.recover(&store)?;
        self.reuse(&store, &store.target, &stats, good_at_dest)?;
        for other in &others {
            let tree = Tree::new(self.volume.clone(), other.join("data"), store.target.map.clone());
            let stats = tree.stats().map_err(store.failure("examine", other))?;
            self.reuse(&store, &tree, &stats, None)?;
        }
        let missing: u64 = {
            let held = store.state().held.clone();
            geometry.pieces().filter(|&piece| !held.contains(piece)).map(|piece| u64::from(geometry.len_of(piece))).sum()
        };
        let free = self.volume.free_bytes().unwrap_or(u64::MAX);
        let room_short = missing.checked_sub(free).filter(|&short| short > 0);
        store.write_state_file();
        Ok(Found { bytes_reused: geometry.total_bytes() - missing, store, installed: false, room_short })
    }

    /// A content of many times what the file system holds is refused before anything is written. One that only has no room now is
    /// waited for: room can be made, and disks can grow.
    fn check_it_can_fit(&self, store: &Store) -> Result<(), Error> {
        let total = self.volume.total_bytes().unwrap_or(u64::MAX);
        let needed = self.pea.geometry().total_bytes();
        if needed >= OVERSIZE_BYTES_MIN && needed / OVERSIZE > total {
            return Err(store.failure("hold the content at", &self.name)(rustix::io::Errno::NOSPC.into()));
        }
        Ok(())
    }

    fn check_in_the_way(&self, store: &Store) -> Result<(), Error> {
        let wanted = if self.pea.is_single_file() { Kind::File } else { Kind::Directory };
        match kind_at(&*self.volume, &self.name).map_err(store.failure("examine", &self.name))? {
            Some(kind) if kind != wanted => {
                let what = format!("a {} is in the way", if kind == Kind::Directory { "folder" } else { "file" });
                return Err(Error::Content { path: self.root.join(&self.name), what });
            }
            Some(_) => {}
            None => return Ok(()),
        }
        // A place where another file system begins cannot be exchanged: better said now than after the last byte.
        let device = |path: &Path| self.volume.stat(path).map(|stat| stat.device).map_err(store.failure("examine", path));
        if device(&self.name)? != device(Path::new(""))? {
            let what = "is a mount point; install into a folder inside it";
            return Err(Error::Content { path: self.root.join(&self.name), what: what.into() });
        }
        Ok(())
    }

    fn installed(&self, store: Store, stats: Vec<Option<Stat>>) -> Result<Found, Error> {
        self.make_durable(&store)?;
        if store.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            store.remove_staging();
        }
        {
            let mut state = store.state();
            state.place = Place::Final;
            state.held = PieceSet::full(self.pea.geometry());
            state.proven = state.held.clone();
            state.final_stats = stats;
        }
        Ok(Found { store, bytes_reused: self.pea.geometry().total_bytes(), installed: true, room_short: None })
    }

    /// Before a content that was found whole is called installed: a crash may have come between the rename and the sync of the
    /// directory, or somebody copied the files here a moment ago.
    fn make_durable(&self, store: &Store) -> Result<(), Error> {
        let mut dirs: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::new()]);
        if !self.pea.is_single_file() {
            dirs.extend(self.pea.entries().iter().flat_map(|entry| {
                let is_dir = matches!(entry.kind, EntryKind::Directory);
                Path::new(&entry.path).ancestors().skip(usize::from(!is_dir)).map(|dir| store.target.at(dir)).collect::<Vec<_>>()
            }));
        }
        let result = store.sync_tree(&store.target, 0..store.target.map.files.len(), &dirs);
        match result {
            // A file system that takes no writes has nothing to lose.
            Err(Error::Storage { source, .. }) if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            other => other,
        }
    }

    /// A crash in the middle of the change of names is brought to its end.
    fn finish_switch(&self, store: &Store) -> Result<(), Error> {
        if self.pea.is_single_file() {
            return Ok(());
        }
        let (data, old) = (&store.staged.base, store.staging.join("old"));
        let journal = self.read_journal(store)?;
        let complete = journal.as_ref().is_some_and(|journal| journal.complete);
        let here = |path: &Path| kind_at(&*self.volume, path).map_err(store.failure("examine", path));
        if here(&old)?.is_some() && here(&self.name)?.is_none() {
            // The two steps of a switch without exchange: forward if all was in order, else back.
            let from = if complete && here(data)? == Some(Kind::Directory) { data } else { &old };
            self.volume.rename(from, &self.name).map_err(store.failure("rename", from))?;
            self.volume.sync_dir(Path::new("")).map_err(store.failure("sync", Path::new("")))?;
        }
        let exchanged = match (complete, journal, here(data)?) {
            (true, Some(journal), Some(Kind::Directory)) => {
                self.volume.stat(data).map_err(store.failure("examine", data))?.inode != journal.data_inode
            }
            _ => false,
        };
        if exchanged && here(&self.name)? == Some(Kind::Directory) {
            store.carry_over(data, &self.name)?;
            self.sync_carried(store)?;
            remove_tree(&*self.volume, data).map_err(store.failure("remove", data))?;
        }
        if here(&old)?.is_some() && here(&self.name)? == Some(Kind::Directory) {
            store.carry_over(&old, &self.name)?;
            self.sync_carried(store)?;
            remove_tree(&*self.volume, &old).map_err(store.failure("remove", &old))?;
        }
        Ok(())
    }

    pub(super) fn sync_carried(&self, store: &Store) -> Result<(), Error> {
        let dirs = std::mem::take(&mut store.state().dirty_dirs);
        dirs.iter().try_for_each(|dir| self.volume.sync_dir(dir).map_err(store.failure("sync", dir)))
    }

    fn read_journal(&self, store: &Store) -> Result<Option<Contents>, Error> {
        let read = Journal::read(&*self.volume, &store.staging, self.pea.id(), self.pea.geometry());
        // A journal that cannot be read costs hashing, not the installation.
        Ok(read.unwrap_or(None))
    }

    /// Takes over what an earlier process staged.
    fn recover(&self, store: &Store) -> Result<(), Error> {
        let geometry = self.pea.geometry();
        let journal = self.read_journal(store)?;
        let data = &store.staged.base;
        let wanted = if self.pea.is_single_file() { Kind::File } else { Kind::Directory };
        if kind_at(&*self.volume, data).map_err(store.failure("examine", data))?.is_some_and(|kind| kind != wanted) {
            remove_tree(&*self.volume, data).map_err(store.failure("remove", data))?;
        }
        if !self.pea.is_single_file() {
            match self.volume.make_dir(data) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => self.remove_foreign(store)?,
                other => other.map_err(store.failure("make", data))?,
            }
        }
        let stats = store.staged.stats().map_err(store.failure("examine", data))?;
        let identity = |file: usize| stats[file].map(|stat| (stat.device, stat.inode));
        let long_enough = |piece: PieceIdx| {
            let mut segments = store.staged.map.segments(geometry.bytes_of(piece));
            segments.all(|segment| stats[segment.file].is_some_and(|stat| stat.bytes >= segment.offset + segment.bytes as u64))
        };
        let mut trusted = PieceSet::empty(geometry);
        if let Some(journal) = &journal {
            for piece in journal.pieces.iter().filter(|&piece| long_enough(piece)) {
                let mut segments = store.staged.map.segments(geometry.bytes_of(piece));
                if segments.all(|segment| journal.files.get(&segment.file).copied() == identity(segment.file)) {
                    trusted.insert(piece);
                }
            }
        }
        let unsaid: Vec<PieceIdx> = geometry
            .pieces()
            .filter(|&piece| !trusted.contains(piece) && long_enough(piece) && may_hold_data(&store.staged, geometry.bytes_of(piece)))
            .collect();
        let good = self.survey(&store.staged, &stats, &unsaid)?;
        {
            let mut state = store.state();
            state.identity = (0..stats.len()).filter_map(|file| Some((file, identity(file)?))).collect();
            state.held = trusted.clone();
            state.held.union_with(&good);
            state.durable = trusted.clone();
            state.inherited = trusted;
            for piece in good.iter() {
                // Right, but perhaps in memory only: synced and journaled with the next record.
                state.unsynced.insert(piece);
                state.dirty_files.extend(store.staged.map.segments(geometry.bytes_of(piece)).map(|segment| segment.file));
            }
            let state = &mut *state;
            let parents = state.dirty_files.iter().flat_map(|&file| {
                let path = store.staged.path_of(file);
                path.ancestors().skip(1).take_while(|above| above.starts_with(&store.staging)).map(Path::to_path_buf).collect::<Vec<_>>()
            });
            state.dirty_dirs.extend(parents.collect::<Vec<_>>());
            state.dirty_dirs.insert(store.staging.clone());
            state.dirty_dirs.insert(PathBuf::new());
            if !good.is_empty() {
                state.waiting_since = Some(std::time::Instant::now());
            }
        }
        let mut journal = store.journal.lock().unwrap_or_else(PoisonError::into_inner);
        store.replace_journal(&mut journal)
    }

    /// Removes from a staged folder what is no file of the content: names that an interrupted publish carried over (the
    /// files themselves are still where they were), links, and whatever strangers put there.
    fn remove_foreign(&self, store: &Store) -> Result<(), Error> {
        let entries = self.pea.entries();
        let files: BTreeSet<&Path> =
            entries.iter().filter(|entry| matches!(entry.kind, EntryKind::File { .. })).map(|entry| Path::new(&entry.path)).collect();
        let dirs: BTreeSet<&Path> = files.iter().flat_map(|path| path.ancestors().skip(1)).collect();
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            let at = store.staged.at(&dir);
            for (name, kind) in self.volume.list(&at).map_err(store.failure("list", &at))? {
                let path = dir.join(name);
                match kind {
                    Kind::Directory if dirs.contains(path.as_path()) => todo.push(path),
                    Kind::File if files.contains(path.as_path()) => {}
                    _ => {
                        let at = store.staged.at(&path);
                        remove_tree(&*self.volume, &at).map_err(store.failure("remove", &at))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Which of these pieces are right in this tree. What cannot be read is not right.
    fn survey(&self, tree: &Tree, stats: &[Option<Stat>], pieces: &[PieceIdx]) -> Result<PieceSet, Error> {
        let geometry = self.pea.geometry();
        let good = Mutex::new(PieceSet::empty(geometry));
        let meter = Meter::new(pieces.iter().map(|&piece| u64::from(geometry.len_of(piece))).sum(), self.on_bytes);
        each_piece(self.hashers, geometry, pieces, |piece, buf| {
            let long_enough = tree
                .map
                .segments(geometry.bytes_of(piece))
                .all(|segment| stats[segment.file].is_some_and(|stat| stat.bytes >= segment.offset + segment.bytes as u64));
            if long_enough
                && tree.read(geometry.bytes_of(piece), buf).is_ok()
                && hash::piece_cv(geometry, piece, buf) == *self.pea.piece_cv(piece)
            {
                good.lock().unwrap_or_else(PoisonError::into_inner).insert(piece);
            }
            meter.add(buf.len() as u64)
        })?;
        tree.close_files();
        Ok(good.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Links, empty directories and executable bits.
    fn rest_is_right(&self, store: &Store, stats: &[Option<Stat>]) -> Result<bool, Error> {
        let modes = stats.iter().zip(&store.target.map.files);
        if modes.into_iter().any(|(stat, file)| stat.is_some_and(|stat| (stat.mode & 0o100 != 0) != file.executable)) {
            return Ok(false);
        }
        for entry in self.pea.entries() {
            let path = store.target.at(Path::new(&entry.path));
            let right = match &entry.kind {
                EntryKind::File { .. } => continue,
                EntryKind::Directory => match kind_at(&*self.volume, &path) {
                    Err(error) if is_loop(&error) => false,
                    other => other.map_err(store.failure("examine", &path))? == Some(Kind::Directory),
                },
                EntryKind::Symlink { target } => self.volume.read_link(&path).is_ok_and(|found| found == target.as_str()),
            };
            if !right {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes right pieces from what lies at the destination, or was left by an installation of another version.
    fn reuse(&self, store: &Store, old: &Tree, stats: &[Option<Stat>], known_good: Option<PieceSet>) -> Result<(), Error> {
        let geometry = self.pea.geometry();
        let held = store.state().held.clone();
        let missing: Vec<PieceIdx> = geometry
            .pieces()
            .filter(|&piece| !held.contains(piece) && known_good.as_ref().is_none_or(|good| good.contains(piece)))
            .collect();
        if missing.is_empty() || kind_at(&*self.volume, &old.base).map_err(store.failure("examine", &old.base))?.is_none() {
            return Ok(());
        }
        let source = reuse::source(&self.pea, old, stats, self.on_bytes)?;
        let meter = Meter::new(missing.iter().map(|&piece| u64::from(geometry.len_of(piece))).sum(), self.on_bytes);
        each_piece(self.hashers, geometry, &missing, |piece, buf| {
            if source.read(geometry.bytes_of(piece), buf).is_ok() && hash::piece_cv(geometry, piece, buf) == *self.pea.piece_cv(piece) {
                match store.write(piece, buf) {
                    // A full disk here is the engine's to handle, when it commits what it fetched.
                    Err(Error::Storage { source, .. }) if crate::error::is_full(&source) => {}
                    other => other?,
                }
            }
            meter.add(buf.len() as u64)
        })
    }

    /// For serving.
    pub fn seed(&self, check_first: bool) -> Result<Found, Error> {
        let store = self.store(Place::Final);
        let stats = store.target.stats().map_err(store.failure("examine", &self.name))?;
        for (file, (stat, mapped)) in stats.iter().zip(&store.target.map.files).enumerate() {
            let what = match stat {
                None => "is missing, or is not a file".to_string(),
                Some(stat) if stat.bytes != mapped.bytes => format!("has {} bytes instead of {}", stat.bytes, mapped.bytes),
                Some(_) => continue,
            };
            return Err(Error::Content { path: self.root.join(store.target.path_of(file)), what });
        }
        let held = if check_first {
            self.survey(&store.target, &stats, &self.pea.geometry().pieces().collect::<Vec<_>>())?
        } else {
            PieceSet::full(self.pea.geometry())
        };
        let installed = held.is_full();
        let bytes_reused = held.iter().map(|piece| u64::from(self.pea.geometry().len_of(piece))).sum();
        {
            let mut state = store.state();
            if check_first {
                state.proven = held.clone();
            }
            state.held = held;
            state.final_stats = stats;
        }
        Ok(Found { store, bytes_reused, installed, room_short: None })
    }
}

/// Whether any part of the range is not a hole.
fn may_hold_data(tree: &Tree, range: std::ops::Range<u64>) -> bool {
    tree.map.segments(range).all(|segment| {
        let next = tree.file(segment.file, super::volume::Access::Read, &|_| {}).and_then(|file| file.next_data(segment.offset));
        !matches!(next, Ok(None)) && !matches!(next, Ok(Some(at)) if at >= segment.offset + segment.bytes as u64)
    })
}
