//! Identities and positions.

use std::fmt;

/// A piece of a content, by position. Made only by [`Geometry::piece`](super::Geometry::piece) and by iteration over a
/// [`PieceSet`](super::PieceSet), so holding one means that the piece exists in the content at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIdx(u32);

impl PieceIdx {
    pub(super) const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The position as it travels on the wire.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The position as an index into a table with one entry per piece.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A run of blocks inside one piece: what a request names. Made only by [`Geometry`](super::Geometry), so it lies inside its
/// piece and holds at least one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSpan {
    pub(super) piece: PieceIdx,
    pub(super) first: u16,
    pub(super) count: u16,
}

impl BlockSpan {
    /// The piece that the blocks belong to.
    pub const fn piece(self) -> PieceIdx {
        self.piece
    }

    /// First block, counted from the start of the piece.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many blocks, at least one.
    pub const fn count(self) -> u16 {
        self.count
    }

    /// One past the last block.
    pub const fn end(self) -> u16 {
        self.first + self.count
    }
}

/// A request for a span. Chosen by the asker, increasing, never reused on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A peer: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

/// A content: derived from its sizes, geometry, files and root. The name of a swarm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeaId(pub [u8; 32]);

/// Why a text is not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct NotHex;

macro_rules! hex_identity {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        /// The first eight digits: enough to tell one from another in a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                Ok(Self(bytes_from_hex(text)?))
            }
        }
    };
}
hex_identity!(PeerId);
hex_identity!(PeaId);

fn bytes_from_hex(text: &str) -> Result<[u8; 32], NotHex> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(NotHex);
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Ok(bytes)
}

fn hex_digit(digit: u8) -> Result<u8, NotHex> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(NotHex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_their_text() {
        let id = PeaId(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(65), &"é".repeat(32)] {
            assert_eq!(bad.parse::<PeaId>(), Err(NotHex), "{bad}");
        }
    }
}
