//! Hashing many pieces on several threads, with progress and a way to stop.

use crate::Error;
use crate::unit::{Geometry, PieceIdx};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts bytes and asks now and then whether to go on.
pub(crate) struct Meter<'a> {
    done: AtomicU64,
    total: u64,
    on_bytes: &'a (dyn Fn(u64, u64) -> bool + Sync),
}

impl<'a> Meter<'a> {
    pub fn new(total: u64, on_bytes: &'a (dyn Fn(u64, u64) -> bool + Sync)) -> Self {
        Self { done: AtomicU64::new(0), total, on_bytes }
    }

    /// These bytes are done. `Error::Cancelled` if the caller wants no more; asked every 4 MiB.
    pub fn add(&self, bytes: u64) -> Result<(), Error> {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let now = before + bytes;
        let due = before >> 22 != now >> 22 || now == self.total;
        if due && !(self.on_bytes)(now, self.total) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Threads for hashing: one per core, at most 16.
pub(crate) fn hashers() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get()).min(16)
}

/// Runs `work` for each of `count` positions on this many threads; stops at the first error. On one thread in order.
pub(crate) fn each(threads: usize, count: usize, work: impl Fn(usize, &mut Vec<u8>) -> Result<(), Error> + Sync) -> Result<(), Error> {
    let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let run = || {
        let mut buf = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            if let Err(error) = work(at, &mut buf) {
                stop.store(true, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    if threads <= 1 || count <= 1 {
        run();
    } else {
        std::thread::scope(|scope| {
            for _ in 1..threads.min(count) {
                // Without another thread the work is done on this one.
                let _ = std::thread::Builder::new().name("peas-hash".into()).spawn_scoped(scope, || {
                    super::workers::block_signals();
                    run();
                });
            }
            run();
        });
    }
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Runs `work` for each piece, with a buffer of exactly the piece's size (its contents are old).
pub(crate) fn each_piece(
    threads: usize,
    geometry: &Geometry,
    pieces: &[PieceIdx],
    work: impl Fn(PieceIdx, &mut [u8]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    each(threads, pieces.len(), |at, buf| {
        let len = geometry.len_of(pieces[at]) as usize;
        if buf.len() < len {
            buf.resize(geometry.piece_bytes() as usize, 0);
        }
        work(pieces[at], &mut buf[..len])
    })
}
