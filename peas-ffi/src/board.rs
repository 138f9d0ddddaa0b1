//! The board between engine and host: jobs, the event queue, those who wait.
//!
//! One lock guards all of it and is never held across an await, a callback or anything that can block. The engine's tasks post;
//! the host's threads read. Two things leave the lock before they are done: the wake function (a lock of its own, held while it
//! runs, which is what makes `peas_set_wake` mean what it says) and the drop of sessions.

use crate::bell::Bell;
use crate::failure::{Failure, text};
use crate::job::{Job, unknown};
use crate::queue::{Item, Queue};
use crate::types::*;
use peas_core::Session;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Jobs that are not over.
const RUNNING_MAX: usize = 1024;
/// Jobs that are over and remembered, for peas_job_info and peas_wait; then the oldest is forgotten.
const FINISHED_MAX: usize = 4096;

/// A function of the host's with the host's word that its data may be used from any thread.
#[derive(Clone, Copy)]
pub(crate) struct Hook<F> {
    pub(crate) function: F,
    pub(crate) user_data: *mut c_void,
}
// SAFETY: peas never looks at `user_data`; the header says from which threads it is handed back.
unsafe impl<F: Send> Send for Hook<F> {}

pub(crate) type Wake = Hook<unsafe extern "C" fn(*mut c_void)>;

/// Who takes the events by callback.
#[derive(Default)]
pub(crate) struct Delivery {
    /// Rises with each peas_set_callback: a thread of an older number leaves.
    pub(crate) generation: u64,
    pub(crate) active: bool,
    /// A callback is running now.
    pub(crate) running: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) jobs: BTreeMap<peas_job, Job>,
    last_job: peas_job,
    queue: Queue,
    bell: Option<Bell>,
    pub(crate) log: Option<peas_level>,
    pub(crate) delivery: Delivery,
    closed: bool,
    pub(crate) failed: Option<String>,
}

#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
    wake: Mutex<Option<Wake>>,
    /// For the engine's tasks: a job got its session, or ended.
    pub(crate) moved: tokio::sync::Notify,
}

thread_local! {
    static IN_WAKE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside the wake function.
pub(crate) fn in_wake() -> bool {
    IN_WAKE.get()
}

/// When a call has to return. `None`: never.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// -1 (any negative) waits without end.
    pub(crate) fn after_ms(ms: i32) -> Self {
        Self(u64::try_from(ms).ok().and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))))
    }

    pub(crate) fn after(time: Duration) -> Self {
        Self(Instant::now().checked_add(time))
    }

    /// What is left; `None` when it is over.
    pub(crate) fn left(self) -> Option<Duration> {
        match self.0 {
            None => Some(Duration::MAX),
            Some(end) => end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()),
        }
    }
}

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the lock until something changes; `Err` gives the guard back when time is up.
    pub(crate) fn wait<'a>(&self, guard: MutexGuard<'a, State>, until: Deadline) -> Result<MutexGuard<'a, State>, MutexGuard<'a, State>> {
        match until.left() {
            None => Err(guard),
            Some(left) if left == Duration::MAX => Ok(self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)),
            Some(left) => Ok(self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0),
        }
    }

    /// Tells all who wait to look again.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Changes the state; afterwards, if the queue stopped being empty, rings.
    pub(crate) fn post(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let was_empty = state.queue.is_empty();
        change(&mut state);
        // A closed engine tells nobody of anything; its descriptor is up already.
        let rings = was_empty && !state.queue.is_empty() && !state.closed;
        if rings && let Some(bell) = &state.bell {
            bell.raise();
        }
        drop(state);
        self.changed.notify_all();
        if rings {
            self.ring();
        }
    }

    fn ring(&self) {
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Wake { function, user_data }) = *wake {
            IN_WAKE.set(true);
            // SAFETY: the host gave both, and they hold until it replaced them, which waits for the lock that we hold.
            unsafe { function(user_data) };
            IN_WAKE.set(false);
        }
    }

    pub(crate) fn set_wake(&self, wake: Option<Wake>) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = wake;
    }

    /// The descriptor, made when first asked for.
    pub(crate) fn pollable(&self) -> Result<isize, Failure> {
        let mut state = self.lock();
        if state.bell.is_none() {
            let bell = Bell::new().map_err(|error| Failure {
                status: peas_status::PEAS_IO,
                os_code: error.raw_os_error().unwrap_or(0),
                message: format!("no descriptor: {error}"),
            })?;
            if !state.queue.is_empty() {
                bell.raise();
            }
            state.bell = Some(bell);
        }
        Ok(state.bell.as_ref().map_or(-1, Bell::descriptor))
    }
}

impl State {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether calls are still answered.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &self.failed {
            _ if self.closed => Err(Failure::new(peas_status::PEAS_CLOSED, "the engine is closed")),
            Some(why) => Err(Failure::new(peas_status::PEAS_INTERNAL, format!("a bug in peas: {why}; close the engine"))),
            None => Ok(()),
        }
    }

    /// No call is answered from now on. Whoever sleeps on the descriptor is woken: nothing else would do it any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        if let Some(bell) = self.bell.as_ref().filter(|_| self.queue.is_empty()) {
            bell.raise();
        }
    }

    /// A new number for a job, with its place in the table.
    pub(crate) fn add(&mut self, job: Job) -> Result<peas_job, Failure> {
        self.check()?;
        let (running, finished) = self.jobs.values().fold((0, 0), |(r, f), job| if job.ended.is_some() { (r, f + 1) } else { (r + 1, f) });
        if running >= RUNNING_MAX {
            return Err(Failure::new(peas_status::PEAS_BUSY, format!("{RUNNING_MAX} jobs are running; wait for some to end")));
        }
        if finished >= FINISHED_MAX
            && let Some(oldest) = self.jobs.iter().find(|(_, job)| job.ended.is_some()).map(|(id, _)| *id)
        {
            self.queue.forget(oldest);
            self.jobs.remove(&oldest);
            self.lower_if_empty();
        }
        self.last_job += 1;
        self.jobs.insert(self.last_job, job);
        Ok(self.last_job)
    }

    pub(crate) fn job(&mut self, job: peas_job) -> Result<&mut Job, Failure> {
        self.check()?;
        self.jobs.get_mut(&job).ok_or_else(|| unknown(job))
    }

    pub(crate) fn progressed(&mut self, id: peas_job) {
        if let Some(job) = self.jobs.get_mut(&id)
            && !job.progress_waits
            && job.ended.is_none()
        {
            job.progress_waits = true;
            self.queue.push(Item::Progress(id));
        }
    }

    pub(crate) fn completed(&mut self, id: peas_job) {
        if let Some(job) = self.jobs.get_mut(&id)
            && !job.complete
            && job.ended.is_none()
        {
            job.complete = true;
            self.queue.push(Item::Complete(id));
        }
    }

    /// The end of a job; gives its session back, to be dropped outside the lock.
    pub(crate) fn ended(&mut self, id: peas_job, end: Failure) -> Option<Arc<Session>> {
        let job = self.jobs.get_mut(&id).filter(|job| job.ended.is_none())?;
        job.last = job.session.as_ref().map(|session| session.progress());
        job.ended = Some(end);
        self.queue.push(Item::Ended(id));
        job.session.take()
    }

    pub(crate) fn notice(&mut self, job: peas_job, notice: peas_notice_type, value: u64, level: peas_level, message: String) {
        self.queue.push(Item::Notice { job, notice, value, level, message });
    }

    pub(crate) fn log(&mut self, job: peas_job, level: peas_level, message: impl FnOnce() -> String) {
        if self.log.is_some_and(|most| level <= most) {
            self.queue.push(Item::Log { job, level, message: message() });
        }
    }

    /// The next event as the host gets it.
    pub(crate) fn take_event(&mut self) -> Option<peas_event> {
        let item = self.queue.pop()?;
        self.lower_if_empty();
        Some(self.event_of(item))
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.queue.is_empty()
    }

    fn lower_if_empty(&self) {
        // The bell is up exactly while the queue holds something: whoever empties it lowers it, under the same lock.
        if self.queue.is_empty()
            && !self.closed
            && let Some(bell) = &self.bell
        {
            bell.lower();
        }
    }

    fn event_of(&mut self, item: Item) -> peas_event {
        // SAFETY: a struct of integers, for which zero is a value; it is what reserved fields are promised to be.
        let mut event: peas_event = unsafe { std::mem::zeroed() };
        let (kind, job) = match item {
            Item::Progress(job) => (peas_event_type::PEAS_EVENT_PROGRESS, job),
            Item::Complete(job) => (peas_event_type::PEAS_EVENT_COMPLETE, job),
            Item::Ended(job) => (peas_event_type::PEAS_EVENT_ENDED, job),
            Item::Notice { job, notice, value, level, message } => {
                (event.notice, event.value, event.level) = (notice as u32, value, level as u32);
                event.message = text(&message);
                (peas_event_type::PEAS_EVENT_NOTICE, job)
            }
            Item::Log { job, level, message } => {
                event.level = level as u32;
                event.message = text(&message);
                (peas_event_type::PEAS_EVENT_LOG, job)
            }
        };
        (event.kind, event.job) = (kind as u32, job);
        if let Some(job) = self.jobs.get_mut(&job) {
            let info = job.info();
            (event.bytes_done, event.bytes_total) = (info.bytes_done, info.bytes_total);
            if kind == peas_event_type::PEAS_EVENT_PROGRESS {
                job.progress_waits = false;
            }
            if let (peas_event_type::PEAS_EVENT_ENDED, Some(end)) = (kind, &job.ended) {
                (event.status, event.os_code) = (end.status as i32, end.os_code);
                event.message = text(&end.message);
            }
        }
        event
    }
}
