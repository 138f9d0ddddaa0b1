//! Numbers with meaning.
//!
//! Positions, sizes, identities and times that cannot be mixed up. Everything here is plain arithmetic: this room imports no
//! other room, no clock and no operating system. A number that came from a stranger becomes an index only through
//! [`Geometry`]; nothing here derives a deserializer that would let one in by another door.

mod geometry;
mod ids;
mod rng;
mod set;
mod time;

pub use geometry::{BLOCK_BYTES, Geometry, GeometryError, PIECE_BYTES_MAX, PIECE_BYTES_MIN, PIECES_MAX};
pub use ids::{BlockSpan, PeaId, PeerId, PieceIdx, RequestId};
pub use rng::Rng;
pub use set::{PieceSet, Run, pieces_of_runs};
pub use time::{Span, Time};
