//! One client connection: requests are begun in the order they arrive, answers leave in the same order.
//!
//! `unanswered requests <= limits.requests_in_flight_max`, `their bytes <= limits.request_bytes_max`. While an answer
//! waits for durability further requests are begun, so a pipelining producer keeps the log busy. A connection is one task:
//! whatever goes wrong in it ends it and nothing else (F59).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use kafka_protocol::messages::ApiKey;
use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};

use crate::{
    api::{self, Abort, Reply, Request, Session},
    node::Node,
    wire::{
        apis,
        frame::{self, Frame, FrameError, FrameLimits, Patience, Permits},
        guard,
        header::{self, HeaderError, Prefix},
        response::{Head, Response},
    },
};

/// A request with fewer elements is not charged for what it decodes to: its frame is.
const ELEMENTS_FREE: usize = 64;

/// Why a connection ended before its peer closed it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("api key {0} is not served")]
    UnknownKey(i16),
    #[error("{key:?} v{version} is not served")]
    UnknownVersion { key: ApiKey, version: i16 },
    #[error("{key:?} v{version} request: {refusal}")]
    Refused {
        key: ApiKey,
        version: i16,
        refusal: guard::Refusal,
    },
    #[error(transparent)]
    Abort(#[from] Abort),
    #[error("writing: {0}")]
    Write(#[source] io::Error),
}

impl ConnectionError {
    /// Whether the client, not the network, is to blame: worth a line in the log.
    pub(crate) fn is_protocol(&self) -> bool {
        !matches!(
            self,
            Self::Frame(
                FrameError::Io(_)
                    | FrameError::Idle(_)
                    | FrameError::Mute(_)
                    | FrameError::Stopping
            ) | Self::Write(_)
        )
    }
}

/// An answer that waits for its turn, and what its request holds until then.
struct Pending {
    asked: Asked,
    reply: BoxFuture<'static, Result<Response, Abort>>,
    _held: Held,
}

/// What is counted of a request when it is done.
#[derive(Clone, Copy, Debug)]
struct Asked {
    key: ApiKey,
    bytes: usize,
    at: Instant,
}

impl Asked {
    fn done(self, node: &Node, bytes_out: usize) {
        let took = self.at.elapsed();
        node.metrics.done(self.key, took, self.bytes, bytes_out);
    }
}

#[derive(Debug)]
struct Held {
    _turn: OwnedSemaphorePermit,
    _frame: Permits,
    _decoded: Option<OwnedSemaphorePermit>,
}

/// Serves a connection until its peer closes it, it breaks a rule, or the broker stops.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    node: Arc<Node>,
    stopping: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    // Answers are written whole, so there is nothing to gather. Failing to say so costs latency only.
    let _ = stream.set_nodelay(true);
    let local = stream
        .local_addr()
        .map_err(|error| ConnectionError::Frame(error.into()))?;
    tracing::trace!(%peer, %local, "connected");
    let (from, to) = stream.into_split();
    let (end, closing) = watch::channel(false);
    let (queue, answers) = mpsc::channel(node.config.limits.requests_in_flight_max);
    let session = Session {
        local,
        peer,
        closing,
    };
    let patience = Patience {
        stall: Duration::from_millis(node.config.limits.write_stall_timeout_ms),
        whole: Duration::from_millis(node.config.limits.write_timeout_ms),
    };
    let drain = Duration::from_millis(node.config.limits.idle_timeout_ms);
    let reading = read_requests(from, &node, session, queue, stopping);
    let writing = write_answers(&node, to, answers, patience);
    tokio::pin!(reading, writing);
    // The writer first: an answer that is due goes out before another request is taken in.
    let read = tokio::select! {
        biased;
        written = &mut writing => return written,
        read = &mut reading => read,
    };
    // What was asked before the end is still answered; a peer that is gone shows itself at the first write.
    end.send_replace(true);
    let written = timeout(drain, writing).await.unwrap_or(Ok(()));
    read.and(written)
}

async fn read_requests(
    mut from: OwnedReadHalf,
    node: &Arc<Node>,
    session: Session,
    queue: mpsc::Sender<Pending>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let limits = &node.config.limits;
    let frames = FrameLimits {
        bytes_max: limits.request_bytes_max,
        read_timeout: Duration::from_millis(limits.request_read_timeout_ms),
        idle_timeout: Duration::from_millis(limits.idle_timeout_ms),
        connection: Arc::new(Semaphore::new(limits.request_bytes_max)),
        broker: node.budget.requests.clone(),
        small: node.budget.small_requests.clone(),
    };
    // The queue alone would not do: an answer that is waited for has left it.
    let in_flight = Arc::new(Semaphore::new(limits.requests_in_flight_max));
    let mut is_first = true;
    loop {
        let turn = in_flight.clone().acquire_owned().await;
        let (Ok(turn), Ok(slot)) = (turn, queue.reserve().await) else {
            return Ok(()); // the writer has ended and says why
        };
        let frame = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
            frame = frame::read(&mut from, &frames, is_first) => frame?,
        };
        is_first = false;
        let Some(frame) = frame else {
            return Ok(());
        };
        let (reply, asked, held) = begin(node, &session, frame, turn).await?;
        match reply {
            Reply::Silent => asked.done(node, 0),
            Reply::Later(reply) => slot.send(Pending {
                asked,
                reply,
                _held: held,
            }),
        }
    }
}

/// From a frame to a request that has been begun.
async fn begin(
    node: &Arc<Node>,
    session: &Session,
    frame: Frame,
    turn: OwnedSemaphorePermit,
) -> Result<(Reply, Asked, Held), ConnectionError> {
    let Frame { bytes, permits } = frame;
    let mut held = Held {
        _turn: turn,
        _frame: permits,
        _decoded: None,
    };
    let Prefix {
        key,
        version,
        correlation_id,
    } = Prefix::decode(&bytes)?;
    let api = apis::find(key).ok_or(ConnectionError::UnknownKey(key))?;
    let key = api.key;
    let asked = Asked {
        key,
        bytes: bytes.len(),
        at: Instant::now(),
    };
    if !api.accepted.contains(&version) {
        // The one request whose sender cannot know what is served (F1).
        if key == ApiKey::ApiVersions {
            return Ok((api::unsupported_version(correlation_id)?, asked, held));
        }
        return Err(ConnectionError::UnknownVersion { key, version });
    }
    let flexible = api.is_flexible(version);
    let (client_id, body) = header::split(&bytes, flexible)?;
    let elements = guard::check(api.layout, version, flexible, &body).map_err(|refusal| {
        ConnectionError::Refused {
            key,
            version,
            refusal,
        }
    })?;
    if elements > ELEMENTS_FREE {
        held._decoded = Some(node.budget.decoded(elements).await?);
    }
    let request = Request {
        head: Head {
            key,
            version,
            correlation_id,
        },
        client_id,
        body,
    };
    drop(bytes);
    let reply = api::begin(node, session, request).await?;
    Ok((reply, asked, held))
}

async fn write_answers(
    node: &Node,
    mut to: OwnedWriteHalf,
    mut answers: mpsc::Receiver<Pending>,
    patience: Patience,
) -> Result<(), ConnectionError> {
    while let Some(pending) = answers.recv().await {
        let Pending {
            asked,
            reply,
            _held,
        } = pending;
        let Response { pieces, permit } = reply.await?;
        let bytes = pieces.iter().map(Bytes::len).sum();
        frame::write(&mut to, pieces, patience)
            .await
            .map_err(ConnectionError::Write)?;
        drop(permit);
        asked.done(node, bytes);
    }
    Ok(())
}
