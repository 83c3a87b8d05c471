//! Frames on a connection: a length of four bytes, then that many bytes.
//!
//! The budget's permit is taken before memory is: `sum of frames in memory <= limits.in_flight_bytes_max`. A peer that
//! announces a frame and does not send it holds the permit for `limits.request_read_timeout_ms` and is then cut off.

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
}

/// Reads one frame; `None` when the peer has closed between frames.
pub(crate) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    limits: &FrameLimits,
) -> Result<Option<Frame>, FrameError> {
    let mut head = [0; 4];
    let first = timeout(limits.idle_timeout, from.read(&mut head))
        .await
        .map_err(|_| FrameError::Idle(limits.idle_timeout))??;
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
        let acquire = |semaphore: &Arc<Semaphore>| semaphore.clone().acquire_many_owned(len);
        Ok(Permits {
            _connection: acquire(&self.connection)
                .await
                .map_err(|_| FrameError::Stopping)?,
            _broker: acquire(&self.broker)
                .await
                .map_err(|_| FrameError::Stopping)?,
        })
    }
}

/// Writes one frame of `pieces` without joining them. A peer that takes nothing for `stall` is given up.
pub(crate) async fn write(
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
    use super::*;

    fn limits(bytes_max: usize) -> FrameLimits {
        FrameLimits {
            bytes_max,
            read_timeout: Duration::from_millis(50),
            idle_timeout: Duration::from_secs(5),
            connection: Arc::new(Semaphore::new(bytes_max)),
            broker: Arc::new(Semaphore::new(bytes_max)),
        }
    }

    #[tokio::test]
    async fn a_frame_holds_its_permits_until_it_is_dropped() {
        let limits = limits(10);
        let mut bytes = &[0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0][..];
        let frame = read(&mut bytes, &limits).await.unwrap().unwrap();
        assert_eq!(&frame.bytes[..], [1, 2, 3]);
        assert_eq!(limits.broker.available_permits(), 7);
        drop(frame);
        assert_eq!(limits.broker.available_permits(), 10);
        let empty = read(&mut bytes, &limits).await.unwrap().unwrap();
        assert!(empty.bytes.is_empty());
        assert!(read(&mut bytes, &limits).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_or_below_zero_is_refused_before_memory_is_taken() {
        for len in [11, i32::MAX, -1, i32::MIN] {
            let head = len.to_be_bytes();
            let error = read(&mut &head[..], &limits(10)).await.unwrap_err();
            assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_never_arrives_is_given_up_and_its_permit_returned() {
        let limits = limits(10);
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
        let error = read(&mut near, &limits).await.unwrap_err();
        assert!(matches!(error, FrameError::Slow { len: 9, .. }), "{error}");
        assert_eq!(limits.broker.available_permits(), 10);
    }

    #[tokio::test]
    async fn pieces_arrive_joined_whatever_the_size_of_the_pipe() {
        let (mut near, mut far) = tokio::io::duplex(3);
        let pieces: Vec<Bytes> = (0..200u8)
            .map(|i| Bytes::from(vec![i; usize::from(i) % 5]))
            .collect();
        let mut expected = 400u32.to_be_bytes().to_vec();
        expected.extend(pieces.iter().flatten());
        let writing =
            tokio::spawn(async move { write(&mut near, pieces, Duration::from_secs(5)).await });
        let mut found = Vec::new();
        far.read_to_end(&mut found).await.unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (mut near, _far) = tokio::io::duplex(3);
        let pieces = vec![Bytes::from_static(b"four")];
        let error = write(&mut near, pieces, Duration::from_millis(20)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
