//! The arithmetic of a content: how bytes, blocks and pieces lie.

use super::{BlockSpan, PieceIdx};
use std::ops::Range;

/// Unit that a request names and a proof covers. 16 KiB: what the field requests by, and one TLS record.
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// Smallest piece: one block.
pub const PIECE_BYTES_MIN: u32 = BLOCK_BYTES;

/// Largest piece: 1,024 blocks, so that a block's position fits 16 bits and a piece fits in memory.
pub const PIECE_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Contents below this are cut into the smallest pieces: a piece can be passed on only when it is whole. 64 MiB: sixteen clients at 12.5 Mbit/s are whole
/// at 1.06 instead of 1.09 times the bound (48 MiB). Larger ones would not be described in a few pages, and each piece costs messages.
const SMALL_BYTES: u64 = 64 << 20;

/// Most pieces in a content: their hashes (4 MiB) travel inside the pea.
pub const PIECES_MAX: u32 = 131_072;

/// Sizes of a content. The only door from a number that a stranger sent to an index that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    total_bytes: u64,
    piece_bytes: u32,
}

/// Why sizes do not describe a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The piece size is no power of two, or outside the limits.
    #[error("piece size {0} is not a power of two from 16 KiB to 16 MiB")]
    PieceBytes(u32),
    /// More pieces than a pea may have.
    #[error("{total_bytes} bytes in pieces of {piece_bytes} would be more than {PIECES_MAX} pieces; use larger pieces")]
    TooManyPieces {
        /// Size of the content.
        total_bytes: u64,
        /// Size asked for.
        piece_bytes: u32,
    },
}

impl Geometry {
    /// Checks the sizes. An empty content is allowed and has no pieces.
    pub fn new(total_bytes: u64, piece_bytes: u32) -> Result<Self, GeometryError> {
        if !piece_bytes.is_power_of_two() || !(PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&piece_bytes) {
            return Err(GeometryError::PieceBytes(piece_bytes));
        }
        if total_bytes.div_ceil(piece_bytes.into()) > PIECES_MAX.into() {
            return Err(GeometryError::TooManyPieces { total_bytes, piece_bytes });
        }
        Ok(Self { total_bytes, piece_bytes })
    }

    /// The piece size for a content of this size when nobody chose one: 16 KiB below 64 MiB, then at least 1,024 pieces while
    /// pieces are below 1 MiB, then at most 16,384 pieces. More pieces pipeline better, fewer cost less to describe and to announce.
    pub fn piece_bytes_for(total_bytes: u64) -> u32 {
        if total_bytes < SMALL_BYTES {
            return PIECE_BYTES_MIN;
        }
        let mut piece_bytes = 2 * PIECE_BYTES_MIN;
        while piece_bytes < 1 << 20 && total_bytes >= u64::from(piece_bytes) * 2 * 1024 {
            piece_bytes *= 2;
        }
        while piece_bytes < PIECE_BYTES_MAX && total_bytes > u64::from(piece_bytes) * 16_384 {
            piece_bytes *= 2;
        }
        piece_bytes
    }

    /// Size of the content.
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Size of every piece but the last.
    pub const fn piece_bytes(&self) -> u32 {
        self.piece_bytes
    }

    /// How many pieces.
    pub const fn piece_count(&self) -> u32 {
        self.total_bytes.div_ceil(self.piece_bytes as u64) as u32
    }

    /// A wire number as an index, if the content has such a piece.
    pub fn piece(&self, raw: u32) -> Option<PieceIdx> {
        (raw < self.piece_count()).then(|| PieceIdx::new(raw))
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = PieceIdx> + ExactSizeIterator + use<> {
        (0..self.piece_count()).map(PieceIdx::new)
    }

    /// Where the piece lies in the content.
    pub fn bytes_of(&self, piece: PieceIdx) -> Range<u64> {
        let start = u64::from(piece.raw()) * u64::from(self.piece_bytes);
        start..(start + u64::from(self.piece_bytes)).min(self.total_bytes)
    }

    /// Size of the piece.
    pub fn len_of(&self, piece: PieceIdx) -> u32 {
        let range = self.bytes_of(piece);
        (range.end - range.start) as u32
    }

    /// How many blocks the piece has: at least 1, at most 1,024.
    pub fn blocks_of(&self, piece: PieceIdx) -> u16 {
        self.len_of(piece).div_ceil(BLOCK_BYTES) as u16
    }

    /// The whole piece as a span.
    pub fn whole(&self, piece: PieceIdx) -> BlockSpan {
        BlockSpan { piece, first: 0, count: self.blocks_of(piece) }
    }

    /// A span from wire numbers, if it holds at least one block and lies inside the piece.
    pub fn span(&self, piece: PieceIdx, first: u16, count: u16) -> Option<BlockSpan> {
        let end = first.checked_add(count)?;
        (count > 0 && end <= self.blocks_of(piece)).then_some(BlockSpan { piece, first, count })
    }

    /// Whether the span is a whole piece.
    pub fn is_whole(&self, span: BlockSpan) -> bool {
        span == self.whole(span.piece)
    }

    /// Where the span lies inside its piece, in bytes.
    pub fn bytes_in_piece(&self, span: BlockSpan) -> Range<u32> {
        let start = u32::from(span.first) * BLOCK_BYTES;
        start..(u32::from(span.end()) * BLOCK_BYTES).min(self.len_of(span.piece))
    }

    /// Size of the span.
    pub fn len_of_span(&self, span: BlockSpan) -> u32 {
        let range = self.bytes_in_piece(span);
        range.end - range.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_exactly_one_piece_and_block() {
        for piece_bytes in [PIECE_BYTES_MIN, PIECE_BYTES_MIN * 4] {
            for edge in [0, u64::from(BLOCK_BYTES), u64::from(piece_bytes), u64::from(piece_bytes) * 3] {
                for total in edge.saturating_sub(1)..=edge + 1 {
                    let geometry = Geometry::new(total, piece_bytes).unwrap();
                    let mut at = 0;
                    for piece in geometry.pieces() {
                        let range = geometry.bytes_of(piece);
                        assert_eq!(range.start, at);
                        let blocks: u32 =
                            (0..geometry.blocks_of(piece)).map(|block| geometry.len_of_span(geometry.span(piece, block, 1).unwrap())).sum();
                        assert_eq!(u64::from(blocks), range.end - range.start);
                        at = range.end;
                    }
                    assert_eq!(at, total);
                    assert_eq!(geometry.piece(geometry.piece_count()), None);
                }
            }
        }
    }

    #[test]
    fn spans_from_strangers_stay_inside() {
        let geometry = Geometry::new(200_000, 4 * PIECE_BYTES_MIN).unwrap();
        let last = geometry.piece(3).unwrap();
        assert_eq!(geometry.blocks_of(last), 1);
        assert!(geometry.span(last, 0, 1).is_some());
        for (first, count) in [(0, 0), (0, 2), (1, 1), (u16::MAX, 1), (1, u16::MAX)] {
            assert_eq!(geometry.span(last, first, count), None);
        }
    }

    #[test]
    fn chosen_piece_sizes() {
        let mib = 1 << 20;
        for (total, piece) in [
            (0, 16 << 10),
            (16 * mib, 16 << 10),
            (64 * mib - 1, 16 << 10),
            (64 * mib, 64 << 10),
            (512 * mib, 512 << 10),
            (1024 * mib, mib as u32),
            (16_384 * mib, mib as u32),
            (16_385 * mib, 2 << 20),
        ] {
            assert_eq!(Geometry::piece_bytes_for(total), piece, "{total}");
            assert!(Geometry::new(total, piece).is_ok());
        }
        assert!(Geometry::new(1 << 50, PIECE_BYTES_MAX).is_err());
        assert!(Geometry::new(1, 65_537).is_err());
    }
}
