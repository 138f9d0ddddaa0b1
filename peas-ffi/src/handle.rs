//! From the opaque pointer to the engine behind it.
//!
//! A handle is not an address: it is the number of a slot and of the slot's life, so nothing that a host passes is ever followed.
//! NULL, nonsense, and engines that were closed are answers. No lock is held anywhere here, so that a fork at any moment leaves
//! a table that the child can use (its own engines live in other slots). This table is the only static state of the library.

use crate::failure::Failure;
use crate::host::Host;
use crate::types::{peas_engine, peas_status};
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Engines at once in one process. Each has threads and a listener, so other bounds come first.
const SLOTS: usize = 1024;

/// One place for an engine. Its life number is odd while an engine lives in it.
struct Slot {
    /// Life number in the upper half; in the lower half how many callers are between "may I" and "I hold it".
    word: AtomicU64,
    taken: AtomicBool,
    /// Which process made the engine.
    pid: AtomicU32,
    host: UnsafeCell<Option<Arc<Host>>>,
}

// SAFETY: `host` is written only by `put` before a life begins, when `taken` was won and no caller can enter (even life number),
// and by `take` after a life ended and the last caller left. Callers read it only between entering and leaving.
unsafe impl Sync for Slot {}

static TABLE: [Slot; SLOTS] =
    [const { Slot { word: AtomicU64::new(0), taken: AtomicBool::new(false), pid: AtomicU32::new(0), host: UnsafeCell::new(None) } }; SLOTS];

const LIFE: u64 = 1 << 32;

/// Gives the engine a handle.
pub(crate) fn put(host: Arc<Host>) -> Result<*mut peas_engine, Failure> {
    for (at, slot) in TABLE.iter().enumerate() {
        if slot.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            continue;
        }
        // SAFETY: see `Slot`: this slot was won above, and its life number is even.
        unsafe { *slot.host.get() = Some(host) };
        slot.pid.store(std::process::id(), Ordering::Relaxed);
        let word = slot.word.fetch_add(LIFE, Ordering::Release) + LIFE;
        return Ok(std::ptr::without_provenance_mut(name_of(at, word)));
    }
    Err(Failure::new(peas_status::PEAS_BUSY, format!("this process has {SLOTS} engines already; close some")))
}

/// The engine behind a handle.
pub(crate) fn get(engine: *mut peas_engine) -> Result<Arc<Host>, Failure> {
    let (slot, life) = find(engine)?;
    let mut word = slot.word.load(Ordering::Acquire);
    loop {
        if life_of(word) != life {
            return Err(closed());
        }
        match slot.word.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) => word = now,
        }
    }
    // SAFETY: see `Slot`: we have entered, so the life goes on until we leave.
    let host = unsafe { (*slot.host.get()).clone() };
    slot.word.fetch_sub(1, Ordering::Release);
    host.ok_or_else(closed)
}

/// Ends the handle: no call finds the engine from now on. Calls that hold it already go on.
pub(crate) fn take(engine: *mut peas_engine) -> Result<Arc<Host>, Failure> {
    let (slot, life) = find(engine)?;
    let mut word = slot.word.load(Ordering::Acquire);
    loop {
        if life_of(word) != life {
            return Err(closed());
        }
        match slot.word.compare_exchange_weak(word, word.wrapping_add(LIFE), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) => word = now,
        }
    }
    // Callers are inside for a few instructions only.
    while slot.word.load(Ordering::Acquire) % LIFE != 0 {
        std::thread::yield_now();
    }
    // SAFETY: see `Slot`: the life ended, and the last caller left.
    let host = unsafe { (*slot.host.get()).take() };
    slot.taken.store(false, Ordering::Release);
    host.ok_or_else(closed)
}

/// Slot and life that a handle names, if this process owns it.
fn find(engine: *mut peas_engine) -> Result<(&'static Slot, usize), Failure> {
    if engine.is_null() {
        return Err(Failure::new(peas_status::PEAS_INVALID, "engine is NULL"));
    }
    let name = engine.addr();
    if name & 1 == 0 || crate::host::in_wake() {
        let why = if name & 1 == 0 { "engine is not one that peas_engine_new made" } else { "called from the wake function" };
        return Err(Failure::new(peas_status::PEAS_INVALID, why));
    }
    let (slot, life) = (&TABLE[(name >> 1) % SLOTS], name >> 1);
    if life_of(slot.word.load(Ordering::Acquire)) != life / SLOTS % LIVES || (life / SLOTS).is_multiple_of(2) {
        return Err(closed());
    }
    if slot.pid.load(Ordering::Relaxed) != std::process::id() {
        return Err(Failure::new(peas_status::PEAS_FORKED, "the engine belongs to the parent process; make one in the child"));
    }
    Ok((slot, life / SLOTS % LIVES))
}

/// How many lives a handle can tell apart.
const LIVES: usize = if usize::BITS >= 64 { 1 << 32 } else { 1 << 20 };

fn life_of(word: u64) -> usize {
    (word >> 32) as usize % LIVES
}

fn name_of(at: usize, word: u64) -> usize {
    (life_of(word) * SLOTS + at) << 1 | 1
}

fn closed() -> Failure {
    Failure::new(peas_status::PEAS_CLOSED, "the engine is closed")
}
