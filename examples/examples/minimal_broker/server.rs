//! Accepts connections until it is told to stop, then closes the broker.
//!
//! At most [`CONNECTIONS_MAX`] are served at once; further ones wait where the kernel keeps them.

use std::{future::Future, time::Duration};

use s3stream::Result;
use tokio::{net::TcpListener, task::JoinSet};

use super::{broker::Broker, connection::Connection};

const CONNECTIONS_MAX: usize = 64;
/// After a refused accept, which has its cause in this process or host and would be refused again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Ends when `stop` resolves or the engine ends by itself. Requests under way are given up; what was appended is in the log all the same.
pub(crate) async fn serve(
    listener: TcpListener,
    broker: Broker,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    let ended = broker.ended();
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            error = &mut ended => return Err(error),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((socket, client)) => {
                    let connection = Connection::new(broker.clone(), socket);
                    connections.spawn(async move {
                        if let Err(error) = connection.serve().await {
                            eprintln!("{client}: {error}");
                        }
                    });
                }
                Err(error) => {
                    eprintln!("accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
    broker.close().await
}
