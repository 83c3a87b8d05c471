//! Where the time of operations comes from.

use std::time::Duration;

use tokio::time::Instant;

use super::machine::Now;

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    begun: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
        }
    }

    pub(super) fn now(self) -> Now {
        let since = self.begun.elapsed().as_millis();
        Now {
            wall_ms: crate::clock::now_ms(),
            mono_ms: u64::try_from(since).unwrap_or(u64::MAX),
        }
    }

    /// Waits for a time as [`Now::mono_ms`] counts.
    pub(super) async fn sleep_until(self, mono_ms: u64) {
        // A far time is as good as never; one that cannot be said is cut.
        let at = Duration::from_millis(mono_ms.min(FAR_MS));
        tokio::time::sleep_until(self.begun + at).await;
    }
}

/// A hundred years.
const FAR_MS: u64 = 100 * 366 * 86_400_000;
