//! A broker in four small files: named streams over TCP, a line a request.
//!
//! | request | answer |
//! |---|---|
//! | `CREATE name` | `OK` |
//! | `PUT name text` | `OK offset`, once the line is durable |
//! | `GET name offset count` | lines `offset text`, then `END next` |
//! | `TAIL name offset` | lines `offset text` as they come; the next line of the client ends it: `END next` |
//! | `LIST` | lines `name start end`, then `END` |
//!
//! Any of them may be answered `ERR kind what`. Try it: `--listen 127.0.0.1:7000 --data DIR`, then `nc 127.0.0.1 7000`.
//! Without arguments it talks to itself, prints both sides, and ends.
//!
//! What it does not do: know who is asking, time out, or keep more than one append of a connection under way.

mod broker;
mod connection;
mod demonstration;
mod request;
mod server;

use std::{error::Error, net::SocketAddr, path::PathBuf};

use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::broker::Broker;

/// Named streams over TCP, a line a request. Without arguments: a demonstration.
#[derive(Parser)]
struct Arguments {
    /// Where to listen, as 127.0.0.1:7000.
    #[arg(long, requires = "data")]
    listen: Option<SocketAddr>,
    /// The directory of bucket and log; made if it is not there.
    #[arg(long, requires = "listen")]
    data: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse() {
        Arguments {
            listen: Some(listen),
            data: Some(data),
        } => {
            // Before anything is opened, so that no signal is missed.
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let listener = TcpListener::bind(listen).await?;
            let broker = Broker::open(&data).await?;
            println!("listening on {}", listener.local_addr()?);
            server::serve(listener, broker, async move {
                tokio::select! {
                    biased;
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            })
            .await?;
            println!("closed: the bucket has everything");
            Ok(())
        }
        _ => demonstration::run().await,
    }
}
