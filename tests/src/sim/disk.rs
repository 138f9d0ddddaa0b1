//! A pretended disk: what is committed, what of a piece is in memory and verified, and how long hashing and writing take.
//!
//! The journal survives a crash; blocks of unfinished pieces do not. Pieces are hashed and written one after the other.

use super::event::{HalfRef, MS, Ns};
use peas_core::unit::{BLOCK_BYTES, BlockSpan, Geometry, PieceIdx, PieceSet};
use std::collections::{BTreeMap, VecDeque};

/// Cost of one job whatever its size: queue, syscall, journal line.
const STORE_FIXED: Ns = MS / 5;

/// Something received that is to be checked and perhaps written.
#[derive(Debug)]
pub(super) struct Write {
    pub link: HalfRef,
    pub req: u64,
    pub span: BlockSpan,
    pub corrupt: bool,
}

/// One node's disk.
#[derive(Debug)]
pub(super) struct Disk {
    /// Pieces whose commit is on the platter.
    pub journal: PieceSet,
    /// Pieces whose bytes have rotted while the journal still lists them.
    pub rotten: Vec<PieceIdx>,
    /// Verified blocks of unfinished pieces.
    partial: BTreeMap<u32, Vec<u64>>,
    /// Jobs in order.
    pub writes: VecDeque<Write>,
    free_at: Ns,
    bytes_per_s: f64,
    /// How many times slower than a good disk it is now.
    pub slowness: f64,
    /// Until when it takes nothing.
    pub full_until: Ns,
}

impl Disk {
    /// A disk that hashes and writes this fast.
    pub fn new(journal: PieceSet, bytes_per_s: f64) -> Self {
        Self {
            journal,
            rotten: Vec::new(),
            partial: BTreeMap::new(),
            writes: VecDeque::new(),
            free_at: 0,
            bytes_per_s,
            slowness: 1.0,
            full_until: 0,
        }
    }

    /// What a crash leaves.
    pub fn crash(&mut self) {
        self.partial.clear();
        self.writes.clear();
        self.free_at = 0;
    }

    /// Puts a job in the queue and says when it will be done.
    pub fn enqueue(&mut self, now: Ns, bytes: u32, write: Write) -> Ns {
        self.writes.push_back(write);
        let cost = STORE_FIXED as f64 + f64::from(bytes) / self.bytes_per_s * 1e9;
        self.free_at = self.free_at.max(now) + (cost * self.slowness) as Ns;
        self.free_at
    }

    /// Marks blocks as verified; says whether the piece is whole now.
    pub fn verify(&mut self, geometry: &Geometry, span: BlockSpan) -> bool {
        if geometry.is_whole(span) {
            return true;
        }
        let blocks = geometry.blocks_of(span.piece());
        let bits = self.partial.entry(span.piece().raw()).or_insert_with(|| vec![0; usize::from(blocks).div_ceil(64)]);
        for block in span.first()..span.end() {
            bits[usize::from(block) / 64] |= 1 << (block % 64);
        }
        bits.iter().map(|word| word.count_ones()).sum::<u32>() == u32::from(blocks)
    }

    /// Keeps the blocks of a fetch that was cut short: those of a span below a piece were verified as they came, a whole piece
    /// carries no proofs and is lost. Returns the bytes kept, and whether they complete the piece.
    pub fn salvage(&mut self, geometry: &Geometry, span: BlockSpan, received_bytes: u32) -> u32 {
        let blocks = (received_bytes / BLOCK_BYTES).min(u32::from(span.count())) as u16;
        if geometry.is_whole(span) || blocks == 0 {
            return 0;
        }
        let Some(kept) = geometry.span(span.piece(), span.first(), blocks) else { return 0 };
        self.verify(geometry, kept);
        u32::from(blocks) * BLOCK_BYTES
    }

    /// Writes a whole piece and forgets its parts; false if it was there already.
    pub fn commit(&mut self, piece: PieceIdx) -> bool {
        self.partial.remove(&piece.raw());
        self.rotten.retain(|&rotten| rotten != piece);
        self.journal.insert(piece)
    }

    /// Forgets a piece, parts and all.
    pub fn lose(&mut self, piece: PieceIdx) {
        self.partial.remove(&piece.raw());
        self.rotten.retain(|&rotten| rotten != piece);
        self.journal.remove(piece);
    }
}
