//! The only place of the library's upper floor that asks what time it is.
//!
//! A [`Clock`] counts microseconds from its start on the system's monotonic clock; it never goes back. Decisions are made by
//! the pure rooms, which get [`Time`] as an argument.

use crate::unit::{Span, Time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A monotonic clock that started at zero when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at [`Time::ZERO`].
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Microseconds since the start.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + Span::from(self.start.elapsed())
    }

    /// The moment as the runtime's timers want it.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        // A moment centuries away is as good as a day: timers are set again after each input.
        self.start + Duration::from(time.since(Time::ZERO)).min(self.start.elapsed() + Duration::from_secs(86_400))
    }
}

/// Seconds since 1970 by the system's clock; 0 if that lies before 1970. Only for expiry dates and rollback state.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
