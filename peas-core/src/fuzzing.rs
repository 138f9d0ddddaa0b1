//! Doors for the fuzzers (`tests/fuzz`) to what strangers reach only through sockets and disks. Not part of the interface.

use crate::config::Scope;
use crate::engine::may_dial as filter;
use crate::storage::journal::{self, Record};
use crate::unit::{Geometry, PeaId, PieceSet};
use std::net::{IpAddr, SocketAddr};

/// Whether an address that somebody told of is dialled.
pub fn may_dial(scope: Scope, addr: SocketAddr, named: &[SocketAddr], ours: &[IpAddr]) -> bool {
    filter(scope, addr, named, ours)
}

/// The pieces that a journal proves; `None`: it is not this content's.
pub fn journal(bytes: &[u8], pea: PeaId, geometry: &Geometry) -> Option<PieceSet> {
    journal::parse(bytes, pea, geometry).map(|contents| contents.pieces)
}

/// The first record of a journal.
pub fn journal_start(pea: PeaId) -> Vec<u8> {
    let mut bytes = Vec::new();
    journal::encode(&Record::Start { pea, data_inode: 1 }, &mut bytes);
    bytes
}

/// A record of these bytes, with the length and the checksum that it should have.
pub fn journal_frame(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..], &crc32fast::hash(payload).to_le_bytes(), payload].concat()
}
