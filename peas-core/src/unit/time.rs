//! Time as the pure rooms know it: microseconds since the driver started.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment: microseconds since the driver started, on a clock that never goes back. Logs, tests and replays print the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Time {
    /// The moment the driver started.
    pub const ZERO: Time = Time(0);

    /// How long ago `earlier` was; zero if it is not earlier.
    pub const fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// A length in milliseconds.
    pub const fn ms(ms: u64) -> Span {
        Span(ms * 1000)
    }

    /// A length in seconds.
    pub const fn s(s: u64) -> Span {
        Span(s * 1_000_000)
    }

    /// In seconds, for arithmetic with rates.
    pub fn as_s(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// In whole milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1000
    }

    /// From seconds; negative and absurd values become the nearest possible one.
    pub fn from_s(s: f64) -> Span {
        Span((s * 1e6) as u64)
    }
}

impl Add<Span> for Time {
    type Output = Time;

    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Time {
    type Output = Time;

    fn sub(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        Duration::from_micros(span.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}
