//! Accepts connections as far as there are places, each a task of its own.
//!
//! A task that ends, in whatever way, is taken note of and frees its place (F59). Out of file descriptors the loop rests a
//! little instead of spinning.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::watch,
    task::{JoinError, JoinSet},
};

use crate::{
    admission::{Admission, NoPlace},
    connection,
    listeners::Listeners,
    node::Node,
};

/// The rest after a failed accept: what is missing (descriptors, memory) comes back when others end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then until the last connection has been answered. Dropping the future ends all at once.
pub(crate) async fn run(listeners: Listeners, node: Arc<Node>, stopping: watch::Receiver<bool>) {
    let admission = node.admission.clone();
    let counting = node.clone();
    let refused = move |peer: SocketAddr, reason: NoPlace| {
        counting.metrics.connections.refused.add(1);
        tracing::info!(%peer, %reason, "connection refused");
    };
    let serve = move |stream, peer, stopping| {
        let node = node.clone();
        node.metrics.connections.accepted.add(1);
        async move {
            match connection::serve(stream, peer, node.clone(), stopping).await {
                Err(error) if error.is_protocol() => {
                    node.metrics.connections.broken.add(1);
                    tracing::info!(%peer, %error, "connection ended");
                }
                Err(error) => tracing::debug!(%peer, %error, "connection ended"),
                Ok(()) => tracing::debug!(%peer, "connection closed"),
            }
        }
    };
    accept_all(listeners, admission, stopping, serve, refused).await;
}

/// As [`run`], whatever a connection is served by.
async fn accept_all<F>(
    listeners: Listeners,
    admission: Arc<Admission>,
    mut stopping: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, SocketAddr, watch::Receiver<bool>) -> F,
    refused: impl Fn(SocketAddr, NoPlace),
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = listeners.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match admission.admit(peer.ip()) {
                Ok(place) => {
                    let served = serve(stream, peer, stopping.clone());
                    connections.spawn(async move {
                        let _place = place;
                        served.await;
                    });
                }
                Err(reason) => refused(peer, reason),
            },
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Limits;

    #[tokio::test]
    async fn a_panic_ends_its_connection_alone_and_frees_its_place() {
        let listeners = Listeners::bind("127.0.0.1:0", 1).await.unwrap();
        let address = listeners.addresses().unwrap()[0];
        let admission = Admission::new(&Limits {
            connections_max: 2,
            ..Limits::default()
        });
        let (stop, stopping) = watch::channel(false);
        // A byte of 0 is a defect, any other is sent back.
        let serve = |mut stream: TcpStream, _, _| async move {
            while let Ok(byte) = stream.read_u8().await {
                assert_ne!(byte, 0, "the defect of this test");
                stream.write_u8(byte).await.unwrap();
            }
        };
        let refused = |_, reason| panic!("{reason}");
        let server = accept_all(listeners, admission.clone(), stopping, serve, refused);
        let server = tokio::spawn(server);
        let mut steady = TcpStream::connect(address).await.unwrap();
        for round in 1..=5 {
            let mut defective = TcpStream::connect(address).await.unwrap();
            defective.write_u8(0).await.unwrap();
            assert_eq!(defective.read(&mut [0]).await.unwrap_or(0), 0);
            steady.write_u8(round).await.unwrap();
            assert_eq!(steady.read_u8().await.unwrap(), round);
        }
        drop(steady);
        stop.send_replace(true);
        server.await.unwrap();
        assert_eq!(admission.open(), 0);
    }
}
