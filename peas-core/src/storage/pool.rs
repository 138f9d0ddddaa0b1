//! Piece buffers that are used again, and the last pieces seen.
//!
//! A buffer always holds initialised bytes (old data of the same content). Both the pool and the cache are bounded by bytes; neither
//! waits for anything.

use crate::hash::Cv;
use crate::unit::PieceIdx;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of pieces kept in memory after they were read or written: several neighbours ask for the same piece shortly after one
/// another. 16 MiB is one piece of the largest size.
const CACHED_BYTES_MAX: usize = 16 << 20;

/// A buffer the size of a piece. Comes from a pool and goes back to it when dropped.
pub struct PieceBuf {
    bytes: Vec<u8>,
    len: usize,
    pool: Arc<Pool>,
}

impl std::ops::Deref for PieceBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::ops::DerefMut for PieceBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl std::fmt::Debug for PieceBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PieceBuf({} bytes)", self.len)
    }
}

impl Drop for PieceBuf {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.bytes));
    }
}

pub(crate) struct Pool {
    piece_bytes: usize,
    spare_max: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    pub fn new(piece_bytes: usize, pooled_bytes_max: u64) -> Arc<Self> {
        let spare_max = (pooled_bytes_max / piece_bytes as u64).min(65_536) as usize;
        Arc::new(Self { piece_bytes, spare_max, spare: Mutex::default() })
    }

    /// A buffer of `len` bytes, at most those of a piece.
    pub fn take(self: &Arc<Self>, len: usize) -> PieceBuf {
        let old = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        PieceBuf { bytes: old.unwrap_or_else(|| vec![0; self.piece_bytes]), len: len.min(self.piece_bytes), pool: self.clone() }
    }

    fn put(&self, bytes: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.spare_max {
            spare.push(bytes);
        }
    }
}

/// A verified piece in memory, with its block values once somebody needed them.
#[derive(Clone)]
pub(crate) struct Cached {
    pub buf: Arc<PieceBuf>,
    pub block_cvs: Arc<OnceLock<Vec<Cv>>>,
}

/// The last pieces read or committed.
#[derive(Default)]
pub(crate) struct PieceCache {
    pieces: Mutex<Pieces>,
}

#[derive(Default)]
struct Pieces {
    /// Least recently used first.
    order: VecDeque<(PieceIdx, Cached)>,
    bytes: usize,
}

impl Pieces {
    fn take(&mut self, piece: PieceIdx) -> Option<Cached> {
        let at = self.order.iter().rposition(|(cached, _)| *cached == piece)?;
        let (_, cached) = self.order.remove(at)?;
        self.bytes -= cached.buf.len();
        Some(cached)
    }

    fn put(&mut self, piece: PieceIdx, cached: Cached) {
        self.bytes += cached.buf.len();
        self.order.push_back((piece, cached));
    }
}

impl PieceCache {
    pub fn get(&self, piece: PieceIdx) -> Option<Cached> {
        let mut pieces = self.pieces();
        let cached = pieces.take(piece)?;
        pieces.put(piece, cached.clone());
        Some(cached)
    }

    pub fn put(&self, piece: PieceIdx, cached: Cached) {
        let mut pieces = self.pieces();
        pieces.take(piece);
        pieces.put(piece, cached);
        while pieces.order.len() > 1 && pieces.bytes > CACHED_BYTES_MAX {
            let oldest = pieces.order.pop_front();
            pieces.bytes -= oldest.map_or(0, |(_, cached)| cached.buf.len());
        }
    }

    pub fn clear(&self) {
        *self.pieces() = Pieces::default();
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
