//! Accepts connections: `open connections <= limits.connections_max`, each a task of its own.
//!
//! A task that ends, in whatever way, is taken note of and frees its place. Out of file descriptors the loop rests a
//! little instead of spinning.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, JoinSet},
};

use crate::{connection, node::Node};

/// The rest after a failed accept: what is missing (descriptors, memory) comes back when others end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then until the last connection has been answered. Dropping the future ends all at once.
pub(crate) async fn run(
    listener: TcpListener,
    node: Arc<Node>,
    mut stopping: watch::Receiver<bool>,
) {
    let connections_max = node.config.limits.connections_max;
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_, peer)) if connections.len() >= connections_max => {
                tracing::info!(%peer, connections_max, "connection refused: limits.connections_max are open");
            }
            Ok((stream, peer)) => {
                let (node, stopping) = (node.clone(), stopping.clone());
                connections.spawn(async move {
                    match connection::serve(stream, peer, node, stopping).await {
                        Err(error) if error.is_protocol() => {
                            tracing::info!(%peer, %error, "connection ended");
                        }
                        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
                        Ok(()) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a defect of this program; others go on");
    }
}
