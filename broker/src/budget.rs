//! What all connections together may make the broker hold, in bytes.
//!
//! Three kinds of memory, always taken in this order, so that nobody waits for a kind while holding a later one:
//! requests, then what they decode to, then answers. Records on their way to the log are the engine's budget.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    api::Abort,
    config::Limits,
    wire::{
        frame::SMALL_BYTES,
        guard::{ELEMENT_BYTES, ELEMENTS_MAX},
    },
};

/// Small requests have a share of their own, this part of what all have.
const SMALL_SHARE: usize = 16;

/// The shares. A permit is a byte; permits come back when they are dropped.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) small_requests: Arc<Semaphore>,
    decoded: Arc<Semaphore>,
    responses: Arc<Semaphore>,
    response_bytes_max: usize,
    request_bytes_max: usize,
    decoded_bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        // One request with the most elements always fits.
        let decoded = limits.in_flight_bytes_max.max(ELEMENTS_MAX * ELEMENT_BYTES);
        Self {
            requests: Arc::new(Semaphore::new(limits.in_flight_bytes_max)),
            small_requests: Arc::new(Semaphore::new(
                (limits.in_flight_bytes_max / SMALL_SHARE).max(SMALL_BYTES),
            )),
            decoded: Arc::new(Semaphore::new(decoded)),
            responses: Arc::new(Semaphore::new(limits.response_bytes_max)),
            response_bytes_max: limits.response_bytes_max,
            request_bytes_max: limits.in_flight_bytes_max,
            decoded_bytes_max: decoded,
        }
    }

    /// Each kind of memory: its name, how much is taken, and how much there is.
    pub(crate) fn used(&self) -> [(&'static str, usize, usize); 3] {
        let kinds = [
            ("requests", &self.requests, self.request_bytes_max),
            ("decoded requests", &self.decoded, self.decoded_bytes_max),
            ("answers", &self.responses, self.response_bytes_max),
        ];
        kinds.map(|(name, free, max)| (name, max.saturating_sub(free.available_permits()), max))
    }

    /// Room for a request of `elements`, which the guard has bounded.
    pub(crate) async fn decoded(&self, elements: usize) -> Result<OwnedSemaphorePermit, Abort> {
        let bytes = elements.min(ELEMENTS_MAX) * ELEMENT_BYTES;
        acquire(&self.decoded, bytes).await
    }

    /// Room for an answer of about `bytes`. One that is larger than all there is takes all there is.
    pub(crate) async fn response(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Abort> {
        acquire(&self.responses, bytes.min(self.response_bytes_max)).await
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Abort> {
    // Every amount is below a validated u32 or a constant.
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    semaphore
        .clone()
        .acquire_many_owned(permits)
        .await
        .map_err(|_| Abort::Stopping)
}
