//! Estimators of rates on [`Time`].
//!
//! How many bytes went by lately ([`Flow`]), how fast something is while it is busy ([`Speed`]), and which share of those that we did not
//! know turned out well ([`Turnout`]).

use crate::unit::{Span, Time};

/// Bytes per second over about the last second: what a display shows and what windows are sized by.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    memory_s: f64,
    weighed_bytes: f64,
    since: Option<Time>,
    at: Time,
}

/// Time over which a usual [`Flow`] forgets. 1 s: shorter flickers, longer reacts late to a lost peer.
const FLOW_MEMORY_S: f64 = 1.0;

impl Flow {
    pub fn new() -> Self {
        Self::over(FLOW_MEMORY_S)
    }

    /// One that forgets within this time.
    pub fn over(memory_s: f64) -> Self {
        Self { memory_s, weighed_bytes: 0.0, since: None, at: Time::ZERO }
    }

    pub fn add(&mut self, now: Time, bytes: u64) {
        self.weighed_bytes = self.weighed_bytes * self.decay(now) + bytes as f64;
        self.since.get_or_insert(now);
        self.at = now;
    }

    /// Whether it has gone on for long enough to be judged by.
    pub fn is_settled(&self, now: Time) -> bool {
        self.since.is_some_and(|since| now.since(since).as_s() >= self.memory_s)
    }

    /// How long nothing has gone by; since the beginning of time if nothing ever has.
    pub fn since_last(&self, now: Time) -> Span {
        now.since(self.at)
    }

    /// Bytes per second.
    pub fn rate(&self, now: Time) -> f64 {
        let Some(since) = self.since else { return 0.0 };
        // Before the memory is full the weights add up to less: divide by what they do add up to, at least a tenth of it.
        let filled = (1.0 - (-now.since(since).as_s() / self.memory_s).exp()).max(0.1);
        self.weighed_bytes * self.decay(now) / (self.memory_s * filled)
    }

    fn decay(&self, now: Time) -> f64 {
        (-now.since(self.at).as_s() / self.memory_s).exp()
    }
}

/// Bytes per second while busy: what something can do, whether or not it is asked to.
#[derive(Clone, Debug, Default)]
pub(super) struct Speed {
    bytes_per_s: f64,
    pending_bytes: u64,
    pending: Span,
}

/// Busy time that makes one sample. 200 ms: below it the network's own buffers make everything look infinitely fast.
const SAMPLE: Span = Span::ms(200);

/// Weight of a new sample. 0.3: a few samples decide, one hiccup does not.
const SAMPLE_WEIGHT: f64 = 0.3;

impl Speed {
    /// Takes note of bytes that took `busy` to pass.
    pub fn add(&mut self, bytes: u64, busy: Span) {
        self.pending_bytes += bytes;
        self.pending = Span(self.pending.0 + busy.0);
        if self.pending >= SAMPLE {
            let sample = self.pending_bytes as f64 / self.pending.as_s();
            self.bytes_per_s =
                if self.bytes_per_s == 0.0 { sample } else { self.bytes_per_s * (1.0 - SAMPLE_WEIGHT) + sample * SAMPLE_WEIGHT };
            (self.pending_bytes, self.pending) = (0, Span::ZERO);
        }
    }

    /// Bytes per second; `None` before the first sample.
    pub fn known(&self) -> Option<f64> {
        (self.bytes_per_s > 0.0).then_some(self.bytes_per_s)
    }

    /// It was slower than thought, and it is not known by how much.
    pub fn halve(&mut self) {
        self.bytes_per_s /= 2.0;
    }
}

/// Share of strangers that turned out well lately.
#[derive(Clone, Debug)]
pub(super) struct Turnout {
    good_share: f64,
}

/// Weight of one more stranger in the share of those that turned out well; below which share we do without trust. Together: the third
/// bad one in a row begins it, and three good ones in a row end it soon after.
const TURNOUT_WEIGHT: f64 = 0.125;
const TURNOUT_MIN: f64 = 0.7;

impl Turnout {
    pub fn new() -> Self {
        Self { good_share: 1.0 }
    }

    pub fn note(&mut self, good: bool) {
        self.good_share += (f64::from(u8::from(good)) - self.good_share) * TURNOUT_WEIGHT;
    }

    pub fn is_bad(&self) -> bool {
        self.good_share < TURNOUT_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_seen_as_it_is_from_the_start() {
        let mut flow = Flow::new();
        for at in 1..=50 {
            flow.add(Time(at * 100_000), 100_000);
            if at >= 3 {
                let rate = flow.rate(Time(at * 100_000));
                assert!((0.9e6..1.6e6).contains(&rate), "{rate} after {at} steps");
            }
        }
        assert!(flow.rate(Time(20_000_000)) < 1.0);
    }

    #[test]
    fn speed_counts_busy_time_only() {
        let mut speed = Speed::default();
        assert_eq!(speed.known(), None);
        for _ in 0..20 {
            speed.add(50_000, Span::ms(50));
        }
        assert!((speed.known().unwrap() - 1e6).abs() < 1.0);
    }
}
