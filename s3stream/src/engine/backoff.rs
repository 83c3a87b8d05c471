//! Jittered back-off that starts in milliseconds (lesson 18) and is bounded.

use std::time::Duration;

use crate::entropy::Entropy;

/// The waits between tries of one thing.
#[derive(Debug)]
pub(crate) struct Backoff {
    entropy: Entropy,
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Waits between half of and the whole of 5 ms, 10 ms, … up to `most`.
    pub(crate) fn new(entropy: &Entropy, most: Duration) -> Self {
        Self {
            entropy: entropy.clone(),
            next: Duration::from_millis(5),
            most,
        }
    }

    pub(crate) async fn wait(&mut self) {
        let half = self.next / 2;
        tokio::time::sleep(half + self.entropy.below(half)).await;
        self.next = (self.next * 2).min(self.most);
    }
}
