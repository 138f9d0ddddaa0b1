//! The threads of a storage.
//!
//! One queue; jobs run in the order they came, on any thread. An idle thread wakes when a journal record is due. The threads end after the
//! queued work when the storage is closed or its last handle dropped; the last one syncs, and lets go of the lock on the staging
//! directory. How much is queued is bounded by the caller's byte budget: each job owns a piece buffer, or asks for one.

use super::store::{Place, Store};
use crate::Error;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) type Job = Box<dyn FnOnce(&Store) + Send>;

struct Queue {
    jobs: VecDeque<Job>,
    closing: bool,
    threads: usize,
    /// Those of them that take no more jobs.
    leaving: usize,
    syncing: bool,
}

/// What threads and handles share.
pub(crate) struct Shared {
    pub store: Store,
    queue: Mutex<Queue>,
    wake: Condvar,
    ended: Condvar,
    /// Of the host's: dropped after the locks.
    kept: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl Shared {
    pub fn start(store: Store, threads: usize) -> Result<Arc<Self>, Error> {
        let queue = Queue { jobs: VecDeque::new(), closing: false, threads: 0, leaving: 0, syncing: false };
        let shared =
            Arc::new(Self { store, queue: Mutex::new(queue), wake: Condvar::new(), ended: Condvar::new(), kept: Mutex::default() });
        for at in 0..threads.clamp(1, 64) {
            let worker = shared.clone();
            worker.queue().threads += 1;
            let spawned = std::thread::Builder::new().name(format!("peas-disk-{at}")).spawn(move || {
                block_signals();
                worker.work();
            });
            if let Err(source) = spawned {
                shared.queue().threads -= 1;
                shared.close(Duration::ZERO);
                return Err(Error::Storage { op: "start a thread for", path: shared.store.root.clone(), source });
            }
        }
        Ok(shared)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the job; gives it back when the storage is closed.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        let mut queue = self.queue();
        if queue.closing {
            return Err(job);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub fn keep_until_closed(&self, kept: Box<dyn Send + Sync>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }

    /// Takes no more jobs; the threads end when those queued are done.
    pub fn begin_close(&self) {
        self.queue().closing = true;
        self.wake.notify_all();
    }

    /// Ends the threads, waiting at most this long. False: some still hang in the system and are left to end by themselves.
    pub fn close(&self, timeout: Duration) -> bool {
        self.begin_close();
        let queue = self.queue();
        let waited = self.ended.wait_timeout_while(queue, timeout, |queue| queue.threads > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads == 0
    }

    fn work(&self) {
        loop {
            match self.next() {
                Next::Job(job) => {
                    // A panic here is a bug of ours; it must not take the other jobs with it.
                    let _ = catch_unwind(AssertUnwindSafe(|| job(&self.store)));
                }
                Next::Sync => {
                    // An error stays: what it left in doubt is checked at the next sync, and publish reports it.
                    let _ = catch_unwind(AssertUnwindSafe(|| self.store.sync()));
                    self.queue().syncing = false;
                }
                Next::End => break,
            }
        }
        let last = {
            let mut queue = self.queue();
            queue.leaving += 1;
            queue.leaving == queue.threads
        };
        if last {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let _ = self.store.sync();
                if self.store.state().place == Place::Staged {
                    self.store.write_state_file();
                }
                self.store.staged.close_files();
                self.store.target.close_files();
                self.store.cache.clear();
                *self.store.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }));
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let mut queue = self.queue();
        queue.threads -= 1;
        queue.leaving -= 1;
        drop(queue);
        self.ended.notify_all();
    }

    fn next(&self) -> Next {
        let mut queue = self.queue();
        loop {
            let due = if queue.syncing { None } else { self.store.sync_due() };
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) && !queue.closing {
                queue.syncing = true;
                return Next::Sync;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Next::Job(job);
            }
            if queue.closing {
                return Next::End;
            }
            queue = match due {
                Some(due) => self.wake.wait_timeout(queue, due - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

enum Next {
    Job(Job),
    Sync,
    End,
}

/// Signals are the host's: its handlers must never run on a thread of ours.
pub(crate) fn block_signals() {
    // SAFETY: `sigfillset` writes the whole set before `pthread_sigmask` reads it; both act on this thread alone.
    unsafe {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}
