//! The BLAKE3 tree of a content.
//!
//! A content is one byte string under one BLAKE3 tree. A piece is a whole subtree of it and so is a block, so their values are
//! nodes of BLAKE3's own tree and the root of a single file is what `b3sum` prints. What always holds: the node that is the root
//! of the whole tree is finalized as a root (BLAKE3 flags it), every other one is not; that matters for contents of one piece or
//! one block, and is decided in this room alone. This is the only room that names `blake3::hazmat`. It knows neither disks nor
//! messages, keeps no state between calls and allocates nothing that grows with the content.

mod proof;

#[cfg(test)]
mod oracle;

pub use proof::{SpanProof, SpanVerifier};

use crate::unit::{BLOCK_BYTES, Geometry, PieceIdx};
use blake3::Hasher;
use blake3::hazmat::{self, HasherExt, Mode};

/// A chaining value, or the root hash where the node is the root.
pub type Cv = [u8; 32];

/// Bytes that are not the content's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {block} is not what the tree says")]
pub struct Corrupt {
    /// The block, counted from the start of its piece; the first of the span when the proof itself is wrong.
    pub block: u16,
}

/// Node of the tree that covers the piece: its chaining value, or the root hash if the content has only this piece.
///
/// `bytes` are the whole piece: any other length is the caller's bug and panics.
pub fn piece_cv(geometry: &Geometry, piece: PieceIdx, bytes: &[u8]) -> Cv {
    let mut hasher = PieceHasher::new(geometry, piece);
    hasher.update(bytes);
    hasher.finish()
}

/// Chaining value of each block of the piece, in order. `bytes` are the whole piece, else panics.
pub fn block_cvs(geometry: &Geometry, piece: PieceIdx, bytes: &[u8]) -> Vec<Cv> {
    assert_eq!(bytes.len(), geometry.len_of(piece) as usize, "these are not the bytes of one whole piece");
    bytes.chunks(BLOCK_BYTES as usize).enumerate().map(|(block, bytes)| block_cv(geometry, piece, block as u16, bytes)).collect()
}

/// The piece's value from the values of all its blocks, for who needs both: one pass over the bytes instead of two.
pub fn piece_cv_from_blocks(geometry: &Geometry, piece: PieceIdx, block_cvs: &[Cv]) -> Cv {
    assert_eq!(block_cvs.len(), usize::from(geometry.blocks_of(piece)), "one value for each block of the piece");
    fold(block_cvs, is_root(geometry))
}

/// Root of the content from all piece values. Equals `b3sum` of the concatenated content; of nothing: the hash of nothing.
pub fn root(geometry: &Geometry, piece_cvs: &[Cv]) -> Cv {
    assert_eq!(piece_cvs.len(), geometry.piece_count() as usize, "one value for each piece");
    if piece_cvs.is_empty() { *blake3::hash(&[]).as_bytes() } else { fold(piece_cvs, true) }
}

/// Hashes a piece while its bytes pass by.
#[derive(Clone, Debug)]
pub struct PieceHasher {
    hasher: Hasher,
    is_root: bool,
    piece_bytes: u64,
}

impl PieceHasher {
    /// Nothing passed by yet.
    pub fn new(geometry: &Geometry, piece: PieceIdx) -> Self {
        let range = geometry.bytes_of(piece);
        Self { hasher: at(range.start), is_root: is_root(geometry), piece_bytes: range.end - range.start }
    }

    /// The next bytes of the piece, any number of them. More than the piece has: panics.
    pub fn update(&mut self, bytes: &[u8]) {
        assert!(self.hasher.count() + bytes.len() as u64 <= self.piece_bytes, "more bytes than the piece has");
        self.hasher.update(bytes);
    }

    /// The piece's value. Panics if bytes of the piece are missing.
    pub fn finish(self) -> Cv {
        assert_eq!(self.hasher.count(), self.piece_bytes, "these are not the bytes of one whole piece");
        finish(&self.hasher, self.is_root)
    }
}

/// Hashes one file of the content while its bytes pass by: the value in its entry, what `b3sum` prints for it.
#[derive(Clone, Debug, Default)]
pub struct FileHasher(Hasher);

impl FileHasher {
    /// Nothing passed by yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// How many bytes passed by.
    pub fn byte_count(&self) -> u64 {
        self.0.count()
    }

    /// The file's hash.
    pub fn finish(self) -> Cv {
        *self.0.finalize().as_bytes()
    }
}

/// Hash of a whole file at hand: what [`FileHasher`] gives for it.
pub fn file_hash(bytes: &[u8]) -> Cv {
    *blake3::hash(bytes).as_bytes()
}

/// Value of one block. Its bytes are all of the block's.
fn block_cv(geometry: &Geometry, piece: PieceIdx, block: u16, bytes: &[u8]) -> Cv {
    let mut hasher = at(geometry.bytes_of(piece).start + u64::from(block) * u64::from(BLOCK_BYTES));
    hasher.update(bytes);
    finish(&hasher, is_root(geometry) && geometry.blocks_of(piece) == 1)
}

/// Whether a piece's node is the root: it is if there is no other piece.
const fn is_root(geometry: &Geometry) -> bool {
    geometry.piece_count() == 1
}

fn at(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

fn finish(hasher: &Hasher, is_root: bool) -> Cv {
    if is_root { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() }
}

/// The node over these neighbouring nodes, of which all but the last cover the same power of two of bytes. A single one is
/// taken as it is: whoever made it knew whether it is the root.
fn fold(cvs: &[Cv], is_root: bool) -> Cv {
    match cvs {
        [] => unreachable!("callers pass at least one node"),
        [only] => *only,
        _ => {
            let (left, right) = cvs.split_at(left_count(cvs.len()));
            join(&fold(left, false), &fold(right, false), is_root)
        }
    }
}

fn join(left: &Cv, right: &Cv, is_root: bool) -> Cv {
    if is_root {
        *hazmat::merge_subtrees_root(left, right, Mode::Hash).as_bytes()
    } else {
        hazmat::merge_subtrees_non_root(left, right, Mode::Hash)
    }
}

/// How many of `count` nodes (at least two) are under the left child: the largest power of two less than `count`. BLAKE3's rule
/// for bytes, which gives the same split here because all nodes but the last are full.
const fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::PIECE_BYTES_MIN;

    /// Every size at one byte around each border of leaf and block, and so of piece, and some in between.
    pub(super) fn sizes() -> Vec<u64> {
        let (leaf, block) = (1024, u64::from(BLOCK_BYTES));
        let edges = [0, leaf, 2 * leaf, 3 * leaf].into_iter().chain((1..=13).map(|at| at * block));
        let mut sizes: Vec<u64> = edges.flat_map(|edge: u64| edge.saturating_sub(1)..=edge + 1).collect();
        sizes.extend([500, 5000, 40_000, 6 * block + 5 * leaf + 7, 5 * block + leaf]);
        sizes.sort();
        sizes.dedup();
        sizes
    }

    /// A cycle of 251 bytes: no two blocks are equal.
    pub(super) fn content(bytes: u64) -> Vec<u8> {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    pub(super) fn piece_of<'a>(geometry: &Geometry, piece: PieceIdx, content: &'a [u8]) -> &'a [u8] {
        let range = geometry.bytes_of(piece);
        &content[range.start as usize..range.end as usize]
    }

    #[test]
    fn nodes_are_those_of_the_slow_tree() {
        for size in sizes() {
            let content = content(size);
            for piece_bytes in [PIECE_BYTES_MIN, 2 * PIECE_BYTES_MIN, 4 * PIECE_BYTES_MIN] {
                let geometry = Geometry::new(size, piece_bytes).unwrap();
                let mut cvs = Vec::new();
                for piece in geometry.pieces() {
                    let bytes = piece_of(&geometry, piece, &content);
                    let cv = piece_cv(&geometry, piece, bytes);
                    let range = geometry.bytes_of(piece);
                    assert_eq!(cv, oracle::node(&content, range.start, range.end), "piece {piece} of {size}");
                    let blocks = block_cvs(&geometry, piece, bytes);
                    for (block, cv) in blocks.iter().enumerate() {
                        let span = geometry.bytes_in_piece(geometry.span(piece, block as u16, 1).unwrap());
                        let (start, end) = (range.start + u64::from(span.start), range.start + u64::from(span.end));
                        assert_eq!(*cv, oracle::node(&content, start, end), "block {block} of piece {piece} of {size}");
                    }
                    assert_eq!(cv, piece_cv_from_blocks(&geometry, piece, &blocks), "piece {piece} of {size} by its blocks");
                    cvs.push(cv);
                }
                let root = root(&geometry, &cvs);
                assert_eq!(root, oracle::node(&content, 0, size), "root of {size}");
                assert_eq!(root, *blake3::hash(&content).as_bytes(), "b3sum of {size}");
                assert_eq!(root, file_hash(&content));
            }
        }
    }

    #[test]
    fn bytes_may_pass_by_in_any_portions() {
        let content = content(200_000);
        let geometry = Geometry::new(200_000, PIECE_BYTES_MIN).unwrap();
        let mut file = FileHasher::new();
        for piece in geometry.pieces() {
            let bytes = piece_of(&geometry, piece, &content);
            let mut hasher = PieceHasher::new(&geometry, piece);
            for portion in bytes.chunks(1000 + piece.at() * 333) {
                hasher.update(portion);
                file.update(portion);
            }
            assert_eq!(hasher.finish(), piece_cv(&geometry, piece, bytes));
        }
        assert_eq!(file.byte_count(), 200_000);
        assert_eq!(file.finish(), *blake3::hash(&content).as_bytes());
    }

    #[test]
    fn every_piece_count_up_to_a_hundred_gives_the_root_of_the_slow_tree() {
        let bytes = content(100 * u64::from(PIECE_BYTES_MIN));
        for piece_count in 1..=100u64 {
            let size = piece_count * u64::from(PIECE_BYTES_MIN) - piece_count * 7 % 60_000;
            let content = &bytes[..size as usize];
            let geometry = Geometry::new(size, PIECE_BYTES_MIN).unwrap();
            let cvs: Vec<Cv> = geometry.pieces().map(|piece| piece_cv(&geometry, piece, piece_of(&geometry, piece, content))).collect();
            assert_eq!(root(&geometry, &cvs), *blake3::hash(content).as_bytes(), "{piece_count} pieces");
        }
    }

    #[test]
    fn equal_pieces_at_different_places_have_different_values() {
        let geometry = Geometry::new(2 * u64::from(PIECE_BYTES_MIN), PIECE_BYTES_MIN).unwrap();
        let bytes = vec![0; PIECE_BYTES_MIN as usize];
        let cvs: Vec<Cv> = geometry.pieces().map(|piece| piece_cv(&geometry, piece, &bytes)).collect();
        assert_ne!(cvs[0], cvs[1], "a piece could be passed off as another");
    }
}
