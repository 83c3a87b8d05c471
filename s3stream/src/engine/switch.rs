//! Opening a node with another log than the one it is registered with (M6): the registered one is settled first.
//!
//! Settling is a whole life of the engine on the registered log: it takes the log as a restart would (F0), uploads what is in it, and closes. After
//! that the node owes nothing, and its groups are nobody's until they are opened again. A crash on the way is a crash of that life.
//!
//! A log that cannot be had from its URL alone, such as a caller's own backend, is not settled here: the error names it.

use std::{sync::Arc, time::Duration};

use wal::{Backend, Found};

use super::{
    Engine,
    core::{Core, Parts},
};
use crate::{Error, Result, metadata::DebtView};

/// How long all of it may take. What was uploaded by then stays so.
const SETTLE_MOST: Duration = Duration::from_secs(600);

/// Settles the log that the node owes data in, if it is not the one in `parts`. `backend_at` knows the log at a URL.
pub(super) async fn settle_registered(
    parts: &Parts,
    backend_at: impl AsyncFnOnce(&str) -> Result<Arc<dyn Backend>>,
) -> Result<()> {
    let Some(debt) = registered_elsewhere(parts).await? else {
        return Ok(());
    };
    tracing::info!(
        registered = debt.url,
        opened = parts.wal.url(),
        "settling the registered log"
    );
    settle(parts, &debt, backend_at).await.map_err(|error| {
        let kind = error.kind();
        Error::new(
            kind,
            "the node owes data in another log, which could not be settled: bring that log back, or open the node with it",
        )
        .with("registered log", &debt.url)
        .caused_by(error)
    })
}

async fn registered_elsewhere(parts: &Parts) -> Result<Option<DebtView>> {
    let owed: Vec<DebtView> = parts.metadata.view(|state| {
        let own = |debt: &DebtView| debt.holder == parts.node && debt.started;
        state.debts().filter(own).collect()
    });
    let here = parts.wal.url();
    let Some(debt) = owed.last().filter(|debt| debt.url != here) else {
        return Ok(None);
    };
    Ok(match parts.wal.identify().await.map_err(Error::from)? {
        Found::Blank => Some(debt.clone()),
        // Perhaps the registered log itself, moved to another place.
        Found::Closed(found) => {
            let moved = owed.iter().any(|debt| debt.log == found.log);
            (!moved).then(|| debt.clone())
        }
        // The registered log, or somebody's: then the opening says whose, and nothing is settled for an opening that fails.
        Found::Live(_) => None,
    })
}

async fn settle(
    parts: &Parts,
    debt: &DebtView,
    backend_at: impl AsyncFnOnce(&str) -> Result<Arc<dyn Backend>>,
) -> Result<()> {
    let wal = backend_at(&debt.url).await?;
    match wal.identify().await.map_err(Error::from)? {
        Found::Live(found) | Found::Closed(found) if found.log == debt.log => {}
        found => {
            return Err(Error::invalid("another log is there, or none")
                .with("log", &debt.url)
                .with("expected", debt.log)
                .with("found", format_args!("{found:?}")));
        }
    }
    let parts = Parts {
        wal,
        ..parts.clone()
    };
    let settled = async {
        let engine = Engine::start(Core::new(parts)).await?;
        engine.close(SETTLE_MOST).await
    };
    let in_time = tokio::time::timeout(SETTLE_MOST, settled).await;
    in_time.unwrap_or_else(|_| {
        Err(Error::unavailable("it was not settled in time")
            .with("waited_s", SETTLE_MOST.as_secs()))
    })
}
