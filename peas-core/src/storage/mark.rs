//! Which files of an old tree an earlier installation put there, and nobody has changed since.
//!
//! A published file carries a mark, an extended attribute with its size and time of change; a directory carries one with the
//! symbolic links in it. So an update can tell what went with the old version from what is the user's: a file without a mark, or one that was
//! changed after it got its mark, is the user's. Marks are a help and no more: where a file system keeps none, or one is
//! lost, everything that the content does not name counts as the user's and stays.

use super::store::Store;
use super::volume::{Kind, Stat, VolumeFile};
use crate::manifest::EntryKind;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Hash of one symbolic link in a directory's mark.
const LINK_BYTES: usize = 8;

fn file_mark(stat: &Stat) -> Vec<u8> {
    let mut mark = b"f1".to_vec();
    mark.extend(stat.bytes.to_le_bytes());
    mark.extend(stat.modified_ns.to_le_bytes());
    mark
}

fn link_mark(name: &[u8], target: &[u8]) -> [u8; LINK_BYTES] {
    let hash = blake3::Hasher::new().update(name).update(&[0]).update(target).finalize();
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}

/// Marks a staged file that is as it will be published. A failure is no loss.
pub(super) fn mark_file(file: &dyn VolumeFile, stat: &Stat) {
    let _ = file.set_mark(&file_mark(stat));
}

impl Store {
    /// Marks the directories of what is staged, just before it is published. Failures are no loss.
    pub(super) fn mark_dirs(&self, dirs: &BTreeSet<PathBuf>) {
        let mut links: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
        for entry in self.pea.entries() {
            if let (EntryKind::Symlink { target }, path) = (&entry.kind, Path::new(&entry.path))
                && let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            {
                links.entry(parent).or_default().extend(link_mark(name.as_encoded_bytes(), target.as_bytes()));
            }
        }
        for dir in dirs {
            let mut mark = b"d1".to_vec();
            mark.extend(links.get(dir.as_path()).into_iter().flatten());
            let _ = self.volume.set_mark(&self.staged.at(dir), &mark);
        }
    }

    /// Whether an earlier installation put this here and nobody has changed it since. A directory: whether an installation made it.
    pub(super) fn is_marked(&self, path: &Path, kind: Kind) -> bool {
        let mark = |path: &Path| self.volume.mark(path).ok().flatten();
        match kind {
            Kind::File => self.volume.stat(path).is_ok_and(|stat| mark(path) == Some(file_mark(&stat))),
            Kind::Directory => mark(path).is_some_and(|mark| mark.starts_with(b"d1")),
            Kind::Symlink => {
                let (Some(parent), Some(name), Ok(target)) = (path.parent(), path.file_name(), self.volume.read_link(path)) else {
                    return false;
                };
                let link = link_mark(name.as_encoded_bytes(), target.as_encoded_bytes());
                mark(parent).is_some_and(|mark| mark.get(2..).is_some_and(|links| links.chunks_exact(LINK_BYTES).any(|one| one == link)))
            }
            Kind::Other => false,
        }
    }
}
