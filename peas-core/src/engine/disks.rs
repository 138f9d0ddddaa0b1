//! Disks that sessions of this engine have in use: whoever closes the engine waits for them, so that the next install finds no lock.
//!
//! A session holds a place from before its first look at the disk; from then on whoever may hold the lock has it: the thread that opens,
//! then the storage's own. It is given back when the lock is, also by a storage that nobody closed and by a thread that was left behind.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many there are.
#[derive(Default)]
pub(crate) struct Disks {
    in_use: Mutex<usize>,
    let_go: Condvar,
}

/// One of them, until dropped.
pub(crate) struct DiskInUse(Arc<Disks>);

impl Disks {
    pub(crate) fn take(self: &Arc<Self>) -> DiskInUse {
        *self.in_use() += 1;
        DiskInUse(self.clone())
    }

    /// Until none is in use, at most this long. False: some still are. Blocking.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let waited = self.let_go.wait_timeout_while(self.in_use(), timeout, |in_use| *in_use > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }

    fn in_use(&self) -> MutexGuard<'_, usize> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DiskInUse {
    fn drop(&mut self) {
        *self.0.in_use() -= 1;
        self.0.let_go.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_last_one_and_no_longer_than_told() {
        let disks = Arc::new(Disks::default());
        assert!(disks.wait(Duration::ZERO), "none is in use");
        let (one, other) = (disks.take(), disks.take());
        drop(one);
        assert!(!disks.wait(Duration::from_millis(10)), "one is in use");
        let waiter = std::thread::spawn(move || disks.wait(Duration::from_secs(60)));
        drop(other);
        assert!(waiter.join().unwrap());
    }
}
