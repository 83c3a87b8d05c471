//! The addresses that clients connect to: one port for each node.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};

use tokio::net::{TcpListener, TcpStream};

use crate::{config::split_address, start_error::StartError};

/// Sockets that listen, in the order of the nodes.
#[derive(Debug)]
pub(crate) struct Listeners {
    all: Vec<TcpListener>,
    /// Whose turn it is: a busy port must not keep others waiting.
    turn: AtomicUsize,
}

impl Listeners {
    /// Listens at `address` and the ports after it; at port 0 at a free port for each.
    pub(crate) async fn bind(address: &str, nodes: u32) -> Result<Self, StartError> {
        let mut all = Vec::new();
        for node in 0..nodes {
            let address = address_of(address, node);
            let bound = TcpListener::bind(&address).await;
            all.push(bound.map_err(|source| StartError::listen(&address, source))?);
        }
        Ok(Self {
            all,
            turn: AtomicUsize::new(0),
        })
    }

    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.all.iter().map(TcpListener::local_addr).collect()
    }

    /// The next connection at any of them.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            for step in 0..self.all.len() {
                let listener = &self.all[turn.wrapping_add(step) % self.all.len()];
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Where a node listens, or is told to be, if the first one is at `address`.
fn address_of(address: &str, node: u32) -> String {
    match (split_address(address), u16::try_from(node)) {
        (Some((host, port)), Ok(node)) if port > 0 => {
            let port = port.saturating_add(node);
            match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            }
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_listen_at_ports_in_a_row() {
        assert_eq!(address_of("localhost:9092", 0), "localhost:9092");
        assert_eq!(address_of("localhost:9092", 2), "localhost:9094");
        assert_eq!(address_of("[::1]:9092", 1), "[::1]:9093");
        assert_eq!(address_of("[::1]:0", 1), "[::1]:0");
    }

    #[tokio::test]
    async fn a_connection_to_any_of_them_is_taken() {
        let listeners = Listeners::bind("127.0.0.1:0", 3).await.unwrap();
        for address in listeners.addresses().unwrap() {
            let (connected, accepted) =
                tokio::join!(TcpStream::connect(address), listeners.accept());
            let (taken, peer) = accepted.unwrap();
            assert_eq!(connected.unwrap().local_addr().unwrap(), peer);
            assert_eq!(taken.local_addr().unwrap(), address);
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = Listeners::bind(&address.to_string(), 1).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
