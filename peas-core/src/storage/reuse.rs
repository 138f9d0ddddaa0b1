//! Old bytes that may be the new content's: files of an older version under the same name, or moved elsewhere unchanged.
//!
//! Only guesses where to look are made here; every piece is hashed before it is taken.

use super::files::Tree;
use super::volume::{Access, Kind, Stat};
use crate::Error;
use crate::manifest::{EntryKind, TrustedManifest};
use std::collections::HashMap;
use std::path::PathBuf;

/// Files of one size that are hashed in search of a moved one: more are not worth the reading.
const CANDIDATES_MAX: usize = 4;
/// Names looked at in the old tree.
const NAMES_MAX: usize = 1_000_000;

/// The old tree, with files that are found whole under another name.
pub(super) fn source(
    pea: &TrustedManifest,
    target: &Tree,
    stats: &[Option<Stat>],
    on_bytes: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<Tree, Error> {
    let mut source = Tree::new(target.volume.clone(), target.base.clone(), target.map.clone());
    if pea.is_single_file() {
        return Ok(source);
    }
    let hashes: Vec<&crate::hash::Cv> =
        pea.entries().iter().filter_map(|entry| if let EntryKind::File { hash, .. } = &entry.kind { Some(hash) } else { None }).collect();
    // Small files are cheaper to fetch than to look for.
    let lost: Vec<usize> = (0..target.map.files.len())
        .filter(|&file| {
            let bytes = target.map.files[file].bytes;
            bytes >= 64 << 10 && stats[file].is_none_or(|stat| stat.bytes != bytes)
        })
        .collect();
    if lost.is_empty() {
        return Ok(source);
    }
    let mut by_size: HashMap<u64, Vec<PathBuf>> = HashMap::new();
    for &file in &lost {
        by_size.entry(target.map.files[file].bytes).or_default();
    }
    let (mut dirs, mut names) = (vec![target.base.clone()], 0);
    while let Some(dir) = dirs.pop() {
        for (name, kind) in target.volume.list(&dir).unwrap_or_default() {
            names += 1;
            let path = dir.join(name);
            match kind {
                Kind::Directory if names < NAMES_MAX => dirs.push(path),
                Kind::File => {
                    let Ok(stat) = target.volume.stat(&path) else { continue };
                    if let Some(found) = by_size.get_mut(&stat.bytes).filter(|found| found.len() < CANDIDATES_MAX) {
                        found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    let mut known: HashMap<PathBuf, [u8; 32]> = HashMap::new();
    for file in lost {
        for path in &by_size[&target.map.files[file].bytes] {
            if !on_bytes(0, pea.geometry().total_bytes()) {
                return Err(Error::Cancelled);
            }
            let Some(hash) = known.get(path).copied().or_else(|| hash_file(target, path)) else { continue };
            known.insert(path.clone(), hash);
            if hash == *hashes[file] {
                source.elsewhere.insert(file, path.clone());
                break;
            }
        }
    }
    Ok(source)
}

fn hash_file(tree: &Tree, path: &std::path::Path) -> Option<[u8; 32]> {
    let file = tree.volume.open(path, Access::Read).ok()?;
    let (mut hasher, mut buf, mut at) = (blake3::Hasher::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read_at(&mut buf, at).ok()? {
            0 => return Some(*hasher.finalize().as_bytes()),
            count => {
                hasher.update(&buf[..count]);
                at += count as u64;
            }
        }
    }
}
