//! What installations of other contents left at the same destination when they were killed.
//!
//! Whoever holds the lock on the destination knows that nobody is at work there, so another version's staging directory is a leftover: a
//! switch of names that broke off in it is brought to an end, its bytes are used where they are right, and it is removed when the
//! new content is in place. One that holds something that has a place nowhere else is left alone.

use super::journal;
use super::open::Opening;
use super::store::Store;
use super::volume::{Access, Kind, kind_at, read_exact_at, remove_tree};
use crate::Error;
use std::path::{Path, PathBuf};

/// Most of a foreign journal that is read.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

impl Opening<'_> {
    /// Staging directories for this destination that are not this content's.
    pub(super) fn leftovers(&self, store: &Store) -> Result<Vec<PathBuf>, Error> {
        let apart = self.apart();
        let other = |name: &str| {
            let id = name.strip_prefix(".peas-")?.strip_suffix(&apart)?.strip_suffix('-')?;
            (id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(())
        };
        let names = self.volume.list(Path::new("")).map_err(store.failure("list", Path::new("")))?;
        let others =
            names.into_iter().filter(|(name, kind)| *kind == Kind::Directory && name.to_str().is_some_and(|name| other(name).is_some()));
        Ok(others.map(|(name, _)| PathBuf::from(name)).filter(|path| *path != store.staging).collect())
    }

    /// Ends what broke off there. True: nothing is left in it that is not elsewhere, too.
    pub(super) fn settle_leftover(&self, store: &Store, other: &Path) -> Result<bool, Error> {
        let here = |path: &Path| kind_at(&*self.volume, path).map_err(store.failure("examine", path));
        let (data, old) = (other.join("data"), other.join("old"));
        if here(&old)?.is_some() {
            if here(&self.name)?.is_some() {
                return self.carry_from(store, &old);
            }
            self.volume.rename(&old, &self.name).map_err(store.failure("rename", &old))?;
            self.volume.sync_dir(Path::new("")).map_err(store.failure("sync", Path::new("")))?;
            return Ok(true);
        }
        // After an exchange the old tree lies where the new one was.
        match (here(&data)?, self.switched(other)) {
            (Some(Kind::Directory), Some(inode)) if self.volume.stat(&data).is_ok_and(|stat| stat.inode != inode) => {
                self.carry_from(store, &data)
            }
            _ => Ok(true),
        }
    }

    fn carry_from(&self, store: &Store, old: &Path) -> Result<bool, Error> {
        if self.pea.is_single_file()
            || kind_at(&*self.volume, &self.name).map_err(store.failure("examine", &self.name))? != Some(Kind::Directory)
        {
            return Ok(false);
        }
        match store.carry_over(old, &self.name) {
            Err(Error::Content { .. }) => return Ok(false),
            other => other?,
        }
        self.sync_carried(store)?;
        Ok(true)
    }

    /// The inode of the tree that was to be published, if the journal there says that all was in order.
    fn switched(&self, other: &Path) -> Option<u64> {
        let file = self.volume.open(&other.join("journal"), Access::Read).ok()?;
        let bytes = file.stat().ok()?.bytes;
        let mut buf = vec![0; usize::try_from(bytes).ok().filter(|_| bytes <= JOURNAL_BYTES_MAX)?];
        read_exact_at(&*file, &mut buf, 0).ok()?;
        journal::completed(&buf)
    }
}

impl Store {
    /// Removes them. A failure costs disk space only.
    pub(super) fn remove_leftovers(&self) {
        for other in &self.leftovers {
            let _ = remove_tree(&*self.volume, other);
        }
    }
}
