//! One writer per destination.
//!
//! Two locks: one on the staging directory, which belongs to one content and one destination, and one on the destination, whatever
//! is installed there. Both end with the process. The second has a file of its own beside the destination, `.peas-<name>.lock`; its
//! holder removes it, and one that a killed process left is taken over by the next.

use super::open::Opening;
use super::store::Store;
use super::volume::{Kind, LockGuard, Volume, is_missing, kind_at, remove_tree};
use crate::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The lock on a destination. Its file goes before the lock does: who waits for it finds another file under the name, or none.
struct DestLock {
    volume: Arc<dyn Volume>,
    path: PathBuf,
    _guard: LockGuard,
}

impl Drop for DestLock {
    fn drop(&mut self) {
        // What stays is an empty file, which the next installation here takes over.
        let _ = self.volume.remove_file(&self.path);
    }
}

/// Both, let go in this order.
struct Both {
    _staging: LockGuard,
    _dest: DestLock,
}

impl Opening<'_> {
    fn busy(&self) -> Error {
        Error::Busy { path: self.root.join(&self.name) }
    }

    fn dest_lock_path(&self) -> PathBuf {
        PathBuf::from(format!(".peas-{}.lock", self.apart()))
    }

    /// Makes the staging directory if need be and locks it and the destination. `None`: it went away while we looked, as its owner
    /// is done. Errors: `Busy`.
    pub(super) fn lock(&self, store: &Store) -> Result<Option<LockGuard>, Error> {
        let path = self.dest_lock_path();
        let guard = self.volume.try_lock(&path).map_err(store.failure("lock", &path))?.ok_or_else(|| self.busy())?;
        let dest = DestLock { volume: self.volume.clone(), path, _guard: guard };
        for _ in 0..8 {
            match self.volume.make_dir(&store.staging) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other.map_err(store.failure("make", &store.staging))?,
            }
            if kind_at(&*self.volume, &store.staging).map_err(store.failure("examine", &store.staging))? != Some(Kind::Directory) {
                remove_tree(&*self.volume, &store.staging).map_err(store.failure("remove", &store.staging))?;
                continue;
            }
            match self.volume.try_lock(&store.staging.join("lock")) {
                Ok(Some(staging)) => return Ok(Some(Box::new(Both { _staging: staging, _dest: dest }))),
                Ok(None) => return Err(self.busy()),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(store.failure("lock", &store.staging)(error)),
            }
        }
        Ok(None)
    }

    /// Removes the lock file that a killed process left, if nobody holds it. For contents that need no lock because they are whole.
    pub(super) fn sweep_lock(&self) {
        let path = self.dest_lock_path();
        if kind_at(&*self.volume, Path::new(&path)).is_ok_and(|kind| kind.is_some())
            && let Ok(Some(guard)) = self.volume.try_lock(&path)
        {
            drop(DestLock { volume: self.volume.clone(), path, _guard: guard });
        }
    }
}
