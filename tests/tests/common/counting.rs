//! An allocator that counts, for tests that say how much memory something may take: `#[global_allocator]` in the file of the test.
//!
//! It sees what the program asks for, so its figures are the same on each machine and each run, as those of the system are not.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// All threads together.
pub struct Counting {
    live: AtomicUsize,
    peak: AtomicUsize,
    largest: AtomicUsize,
}

impl Counting {
    pub const fn new() -> Self {
        Self { live: AtomicUsize::new(0), peak: AtomicUsize::new(0), largest: AtomicUsize::new(0) }
    }

    /// Bytes in use now.
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Most bytes in use at one time since the last [`forget`](Self::forget).
    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// Largest single request since then.
    pub fn largest(&self) -> usize {
        self.largest.load(Relaxed)
    }

    pub fn forget(&self) {
        self.peak.store(self.live(), Relaxed);
        self.largest.store(0, Relaxed);
    }

    fn took(&self, bytes: usize) {
        let live = self.live.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(live, Relaxed);
        self.largest.fetch_max(bytes, Relaxed);
    }

    fn gave_back(&self, bytes: usize) {
        self.live.fetch_sub(bytes, Relaxed);
    }
}

// SAFETY: everything is handed to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.took(layout.size());
        // SAFETY: the caller's promise is the system's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.gave_back(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The old and the new may both be there for a moment.
        self.took(new_size);
        self.gave_back(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

/// What this thread has used of a processor, in seconds: a machine that is busy with other things does not make it longer.
pub fn cpu_s() -> f64 {
    let words = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    words.split(' ').next().unwrap().parse::<f64>().unwrap() * 1e-9
}
