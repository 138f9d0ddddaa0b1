//! The door: how many strangers may stand in it at once.
//!
//! Each connection that is accepted but has not proven its key and said its hello holds a [`Place`]. Their number follows the
//! descriptors that the process may have ([`places`]). When all are taken, the one that has stood there longest is sent away once it
//! has had its [`FAIR`] share of time, so that a thousand connections that never speak delay an honest one by seconds, not by a
//! thousand handshake limits. The rest waits in the kernel's backlog.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// 256 strangers at most, each a descriptor and a few KiB; a quarter of what descriptors there may be where those are few.
const PLACES_MAX: usize = 256;
const PLACES_MIN: usize = 8;
/// 1 s: what a stranger gets in any case. Handshake and hello need one and a half round trips after the accept, which is a far peer with
/// a lost packet; 256 places then turn over 256 silent strangers per second.
const FAIR: Duration = Duration::from_secs(1);

/// How many strangers a process with so many descriptors lets in at once.
pub(super) fn places(descriptors_max: usize) -> usize {
    (descriptors_max / 4).clamp(PLACES_MIN, PLACES_MAX)
}

/// The door of one transport.
#[derive(Debug)]
pub(super) struct Gate {
    free: Arc<Semaphore>,
    standing: Arc<Mutex<VecDeque<Stranger>>>,
}

#[derive(Debug)]
struct Stranger {
    since: Instant,
    leave: Arc<Notify>,
}

/// Room for one stranger; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    leave: Arc<Notify>,
    standing: Arc<Mutex<VecDeque<Stranger>>>,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(super) fn new(places: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), standing: Arc::default() }
    }

    /// Waits for a place. Safe to drop.
    pub(super) async fn enter(&self) -> Place {
        let permit = loop {
            let patience = match lock(&self.standing).front() {
                Some(oldest) => oldest.since + FAIR,
                None => Instant::now() + FAIR, // all were told to leave and are on their way out
            };
            if let Ok(permit) = timeout_at(patience, self.free.clone().acquire_owned()).await {
                break permit.expect("this semaphore is never closed");
            }
            let due = Instant::now();
            let oldest = lock(&self.standing).pop_front_if(|oldest| oldest.since + FAIR <= due);
            if let Some(oldest) = oldest {
                oldest.leave.notify_one();
                // One is sent away for one who wants in: let it go before looking at the next.
                if let Ok(permit) = timeout_at(due + FAIR, self.free.clone().acquire_owned()).await {
                    break permit.expect("this semaphore is never closed");
                }
            }
        };
        let leave = Arc::new(Notify::new());
        lock(&self.standing).push_back(Stranger { since: Instant::now(), leave: leave.clone() });
        Place { leave, standing: self.standing.clone(), _permit: permit }
    }
}

impl Place {
    /// Returns when the place is wanted by somebody else. Once.
    pub(crate) async fn wanted(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.standing).retain(|stranger| !Arc::ptr_eq(&stranger.leave, &self.leave));
    }
}

/// A panic cannot leave this list half-changed, so poison says nothing.
fn lock(standing: &Mutex<VecDeque<Stranger>>) -> MutexGuard<'_, VecDeque<Stranger>> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 64;

    #[test]
    fn places_follow_the_descriptors() {
        assert_eq!([16, 64, 400, 1024, 1 << 20].map(places), [8, 16, 100, 256, 256]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_sends_the_oldest_away_after_its_fair_time() {
        let gate = Gate::new(PLACES);
        let start = Instant::now();
        let mut inside = VecDeque::new();
        for _ in 0..PLACES {
            inside.push_back(gate.enter().await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "places up to the bound are had at once");
        let oldest = inside.pop_front().expect("one of 64");
        let leaver = async move {
            oldest.wanted().await;
            drop(oldest);
        };
        let (_next, ()) = tokio::join!(gate.enter(), leaver);
        assert!(start.elapsed() >= FAIR, "not before its time");
        assert!(start.elapsed() < FAIR * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_given_back_is_had_at_once() {
        let gate = Gate::new(PLACES);
        let start = Instant::now();
        for _ in 0..PLACES * 10 {
            drop(gate.enter().await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
