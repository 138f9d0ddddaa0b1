//! Comparing what lies at a place with a pea. Nothing is changed.

use super::OnBytes;
use crate::Error;
use crate::hash;
use crate::manifest::{EntryKind, TrustedManifest};
use crate::storage::{Kind, Meter, Missing, RealVolume, Tree, Volume, each_piece, hashers, map_of, resolve};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most bad files that are named.
const BAD_FILES_MAX: usize = 1_000;

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Pieces that are right.
    pub pieces_good: u32,
    /// Pieces that are wrong or missing.
    pub pieces_bad: u32,
    /// Relative paths of files that are missing or contain bad pieces, at most 1,000. (A wrong size, a missing directory and a
    /// link that leads elsewhere are named, too.)
    pub bad_files: Vec<String>,
}

/// Hashes what lies at `place` against the pea, changes nothing. Blocking. Errors: `Storage` when there is nothing at all, or when the
/// place cannot be examined; `Cancelled` when `on_bytes` said so.
pub fn verify(pea: &TrustedManifest, place: &Path, on_bytes: OnBytes<'_>) -> Result<Verified, Error> {
    let (root, name) = resolve(place, Missing::Fail)?;
    let failure = |source| Error::Storage { op: "examine", path: place.to_path_buf(), source };
    let volume: Arc<dyn Volume> = Arc::new(RealVolume::open(&root).map_err(failure)?);
    let map = map_of(pea);
    let tree = Tree::new(volume.clone(), name, map.clone());
    let files: Vec<(&str, &hash::Cv)> = pea
        .entries()
        .iter()
        .filter_map(|entry| if let EntryKind::File { hash, .. } = &entry.kind { Some((entry.path.as_str(), hash)) } else { None })
        .collect();
    let stats = tree.stats().map_err(failure)?;
    let wrong_size = |file: usize| stats[file].is_none_or(|stat| stat.bytes != map.files[file].bytes);
    let bad: Mutex<BTreeSet<&str>> = Mutex::new((0..files.len()).filter(|&file| wrong_size(file)).map(|file| files[file].0).collect());

    let geometry = pea.geometry();
    let (good_count, meter) = (AtomicU32::new(0), Meter::new(geometry.total_bytes(), on_bytes));
    let pieces: Vec<_> = geometry.pieces().collect();
    each_piece(hashers(), geometry, &pieces, |piece, buf| {
        let range = geometry.bytes_of(piece);
        let read = tree.read(range.clone(), buf).is_ok();
        if read && hash::piece_cv(geometry, piece, buf) == *pea.piece_cv(piece) {
            good_count.fetch_add(1, Ordering::Relaxed);
        } else {
            for segment in tree.map.segments(range.clone()) {
                let (start, len) = (map.files[segment.file].offset, map.files[segment.file].bytes);
                // A small file beside a bad one in the same piece may be right, also if it goes on in the next one.
                if len <= buf.len() as u64 && !wrong_size(segment.file) {
                    let bytes = &mut buf[..len as usize];
                    let read = tree.read(start..start + len, bytes).is_ok();
                    if read && blake3::hash(bytes).as_bytes() == files[segment.file].1 {
                        continue;
                    }
                }
                bad.lock().unwrap_or_else(PoisonError::into_inner).insert(files[segment.file].0);
            }
        }
        meter.add(u64::from(geometry.len_of(piece)))
    })?;

    let mut bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    for entry in pea.entries() {
        let path = tree.at(Path::new(&entry.path));
        let right = match &entry.kind {
            EntryKind::File { .. } => true,
            EntryKind::Directory => volume.stat(&path).is_ok_and(|stat| stat.kind == Kind::Directory),
            EntryKind::Symlink { target } => volume.read_link(&path).is_ok_and(|found| found == target.as_str()),
        };
        if !right {
            bad.insert(&entry.path);
        }
    }
    let pieces_good = good_count.into_inner();
    let bad_files = bad.into_iter().take(BAD_FILES_MAX).map(str::to_string).collect();
    Ok(Verified { pieces_good, pieces_bad: geometry.piece_count() - pieces_good, bad_files })
}
