//! What travels between peers, apart from payload.
//!
//! Control messages, frames and the one codec. Numbers here are raw: they become indices only through
//! [`Geometry`](crate::unit::Geometry). Every length is capped before anything is allocated.

pub mod codec;
mod error;
pub mod frame;
mod message;

pub use error::WireError;
pub use message::{
    Address, Hello, MEMBERS_MAX, MemberRecord, Message, PROOF_BYTES_MAX, REFUSE_BUSY, REFUSE_NOT_HELD, REQUEST_BLOCKS_MAX, RUNS_MAX,
};
