//! How many bytes of pieces may be in memory at once.
//!
//! One budget for what comes in and one for what goes out, so that peers who do not take what they asked for cannot stop us
//! from receiving.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in these, so that any budget fits the semaphore.
const UNIT_BYTES: u64 = 1024;

/// A number of bytes that is shared out.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// A share of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Share(#[expect(dead_code, reason = "its drop is what matters")] Option<OwnedSemaphorePermit>);

impl Budget {
    /// At least one unit.
    pub(super) fn new(bytes: u64) -> Self {
        let units_max = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// Waits until the bytes are free; more than the whole budget counts as the whole. Safe to drop half-way.
    pub(super) async fn take(&self, bytes: u32) -> Share {
        Share(self.units.clone().acquire_many_owned(self.units_of(bytes)).await.ok())
    }

    fn units_of(&self, bytes: u32) -> u32 {
        (u64::from(bytes).div_ceil(UNIT_BYTES) as u32).min(self.units_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shares_come_back_and_a_giant_gets_all() {
        let budget = Budget::new(4096);
        let first = budget.take(3000).await;
        assert_eq!(budget.units.available_permits(), 1);
        drop(first);
        let all = budget.take(1 << 30).await;
        assert_eq!(budget.units.available_permits(), 0);
        drop(all);
        assert_eq!(budget.units.available_permits(), 4);
    }
}
