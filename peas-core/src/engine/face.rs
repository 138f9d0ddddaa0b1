//! What a host sees of a session: the latest progress, a bounded ring of facts, and how it came out.
//!
//! Written by the session's driver, read from any thread. Waiting works on any executor and on plain threads. A sleeping host
//! costs nothing: old events fold into [`Event::Lagged`], final ones are always kept.

use crate::Error;
use crate::event::{Event, Progress};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most events that wait, final ones not counted (there are at most three).
const EVENTS_MAX: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct Face {
    inner: Mutex<Inner>,
    changed: Condvar,
    notify: Notify,
}

#[derive(Default)]
struct Inner {
    progress: Progress,
    /// Rises with each change of `progress`; and the one last seen by `progress_changed`.
    version: u64,
    seen: u64,
    events: VecDeque<Event>,
    missed: u64,
    installed: bool,
    ended: bool,
    failure: Option<Error>,
}

impl Face {
    pub(crate) fn show(&self, progress: Progress) {
        let mut inner = self.lock();
        if inner.progress != progress {
            inner.progress = progress;
            inner.version += 1;
            self.wake(inner);
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.lock().progress
    }

    pub(crate) fn emit(&self, event: Event) {
        let mut inner = self.lock();
        if inner.ended {
            return;
        }
        inner.installed |= event == Event::Installed;
        inner.events.push_back(event);
        if inner.events.iter().filter(|event| !event.is_final()).count() > EVENTS_MAX
            && let Some(oldest) = inner.events.iter().position(|event| !event.is_final())
        {
            inner.events.remove(oldest);
            inner.missed += 1;
        }
        self.wake(inner);
    }

    /// The last word: nothing is shown or emitted after it. Only the first call counts.
    pub(crate) fn end(&self, failure: Option<Error>) {
        let event = match &failure {
            Some(error) => Event::Failed { code: error.code(), message: error.to_string() },
            None => Event::Left,
        };
        self.emit(event);
        let mut inner = self.lock();
        if !inner.ended {
            inner.ended = true;
            inner.failure = failure;
            inner.progress.state = crate::event::State::Ended;
            inner.version += 1;
        }
        self.wake(inner);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.lock().ended
    }

    pub(crate) fn try_next_event(&self) -> Option<Event> {
        self.lock().next_event()
    }

    pub(crate) async fn next_event(&self) -> Option<Event> {
        self.until(|inner| match inner.next_event() {
            Some(event) => Some(Some(event)),
            None => inner.ended.then_some(None),
        })
        .await
    }

    pub(crate) fn next_event_timeout(&self, timeout: Duration) -> Option<Event> {
        self.until_timeout(timeout, |inner| match inner.next_event() {
            Some(event) => Some(Some(event)),
            None => inner.ended.then_some(None),
        })
        .flatten()
    }

    pub(crate) async fn wait_installed(&self) -> Result<(), Error> {
        self.until(Inner::outcome).await
    }

    pub(crate) fn wait_installed_timeout(&self, timeout: Duration) -> Option<Result<(), Error>> {
        self.until_timeout(timeout, Inner::outcome)
    }

    pub(crate) async fn wait_ended(&self) {
        self.until(|inner| inner.ended.then_some(())).await;
    }

    pub(crate) fn wait_ended_timeout(&self, timeout: Duration) -> bool {
        self.until_timeout(timeout, |inner| inner.ended.then_some(())).is_some()
    }

    pub(crate) async fn progress_changed(&self) {
        self.until(|inner| {
            let changed = inner.version != inner.seen || inner.ended;
            inner.seen = inner.version;
            changed.then_some(())
        })
        .await;
    }

    async fn until<T>(&self, mut ready: impl FnMut(&mut Inner) -> Option<T>) -> T {
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            notified.as_mut().enable();
            if let Some(value) = ready(&mut self.lock()) {
                return value;
            }
            notified.await;
        }
    }

    fn until_timeout<T>(&self, timeout: Duration, mut ready: impl FnMut(&mut Inner) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut inner = self.lock();
        loop {
            if let Some(value) = ready(&mut inner) {
                return Some(value);
            }
            let left = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            inner = self.changed.wait_timeout(inner, left).expect("nothing panics while holding it").0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while holding it")
    }

    fn wake(&self, inner: MutexGuard<'_, Inner>) {
        drop(inner);
        self.changed.notify_all();
        self.notify.notify_waiters();
    }
}

impl Inner {
    fn next_event(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.missed) {
            0 => self.events.pop_front(),
            missed => Some(Event::Lagged { missed }),
        }
    }

    fn outcome(&mut self) -> Option<Result<(), Error>> {
        match (self.installed, self.ended, &self.failure) {
            (true, _, _) => Some(Ok(())),
            (_, true, Some(error)) => Some(Err(error.again())),
            (_, true, None) => Some(Err(Error::Cancelled)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_events_fold_and_final_ones_stay() {
        let face = Face::default();
        face.emit(Event::Installed);
        for _ in 0..EVENTS_MAX + 10 {
            face.emit(Event::Resumed);
        }
        face.end(None);
        face.emit(Event::Resumed);
        let events: Vec<Event> = std::iter::from_fn(|| face.next_event_timeout(Duration::ZERO)).collect();
        assert_eq!(events[0], Event::Lagged { missed: 10 });
        assert_eq!(events[1], Event::Installed);
        assert_eq!(events.last(), Some(&Event::Left));
        assert_eq!(events.len(), EVENTS_MAX + 3);
        assert_eq!(face.try_next_event(), None);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_session() {
        let face = std::sync::Arc::new(Face::default());
        let waiter = tokio::spawn({
            let face = face.clone();
            async move { (face.wait_installed().await, face.next_event().await, face.next_event().await) }
        });
        tokio::task::yield_now().await;
        face.end(Some(Error::Closed));
        let (outcome, first, second) = waiter.await.unwrap();
        assert!(matches!(outcome, Err(Error::Closed)));
        assert!(matches!(first, Some(Event::Failed { code: 9, .. })));
        assert_eq!(second, None);
    }
}
