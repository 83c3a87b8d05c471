//! Background tasks: a task that panics ends its engine with a reason instead of leaving callers to wait for ever.

use std::{future::Future, sync::Arc};

use tokio::task::JoinHandle;

use crate::Error;

/// Whom to tell when a task panics.
pub(crate) trait OnPanic: Send + Sync + 'static {
    /// `error` names the task.
    fn task_panicked(&self, error: Error);
}

struct Guard<T: OnPanic> {
    name: &'static str,
    owner: Arc<T>,
}

impl<T: OnPanic> Drop for Guard<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.owner.task_panicked(
                Error::internal("a background task panicked").with("task", self.name),
            );
        }
    }
}

/// Spawns `future`; its panic is reported to `owner`.
pub(crate) fn spawn<T, F>(name: &'static str, owner: &Arc<T>, future: F) -> JoinHandle<F::Output>
where
    T: OnPanic,
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let guard = Guard {
        name,
        owner: owner.clone(),
    };
    tokio::spawn(async move {
        let _guard = guard;
        future.await
    })
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Owned<T>(JoinHandle<T>);

impl<T> Owned<T> {
    pub(crate) fn new(handle: JoinHandle<T>) -> Self {
        Self(handle)
    }

    /// The task's result; `None` if it panicked.
    pub(crate) async fn join(&mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
