//! Frames on a connection: a length of four bytes, then that many bytes.
//!
//! The budget's permit is taken before memory is: `sum of frames in memory <= limits.in_flight_bytes_max`, and a sixteenth more
//! of small ones. A peer that announces a frame and does not send it holds the permit for `limits.request_read_timeout_ms` and
//! is then cut off.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// A request and the share of the budgets that it holds until it is answered.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) permits: Permits,
}

/// A share of the bytes of one connection and of the whole broker.
#[derive(Debug)]
pub(crate) struct Permits {
    _connection: OwnedSemaphorePermit,
    _broker: OwnedSemaphorePermit,
}

/// Why no further request can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a request of {len} bytes, the limit is {max} (limits.request_bytes_max)")]
    TooLarge { len: i32, max: usize },
    #[error(
        "a request of {len} bytes had not arrived after {waited:?} (limits.request_read_timeout_ms)"
    )]
    Slow { len: usize, waited: Duration },
    #[error("no request for {0:?} (limits.idle_timeout_ms)")]
    Idle(Duration),
    #[error("no first request within {0:?} (limits.request_read_timeout_ms)")]
    Mute(Duration),
    #[error("the broker is stopping")]
    Stopping,
    #[error("reading: {0}")]
    Io(#[from] io::Error),
}

/// How frames of one connection are read.
#[derive(Debug)]
pub(crate) struct FrameLimits {
    pub(crate) bytes_max: usize,
    pub(crate) read_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// `bytes_max` permits: what one connection may have unanswered.
    pub(crate) connection: Arc<Semaphore>,
    /// What all connections may have unanswered; at least `bytes_max`.
    pub(crate) broker: Arc<Semaphore>,
    /// What small frames may have when nothing is left of that; at least [`SMALL_BYTES`].
    pub(crate) small: Arc<Semaphore>,
}

/// A frame up to this is small: heartbeats, commits, fetches and the like go on while large ones wait for one another.
pub(crate) const SMALL_BYTES: usize = 16 * 1024;

/// Reads one frame; `None` when the peer has closed between frames. The first of a connection has less time to begin.
pub(crate) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    limits: &FrameLimits,
    is_first: bool,
) -> Result<Option<Frame>, FrameError> {
    let mut head = [0; 4];
    let (wait, error): (_, fn(Duration) -> FrameError) = match is_first {
        true => (
            limits.read_timeout.min(limits.idle_timeout),
            FrameError::Mute,
        ),
        false => (limits.idle_timeout, FrameError::Idle),
    };
    let first = timeout(wait, from.read(&mut head))
        .await
        .map_err(|_| error(wait))??;
    if first == 0 {
        return Ok(None);
    }
    let slow = |len| FrameError::Slow {
        len,
        waited: limits.read_timeout,
    };
    timeout(limits.read_timeout, from.read_exact(&mut head[first..]))
        .await
        .map_err(|_| slow(4))??;
    let stated = i32::from_be_bytes(head);
    let len = match usize::try_from(stated) {
        Ok(len) if len <= limits.bytes_max => len,
        _ => {
            return Err(FrameError::TooLarge {
                len: stated,
                max: limits.bytes_max,
            });
        }
    };
    let permits = limits.acquire(len as u32).await?;
    let mut bytes = BytesMut::with_capacity(len);
    let filled = timeout(limits.read_timeout, async {
        while bytes.len() < len {
            if (&mut *from)
                .take((len - bytes.len()) as u64)
                .read_buf(&mut bytes)
                .await?
                == 0
            {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(())
    });
    filled.await.map_err(|_| slow(len))??;
    Ok(Some(Frame {
        bytes: bytes.freeze(),
        permits,
    }))
}

impl FrameLimits {
    /// The connection's share first: whoever waits for the broker's share then holds nothing that another connection needs.
    async fn acquire(&self, len: u32) -> Result<Permits, FrameError> {
        let acquire = async |semaphore: &Arc<Semaphore>| {
            let permits = semaphore.clone().acquire_many_owned(len).await;
            permits.map_err(|_| FrameError::Stopping)
        };
        let connection = acquire(&self.connection).await?;
        let broker = match self.broker.clone().try_acquire_many_owned(len) {
            Ok(permits) => permits,
            Err(_) if len as usize <= SMALL_BYTES => acquire(&self.small).await?,
            Err(_) => acquire(&self.broker).await?,
        };
        Ok(Permits {
            _connection: connection,
            _broker: broker,
        })
    }
}

/// How long a peer may take for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For anything of it.
    pub(crate) stall: Duration,
    /// For all of it.
    pub(crate) whole: Duration,
}

/// Writes one frame of `pieces` without joining them. A peer that takes nothing or too little of it is given up.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    pieces: Vec<Bytes>,
    patience: Patience,
) -> io::Result<()> {
    timeout(patience.whole, write_all(to, pieces, patience.stall))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn write_all(
    to: &mut (impl AsyncWrite + Unpin),
    pieces: Vec<Bytes>,
    stall: Duration,
) -> io::Result<()> {
    const SLICES: usize = 64;
    let len: usize = pieces.iter().map(Bytes::len).sum();
    let len = i32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut pieces = VecDeque::from(pieces);
    pieces.push_front(Bytes::copy_from_slice(&len.to_be_bytes()));
    loop {
        while pieces.front().is_some_and(|piece| piece.is_empty()) {
            pieces.pop_front();
        }
        if pieces.is_empty() {
            return Ok(());
        }
        let slices: Vec<io::IoSlice<'_>> = pieces
            .iter()
            .take(SLICES)
            .map(|piece| io::IoSlice::new(piece))
            .collect();
        let mut written = timeout(stall, to.write_vectored(&slices))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while written > 0 {
            let front = pieces.front_mut().expect("written <= sum of the pieces");
            let step = written.min(front.len());
            front.advance(step);
            written -= step;
            if front.is_empty() {
                pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn limits(bytes_max: usize) -> FrameLimits {
        FrameLimits {
            bytes_max,
            read_timeout: Duration::from_millis(50),
            idle_timeout: Duration::from_secs(5),
            connection: Arc::new(Semaphore::new(bytes_max)),
            broker: Arc::new(Semaphore::new(bytes_max)),
            small: Arc::new(Semaphore::new(SMALL_BYTES)),
        }
    }

    const PATIENCE: Patience = Patience {
        stall: Duration::from_secs(5),
        whole: Duration::from_secs(5),
    };

    #[tokio::test]
    async fn a_frame_holds_its_permits_until_it_is_dropped() {
        let limits = limits(10);
        let mut bytes = &[0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0][..];
        let frame = read(&mut bytes, &limits, true).await.unwrap().unwrap();
        assert_eq!(&frame.bytes[..], [1, 2, 3]);
        assert_eq!(limits.broker.available_permits(), 7);
        drop(frame);
        assert_eq!(limits.broker.available_permits(), 10);
        let empty = read(&mut bytes, &limits, false).await.unwrap().unwrap();
        assert!(empty.bytes.is_empty());
        assert!(read(&mut bytes, &limits, false).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_or_below_zero_is_refused_before_memory_is_taken() {
        for len in [11, i32::MAX, -1, i32::MIN] {
            let head = len.to_be_bytes();
            let error = read(&mut &head[..], &limits(10), true).await.unwrap_err();
            assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_never_arrives_is_given_up_and_its_permit_returned() {
        let limits = limits(10);
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
        let error = read(&mut near, &limits, true).await.unwrap_err();
        assert!(matches!(error, FrameError::Slow { len: 9, .. }), "{error}");
        assert_eq!(limits.broker.available_permits(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_trickles_in_is_given_up_at_the_same_time() {
        let limits = limits(100);
        let (mut near, mut far) = tokio::io::duplex(64);
        let trickle = async {
            far.write_all(&[0, 0, 0, 99]).await.unwrap();
            // Never silent for as long as the limit.
            while far.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(limits.read_timeout / 2).await;
            }
        };
        let error = tokio::select! {
            biased;
            read = read(&mut near, &limits, true) => read.unwrap_err(),
            () = trickle => panic!("the reader is gone"),
        };
        assert!(matches!(error, FrameError::Slow { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_opens_and_says_nothing_is_given_up_sooner_than_who_has_spoken() {
        let limits = limits(10);
        let (mut near, _far) = tokio::io::duplex(64);
        let begun = tokio::time::Instant::now();
        let error = read(&mut near, &limits, true).await.unwrap_err();
        assert!(matches!(error, FrameError::Mute(_)), "{error}");
        assert_eq!(begun.elapsed(), limits.read_timeout);
        let error = read(&mut near, &limits, false).await.unwrap_err();
        assert!(matches!(error, FrameError::Idle(_)), "{error}");
        assert_eq!(begun.elapsed(), limits.read_timeout + limits.idle_timeout);
    }

    #[tokio::test]
    async fn small_frames_go_on_while_large_ones_hold_everything() {
        let limits = limits(SMALL_BYTES * 4);
        let all = limits
            .broker
            .clone()
            .acquire_many_owned(SMALL_BYTES as u32 * 4);
        let _all = all.await.unwrap();
        let mut bytes = (SMALL_BYTES as u32).to_be_bytes().to_vec();
        bytes.resize(4 + SMALL_BYTES, 7);
        let frame = read(&mut &bytes[..], &limits, true).await.unwrap().unwrap();
        assert_eq!(limits.small.available_permits(), 0);
        drop(frame);
        let large = limits.acquire(SMALL_BYTES as u32 + 1);
        assert!(large.now_or_never().is_none(), "it waits");
    }

    #[tokio::test]
    async fn pieces_arrive_joined_whatever_the_size_of_the_pipe() {
        let (mut near, mut far) = tokio::io::duplex(3);
        let pieces: Vec<Bytes> = (0..200u8)
            .map(|i| Bytes::from(vec![i; usize::from(i) % 5]))
            .collect();
        let mut expected = 400u32.to_be_bytes().to_vec();
        expected.extend(pieces.iter().flatten());
        let writing = tokio::spawn(async move { write(&mut near, pieces, PATIENCE).await });
        let mut found = Vec::new();
        far.read_to_end(&mut found).await.unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (mut near, _far) = tokio::io::duplex(3);
        let pieces = vec![Bytes::from_static(b"four")];
        let patience = Patience {
            stall: Duration::from_millis(20),
            ..PATIENCE
        };
        let error = write(&mut near, pieces, patience).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_byte_now_and_then_is_given_up_too() {
        let (mut near, mut far) = tokio::io::duplex(1);
        let sip = async {
            // Never as long without a byte as makes a stall.
            while far.read_u8().await.is_ok() {
                tokio::time::sleep(PATIENCE.stall / 2).await;
            }
        };
        let begun = tokio::time::Instant::now();
        let pieces = vec![Bytes::from(vec![7; 1000])];
        let error = tokio::select! {
            biased;
            written = write(&mut near, pieces, PATIENCE) => written.unwrap_err(),
            () = sip => panic!("the writer is gone"),
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), PATIENCE.whole);
    }
}
