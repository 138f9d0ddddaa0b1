//! Contents for tests: small files, a large one, an empty one, a link, an empty directory.

use super::faulty::FaultyVolume;
use super::open::{Found, Opening};
use super::pool::PieceBuf;
use super::store::Store;
use crate::Error;
use crate::hash;
use crate::manifest::{Builder, EntryKind, FileEntry, Manifest, Trust, TrustContext, TrustedManifest};
use crate::unit::{Geometry, PieceIdx};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) struct Fixture {
    pub pea: Arc<TrustedManifest>,
    pub bytes: Vec<u8>,
}

/// Pieces of the contents here.
const PIECE_BYTES: u32 = 64 * 1024;

/// Bytes that differ everywhere.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn finish(single_file: bool, entries: Vec<FileEntry>, bytes: Vec<u8>) -> Fixture {
    let geometry = Geometry::new(bytes.len() as u64, PIECE_BYTES).expect("small");
    let piece_cvs = geometry
        .pieces()
        .map(|piece| {
            let range = geometry.bytes_of(piece);
            hash::piece_cv(&geometry, piece, &bytes[range.start as usize..range.end as usize])
        })
        .collect();
    let builder = Builder { single_file, ..Builder::new("fixture", geometry, entries, piece_cvs) };
    let file = builder.build(&[]).expect("a right pea");
    let pea = Manifest::decode(&file).and_then(|pea| pea.trust(&Trust::File, &TrustContext::default())).expect("a right pea");
    Fixture { pea: Arc::new(pea), bytes }
}

/// A folder of these files.
pub(crate) fn folder(files: &[(&str, Vec<u8>)], more: &[(&str, EntryKind)]) -> Fixture {
    let mut entries: Vec<(String, EntryKind, &[u8])> = files
        .iter()
        .map(|(path, data)| {
            let kind = EntryKind::File { offset: 0, bytes: data.len() as u64, executable: false, hash: *blake3::hash(data).as_bytes() };
            (path.to_string(), kind, &data[..])
        })
        .chain(more.iter().map(|(path, kind)| (path.to_string(), kind.clone(), &[][..])))
        .collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let mut bytes = Vec::new();
    let entries = entries
        .into_iter()
        .map(|(path, mut kind, data)| {
            if let EntryKind::File { offset, .. } = &mut kind {
                *offset = bytes.len() as u64;
                bytes.extend(data);
            }
            FileEntry { path, kind }
        })
        .collect();
    finish(false, entries, bytes)
}

/// Five pieces in a handful of files.
pub(crate) fn mixed(seed: u64) -> Fixture {
    folder(
        &[
            ("a/one", noise(seed, 30_000)),
            ("a/two", noise(seed + 1, 50_000)),
            ("big", noise(seed + 2, 200_000)),
            ("empty", vec![]),
            ("z/deep/last", noise(seed + 3, 100)),
        ],
        &[("hollow", EntryKind::Directory), ("link", EntryKind::Symlink { target: "a/one".into() })],
    )
}

/// Four pieces, and one of each kind of entry: as few calls as an installation can have.
pub(crate) fn small(seed: u64) -> Fixture {
    folder(&[("a/one", noise(seed, 3_000)), ("big", noise(seed + 2, 200_000))], &[("link", EntryKind::Symlink { target: "a/one".into() })])
}

/// A single file of four pieces.
pub(crate) fn single(seed: u64) -> Fixture {
    let bytes = noise(seed, 3 * PIECE_BYTES as usize + 100);
    let hash = *blake3::hash(&bytes).as_bytes();
    let kind = EntryKind::File { offset: 0, bytes: bytes.len() as u64, executable: false, hash };
    finish(true, vec![FileEntry { path: "file.bin".into(), kind }], bytes)
}

impl Fixture {
    pub fn pieces(&self) -> Vec<PieceIdx> {
        self.pea.geometry().pieces().collect()
    }

    pub fn piece(&self, piece: PieceIdx) -> &[u8] {
        let range = self.pea.geometry().bytes_of(piece);
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// A buffer with the right bytes.
    pub fn filled(&self, store: &Store, piece: PieceIdx) -> PieceBuf {
        let mut buf = store.buffer(piece);
        buf.copy_from_slice(self.piece(piece));
        buf
    }

    pub fn open(&self, volume: &FaultyVolume) -> Result<Found, Error> {
        self.opening(volume).install()
    }

    pub fn opening(&self, volume: &FaultyVolume) -> Opening<'static> {
        Opening {
            pea: self.pea.clone(),
            volume: Arc::new(volume.clone()),
            root: PathBuf::from("/fake"),
            name: PathBuf::from("dest"),
            pooled_bytes_max: 1 << 20,
            hashers: 1,
            on_bytes: &|_, _| true,
        }
    }

    /// What the file of the content at this position is called on the volume, and its bytes.
    pub fn files(&self) -> Vec<(PathBuf, &[u8])> {
        let map = super::store::map_of(&self.pea);
        let at = |path: &PathBuf| if path.as_os_str().is_empty() { PathBuf::from("dest") } else { PathBuf::from("dest").join(path) };
        map.files.iter().map(|file| (at(&file.path), &self.bytes[file.offset as usize..(file.offset + file.bytes) as usize])).collect()
    }

    /// Whether the whole content is under its final name.
    pub fn is_installed(&self, volume: &FaultyVolume) -> bool {
        self.files().iter().all(|(path, bytes)| volume.bytes_at(path).as_deref() == Some(*bytes))
    }
}
