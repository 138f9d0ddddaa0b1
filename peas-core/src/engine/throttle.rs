//! Rates that a host has set: a row in which everybody who moves bytes takes a place, and which may be changed while it is waited in.
//!
//! A place says when its bytes may move; the next one comes after what they take at the rate. So whoever waits moves in turn, one frame
//! after the other, never all that waited at once: that would fill the queue before a slow uplink at a stroke.

use super::clock::Clock;
use crate::unit::Time;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest sleep before the rate is looked at again: what "takes effect within 100 ms" rests on. And the shortest that timers know.
const LOOK_AGAIN_S: f64 = 0.05;
const SLEEP_MIN_S: f64 = 0.001;

/// Seconds of rate that may be made up for: timers are late by a millisecond, a busy machine by several. Short, so that a pause is not
/// followed by a flood: with 20 ms the last of sixteen clients at 95 % of 12.5 Mbit/s is whole at 1.136 times the bound instead of 1.130.
const MADE_UP_S: f64 = 0.005;

/// A rate in bytes per second; 0 lets everything pass.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_s: AtomicU64,
    clock: Clock,
    next: Mutex<Place>,
}

/// A place in the row; none to begin with. Who waits keeps it, so that a wait dropped half-way goes on where it was.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The rate of its row: another rate begins another row.
    bytes_per_s: u64,
    /// When its bytes may move, in seconds of the clock.
    at_s: f64,
}

impl Throttle {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: AtomicU64::new(bytes_per_s), clock: Clock::start(), next: Mutex::default() }
    }

    pub(super) fn set(&self, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.bytes_per_s.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes may move. Safe to drop half-way.
    pub(super) async fn reach(&self, place: &mut Place, bytes: u32) {
        loop {
            if place.bytes_per_s != self.get() {
                *place = self.place(bytes);
            }
            if place.bytes_per_s == 0 {
                return;
            }
            let wait_s = place.at_s - self.now_s();
            if wait_s <= 0.0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs_f64(wait_s.clamp(SLEEP_MIN_S, LOOK_AGAIN_S))).await;
        }
    }

    fn place(&self, bytes: u32) -> Place {
        let mut next = self.next.lock().expect("nothing panics while holding it");
        let bytes_per_s = self.get();
        let soonest_s = self.now_s() - MADE_UP_S;
        let at_s = if next.bytes_per_s == bytes_per_s { next.at_s.max(soonest_s) } else { soonest_s };
        *next = Place { bytes_per_s, at_s: at_s + f64::from(bytes) / (bytes_per_s as f64).max(1.0) };
        Place { bytes_per_s, at_s }
    }

    fn now_s(&self) -> f64 {
        self.clock.now().since(Time::ZERO).as_s()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_may_change_while_waited_for() {
        let throttle = Throttle::new(1_000_000);
        let start = Instant::now();
        for _ in 0..40 {
            throttle.reach(&mut Place::default(), 50_000).await;
        }
        let took = start.elapsed().as_secs_f64();
        assert!((1.9..2.0).contains(&took), "the last of 40 x 50 kB at 1 MB/s went after {took} s");

        throttle.reach(&mut Place::default(), 100_000_000).await;
        let start = Instant::now();
        let mut place = Place::default();
        let (_, ()) = tokio::join!(throttle.reach(&mut place, 1), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            throttle.set(0);
        });
        assert!((200..300).contains(&start.elapsed().as_millis()), "waited {:?}", start.elapsed());
    }

    /// Eight move 20 times 10 kB each at 1 MB/s: the most of them in any 20 ms.
    async fn most_at_once(pass: impl AsyncFn(&Throttle)) -> usize {
        let throttle = Throttle::new(1_000_000);
        let start = Instant::now();
        let one = async || {
            let mut passed = Vec::new();
            for _ in 0..20 {
                pass(&throttle).await;
                passed.push(start.elapsed());
            }
            passed
        };
        let (a, b, c, d, e, f, g, h) = tokio::join!(one(), one(), one(), one(), one(), one(), one(), one());
        let passed = [a, b, c, d, e, f, g, h].concat();
        let within = |from: Duration| passed.iter().filter(|&&then| (from..from + Duration::from_millis(20)).contains(&then)).count();
        passed.iter().map(|&from| within(from)).max().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_move_one_after_the_other() {
        let most = most_at_once(async |throttle| throttle.reach(&mut Place::default(), 10_000).await).await;
        assert!(most <= 3, "{most} at once");
    }

    /// Control: everybody waits until nothing is owed, and owes what it moves.
    #[tokio::test(start_paused = true)]
    async fn where_all_wait_for_the_same_moment_all_move_at_once() {
        let most = most_at_once(async |throttle| {
            throttle.reach(&mut Place::default(), 0).await;
            throttle.place(10_000);
        });
        assert!(most.await >= 8);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_keeps_its_place() {
        let throttle = Throttle::new(1_000_000);
        let (mut first, mut second) = (Place::default(), Place::default());
        throttle.reach(&mut first, 1_000_000).await;
        let start = Instant::now();
        for _ in 0..10 {
            let soon = tokio::time::timeout(Duration::from_millis(30), throttle.reach(&mut second, 1_000_000)).await;
            assert!(soon.is_err(), "before its time");
            let mut behind = Place::default();
            let behind = throttle.reach(&mut behind, 10);
            assert!(tokio::time::timeout(Duration::from_millis(30), behind).await.is_err(), "overtaken");
        }
        throttle.reach(&mut second, 1_000_000).await;
        assert!((900..1100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}
