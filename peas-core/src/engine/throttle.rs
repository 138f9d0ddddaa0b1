//! Rates that a host has set: a token bucket that may be changed while it is waited on.
//!
//! Waiting and spending are apart: [`Throttle::ready`] waits until the bucket is not in debt, [`Throttle::spend`] takes bytes
//! and may leave a debt. So a wait can be dropped without losing anything, and a frame larger than the bucket still passes.

use super::clock::Clock;
use crate::unit::Time;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest sleep before the rate is looked at again: what "takes effect within 100 ms" rests on.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Seconds of rate that may be saved up. Short, so that a pause is not followed by a flood.
const SAVED_S: f64 = 0.1;

/// A rate in bytes per second; 0 lets everything pass.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_s: AtomicU64,
    clock: Clock,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    bytes: f64,
    filled: Time,
}

impl Throttle {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: AtomicU64::new(bytes_per_s), clock: Clock::start(), bucket: Mutex::default() }
    }

    pub(super) fn set(&self, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.bytes_per_s.load(Ordering::Relaxed)
    }

    /// Waits until nothing is owed. Safe to drop half-way.
    pub(super) async fn ready(&self) {
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
        }
    }

    /// Takes bytes that are about to move.
    pub(super) fn spend(&self, bytes: u32) {
        if self.get() > 0 {
            self.filled_bucket().bytes -= f64::from(bytes);
        }
    }

    fn wait(&self) -> Option<Duration> {
        let rate = self.get();
        let owed = -self.filled_bucket().bytes;
        (rate > 0 && owed > 0.0).then(|| Duration::from_secs_f64((owed / rate as f64).clamp(0.001, 1.0)))
    }

    fn filled_bucket(&self) -> std::sync::MutexGuard<'_, Bucket> {
        let rate = self.get() as f64;
        let mut bucket = self.bucket.lock().expect("nothing panics while holding it");
        let now = self.clock.now();
        bucket.bytes = match rate > 0.0 {
            true => (bucket.bytes + now.since(bucket.filled).as_s() * rate).min(rate * SAVED_S),
            false => 0.0,
        };
        bucket.filled = now;
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_may_change_while_waited_on() {
        let throttle = Throttle::new(1_000_000);
        let start = Instant::now();
        for _ in 0..40 {
            throttle.ready().await;
            throttle.spend(50_000);
        }
        let took = start.elapsed().as_secs_f64();
        assert!((1.7..2.2).contains(&took), "2 MB at 1 MB/s took {took} s");

        throttle.spend(100_000_000);
        let start = Instant::now();
        let (_, ()) = tokio::join!(throttle.ready(), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            throttle.set(0);
        });
        assert!(start.elapsed() < Duration::from_millis(300), "the old rate went on");
    }
}
