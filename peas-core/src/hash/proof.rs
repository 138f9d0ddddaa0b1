//! Proofs that blocks belong to a piece.
//!
//! A proof is the list of nodes that a depth-first walk of the piece's subtree meets first outside the span, or at the bottom of
//! it. The list has no structure of its own: sender and receiver both derive the walk from geometry and span, so a proof has
//! exactly one right length and nothing in it can lead the receiver anywhere. Depth is at most 10 (1,024 blocks).

use super::{Corrupt, Cv, block_cv, fold, is_root, join, left_count};
use crate::unit::{BlockSpan, Geometry};
use std::ops::Range;

/// What proves a span of a piece against the piece's value: the nodes of a depth-first walk that stops at nodes outside the
/// span and at blocks. At most count + 2 log2(blocks) nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanProof {
    /// In the order of the walk.
    pub nodes: Vec<Cv>,
}

impl SpanProof {
    /// From the block values of the whole piece.
    pub fn new(geometry: &Geometry, span: BlockSpan, block_cvs: &[Cv]) -> Self {
        assert_eq!(block_cvs.len(), usize::from(geometry.blocks_of(span.piece())), "one value for each block of the piece");
        let mut nodes = Vec::with_capacity(Self::node_count(geometry, span));
        walk(0..block_cvs.len(), span, &mut |range| nodes.push(fold(&block_cvs[range], false)));
        Self { nodes }
    }

    /// How many nodes the proof of this span has: what to expect on the wire.
    pub fn node_count(geometry: &Geometry, span: BlockSpan) -> usize {
        let mut count = 0;
        walk(0..usize::from(geometry.blocks_of(span.piece())), span, &mut |_| count += 1);
        count
    }
}

/// Checks blocks of a span one by one, in any order.
#[derive(Clone, Debug)]
pub struct SpanVerifier {
    geometry: Geometry,
    span: BlockSpan,
    /// Of the blocks of the span, proven.
    cvs: Vec<Cv>,
}

impl SpanVerifier {
    /// Checks the proof itself against the piece's value. What is wrong here is blamed on the first block of the span.
    pub fn new(geometry: &Geometry, span: BlockSpan, proof: &SpanProof, piece_cv: &Cv) -> Result<Self, Corrupt> {
        let corrupt = Corrupt { block: span.first() };
        if proof.nodes.len() != SpanProof::node_count(geometry, span) {
            return Err(corrupt);
        }
        let mut rest = proof.nodes.iter();
        let mut cvs = Vec::with_capacity(span.count().into());
        let top = rebuild(0..usize::from(geometry.blocks_of(span.piece())), span, is_root(geometry), &mut rest, &mut cvs);
        if top == Some(*piece_cv) { Ok(Self { geometry: *geometry, span, cvs }) } else { Err(corrupt) }
    }

    /// Checks one block (position inside the piece).
    pub fn block(&self, block: u16, bytes: &[u8]) -> Result<(), Corrupt> {
        let corrupt = Corrupt { block };
        let proven = block.checked_sub(self.span.first()).and_then(|at| self.cvs.get(usize::from(at))).ok_or(corrupt)?;
        let one = self.geometry.span(self.span.piece(), block, 1).ok_or(corrupt)?;
        let right =
            bytes.len() == self.geometry.len_of_span(one) as usize && block_cv(&self.geometry, self.span.piece(), block, bytes) == *proven;
        if right { Ok(()) } else { Err(corrupt) }
    }

    /// The span whose blocks can be checked.
    pub const fn span(&self) -> BlockSpan {
        self.span
    }
}

/// Whether the walk goes no deeper than this node.
fn stops(node: &Range<usize>, span: BlockSpan) -> bool {
    node.len() == 1 || is_outside(node, span)
}

fn is_outside(node: &Range<usize>, span: BlockSpan) -> bool {
    node.end <= usize::from(span.first()) || node.start >= usize::from(span.end())
}

fn halves(node: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = node.start + left_count(node.len());
    (node.start..middle, middle..node.end)
}

/// Visits the nodes of a proof in order, each as the blocks that it covers.
fn walk(node: Range<usize>, span: BlockSpan, visit: &mut impl FnMut(Range<usize>)) {
    if stops(&node, span) {
        return visit(node);
    }
    let (left, right) = halves(&node);
    walk(left, span, visit);
    walk(right, span, visit);
}

/// The same walk, taking the nodes from a proof: gives the node at the top and collects the values of the span's blocks.
fn rebuild<'a>(
    node: Range<usize>,
    span: BlockSpan,
    is_root: bool,
    rest: &mut impl Iterator<Item = &'a Cv>,
    found: &mut Vec<Cv>,
) -> Option<Cv> {
    if stops(&node, span) {
        let cv = *rest.next()?;
        if !is_outside(&node, span) {
            found.push(cv);
        }
        return Some(cv);
    }
    let (left, right) = halves(&node);
    let left = rebuild(left, span, false, rest, found)?;
    let right = rebuild(right, span, false, rest, found)?;
    Some(join(&left, &right, is_root))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{content, piece_of, sizes};
    use super::*;
    use crate::hash::{block_cvs, piece_cv};
    use crate::unit::{BLOCK_BYTES, PIECE_BYTES_MIN};
    use proptest::prelude::*;

    /// All spans of a piece, each block checked, right and with one bit flipped.
    fn check_all_spans(geometry: &Geometry, content: &[u8]) {
        for piece in geometry.pieces() {
            let bytes = piece_of(geometry, piece, content);
            let (cvs, top) = (block_cvs(geometry, piece, bytes), piece_cv(geometry, piece, bytes));
            for first in 0..geometry.blocks_of(piece) {
                for count in 1..=geometry.blocks_of(piece) - first {
                    check_span(geometry, geometry.span(piece, first, count).unwrap(), bytes, &cvs, &top);
                }
            }
        }
    }

    fn check_span(geometry: &Geometry, span: BlockSpan, bytes: &[u8], cvs: &[Cv], top: &Cv) {
        let proof = SpanProof::new(geometry, span, cvs);
        let blocks = f64::from(geometry.blocks_of(span.piece()));
        assert!(proof.nodes.len() as f64 <= f64::from(span.count()) + 2.0 * blocks.log2().ceil(), "{span:?}");
        let verifier = SpanVerifier::new(geometry, span, &proof, top).expect("an honest proof");
        for (block, bytes) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            let block = block as u16;
            let inside = (span.first()..span.end()).contains(&block);
            assert_eq!(verifier.block(block, bytes), if inside { Ok(()) } else { Err(Corrupt { block }) }, "{span:?}");
            let mut bad = bytes.to_vec();
            bad[(usize::from(block) * 97) % bytes.len()] ^= 1 << (block % 8);
            assert_eq!(verifier.block(block, &bad), Err(Corrupt { block }), "{span:?}");
            assert_eq!(verifier.block(block, &bytes[1..]), Err(Corrupt { block }), "{span:?}");
        }
    }

    #[test]
    fn every_span_of_small_contents_is_proven_and_every_flip_is_found() {
        for size in sizes() {
            for piece_bytes in [PIECE_BYTES_MIN, 2 * PIECE_BYTES_MIN, 4 * PIECE_BYTES_MIN] {
                check_all_spans(&Geometry::new(size, piece_bytes).unwrap(), &content(size));
            }
        }
    }

    #[test]
    fn a_wrong_proof_proves_nothing() {
        let size = 12 * u64::from(PIECE_BYTES_MIN) + 40_000;
        let (geometry, content) = (Geometry::new(size, 16 * PIECE_BYTES_MIN).unwrap(), content(size));
        let piece = geometry.piece(0).unwrap();
        let (cvs, top) = (block_cvs(&geometry, piece, &content), piece_cv(&geometry, piece, &content));
        for (first, count) in [(0, 1), (3, 5), (14, 1), (0, 15), (7, 2)] {
            let span = geometry.span(piece, first, count).unwrap();
            let good = SpanProof::new(&geometry, span, &cvs);
            assert!(SpanVerifier::new(&geometry, span, &good, &top).is_ok());
            let refused = |nodes: Vec<Cv>| {
                assert_eq!(SpanVerifier::new(&geometry, span, &SpanProof { nodes }, &top).unwrap_err(), Corrupt { block: first });
            };
            for at in 0..good.nodes.len() {
                let mut bad = good.nodes.clone();
                bad[at][at % 32] ^= 0x80;
                refused(bad);
                let mut short = good.nodes.clone();
                short.remove(at);
                refused(short);
            }
            refused([&good.nodes[..], &[top]].concat());
            refused(Vec::new());
            refused(vec![top]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn random_spans_of_large_pieces(size in 1u64..3_000_000, first in 0u16..64, count in 1u16..64, at in 0u32..1 << 20) {
            let (geometry, content) = (Geometry::new(size, 1 << 20).unwrap(), content(size));
            let piece = geometry.piece(at % geometry.piece_count()).unwrap();
            let first = first % geometry.blocks_of(piece);
            let span = geometry.span(piece, first, count.min(geometry.blocks_of(piece) - first)).unwrap();
            let bytes = piece_of(&geometry, piece, &content);
            check_span(&geometry, span, bytes, &block_cvs(&geometry, piece, bytes), &piece_cv(&geometry, piece, bytes));
        }
    }

    #[test]
    fn the_largest_proof_fits_a_frame() {
        let geometry = Geometry::new(1 << 25, 1 << 24).unwrap();
        let piece = geometry.piece(0).unwrap();
        let most = (0..1024).map(|first| SpanProof::node_count(&geometry, geometry.span(piece, first, 1024 - first).unwrap())).max();
        assert_eq!(most, Some(1024));
        let single = geometry.span(piece, 512, 1).unwrap();
        assert_eq!(SpanProof::node_count(&geometry, single), 11);
    }
}
