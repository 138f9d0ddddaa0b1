//! Threads of our own, which take no signal of the host's.
//!
//! Worker and disk threads inherit the signal mask of the thread that starts them, so the mask is filled around every start
//! and restored after it. Nothing here changes handlers, limits or any other state of the process.

use std::io;
use tokio::runtime::{Builder, Runtime};

/// Cores for each worker thread when the host names no number, and most of these. One thread moves some gigabits per second, sealed; disks
/// and hashing have threads of their own. Two threads wake each other for every message: on two cores 16 clients at 50 Mbit/s are whole at 1.22 times
/// the bound instead of 1.14, and 1 GiB from one process to another takes 1.39 s instead of 1.20.
const CORES_PER_THREAD: usize = 4;
const THREADS_MAX: usize = 4;

/// Most threads for blocking calls (opening and checking disks, resolving): above it calls wait for each other.
const BLOCKING_MAX: usize = 64;

/// A runtime whose threads block all signals.
pub(super) fn build(threads: usize) -> io::Result<Runtime> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / CORES_PER_THREAD).clamp(1, THREADS_MAX)),
        more => more,
    };
    without_signals(|| {
        Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_MAX)
            .thread_name("peas")
            .thread_stack_size(2 << 20)
            .on_thread_start(block_signals)
            .enable_io()
            .enable_time()
            .build()
    })
}

/// Runs something that starts threads with all signals blocked, and restores the calling thread's mask.
#[cfg(unix)]
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    use nix::sys::signal::{SigSet, SigmaskHow};
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok();
    let made = start();
    if let Some(before) = before {
        // Restoring a mask that was just read cannot be refused; if it were, the thread would merely keep signals blocked.
        let _ = before.thread_set_mask();
    }
    made
}

/// Runs something that starts threads.
#[cfg(not(unix))]
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    start()
}

#[cfg(unix)]
fn block_signals() {
    let _ = nix::sys::signal::SigSet::all().thread_block();
}

#[cfg(not(unix))]
fn block_signals() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("SigBlk:")).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    }

    /// SIGINT is number 2, SIGTERM 15, SIGCHLD 17: bits 1, 14, 16.
    const SOME: u64 = 1 << 1 | 1 << 14 | 1 << 16;

    #[test]
    fn our_threads_take_no_signals_and_the_host_keeps_its_own_mask() {
        let before = blocked();
        let runtime = build(1).unwrap();
        assert_eq!(blocked(), before);
        assert_eq!(before & SOME, 0, "the control: a test thread takes signals");
        let (worker, blocking) = runtime
            .block_on(async { (tokio::spawn(async { blocked() }).await.unwrap(), tokio::task::spawn_blocking(blocked).await.unwrap()) });
        assert_eq!(worker & SOME, SOME);
        assert_eq!(blocking & SOME, SOME);
    }
}
