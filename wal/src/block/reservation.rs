//! A volume that several hosts can attach: the persistent reservation that keeps all hosts but one from writing (F2, decision 0013).
//!
//! - From before the taker reads until another takes it, no write of any other host lands: the pre-emption is the fence.
//! - Each step may be repeated, and a crash after any of them leaves nothing that the next taker must know: it registers anew and removes whoever else
//!   is registered, so nobody needs to know anybody's key.
//! - Nothing is given back: a reservation that nobody uses keeps nobody from taking it.
//!
//! It tells hosts apart, not processes: of those `O_EXCL` lets in one at a time.

use std::{
    fmt::Debug,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::Duration,
};

use super::file::blocking;
use crate::Error;

/// What one host asks of a device. Each call may block, and may be repeated.
pub trait Reservations: Send + Sync + Debug {
    /// Registers this host under `key`.
    ///
    /// # Errors
    /// `Unsupported` where the device takes no reservations, `Unguarded` where that cannot be told or would not help; `Conflict` if this host is registered under another key, by another program.
    fn register(&self, key: u64) -> Result<(), Refusal>;

    /// Reserves the device for all that are registered, of which this host is one: nobody else may write.
    ///
    /// # Errors
    /// `Conflict` if this host is not registered any more, or the device is reserved in another way.
    fn reserve(&self, key: u64) -> Result<(), Refusal>;

    /// Removes every registration but this host's, and aborts what those hosts have in flight.
    ///
    /// # Errors
    /// `Conflict` if this host is not registered any more.
    fn preempt(&self, key: u64) -> Result<(), Refusal>;

    /// Whether the device says of itself that several hosts can attach it. Most say nothing, which is `false`.
    ///
    /// # Errors
    /// If it could not be asked.
    fn shared(&self) -> io::Result<bool>;
}

/// Why a device did not do what it was asked.
#[derive(Debug)]
pub enum Refusal {
    /// It takes no reservations.
    Unsupported(String),
    /// Another host was before this one.
    Conflict,
    /// Whether it does, or whether that would keep others from writing, cannot be told: it must not be used.
    Unguarded(String),
    /// Anything else.
    Failed(io::Error),
}

/// What every host registers under: nothing asks which one it is, and to register again under the same key is no change. Under any other key an NVMe
/// device would refuse a host that starts anew.
const KEY: u64 = u64::from_be_bytes(*b"s3stream");

/// A device has answered all of it by then. Kernels give up a command after some 30 s, but not all targets let them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Takes the device. When this returns `Ok`, no other host's write lands any more, or the device takes no reservations and does not say that it is
/// shared.
pub(crate) async fn take(place: String, reservations: Arc<dyn Reservations>) -> Result<(), Error> {
    blocking(move || take_within(PATIENCE, place, reservations)).await
}

/// On a thread of its own, which a device that never answers keeps. Should it answer after all, the next step is not asked for any more; the one that was
/// on its way may have fenced the owner of then.
fn take_within(
    limit: Duration,
    place: String,
    reservations: Arc<dyn Reservations>,
) -> Result<(), Error> {
    let (tell, told) = sync_channel(1);
    let given_up = Arc::new(AtomicBool::new(false));
    let late = Arc::clone(&given_up);
    let of = place.clone();
    let failed = |source| Error::Io {
        op: "reserve",
        place,
        source: Arc::new(source),
    };
    let thread = thread::Builder::new()
        .name("wal-reserve".to_owned())
        .spawn(move || {
            // The caller may have stopped waiting.
            let _ = tell.send(take_now(&of, &*reservations, &late));
        });
    if let Err(source) = thread {
        return Err(failed(source));
    }
    told.recv_timeout(limit).unwrap_or_else(|_| {
        given_up.store(true, Ordering::Release);
        Err(failed(io::ErrorKind::TimedOut.into()))
    })
}

fn take_now(
    place: &str,
    reservations: &dyn Reservations,
    given_up: &AtomicBool,
) -> Result<(), Error> {
    // Who did not wait for it may be somebody's zombie now: it fences nobody.
    let waited_for = || {
        if given_up.load(Ordering::Acquire) {
            let late = io::ErrorKind::TimedOut.into();
            return Err(refused(place, "reserve", Refusal::Failed(late)));
        }
        Ok(())
    };
    if let Err(refusal) = reservations.register(KEY) {
        return match refusal {
            Refusal::Unsupported(reason) => without(place, reservations, &reason),
            refusal => Err(refused(place, "register with", refusal)),
        };
    }
    waited_for()?;
    let reserved = reservations.reserve(KEY);
    reserved.map_err(|refusal| refused(place, "reserve", refusal))?;
    waited_for()?;
    let preempted = reservations.preempt(KEY);
    preempted.map_err(|refusal| refused(place, "pre-empt the other hosts of", refusal))?;
    tracing::info!(
        place,
        "a persistent reservation keeps other hosts from writing"
    );
    Ok(())
}

/// A device without reservations is used if it does not say that it is shared.
fn without(place: &str, reservations: &dyn Reservations, reason: &str) -> Result<(), Error> {
    match reservations.shared() {
        Ok(true) => Err(Error::Unguarded {
            place: place.to_owned(),
            what: format!(
                "says that several hosts can attach it, and takes no reservation that keeps others from writing: {reason}"
            ),
        }),
        Ok(false) => {
            tracing::info!(
                place,
                reason,
                "no persistent reservations: this volume must be attached to one host alone"
            );
            Ok(())
        }
        // It is of a kind that can say so, and did not.
        Err(error) => Err(Error::Unguarded {
            place: place.to_owned(),
            what: format!(
                "takes no reservation ({reason}), and whether several hosts can attach it could not be asked: {error}"
            ),
        }),
    }
}

fn refused(place: &str, op: &'static str, refusal: Refusal) -> Error {
    let place = place.to_owned();
    let source = match refusal {
        Refusal::Conflict => {
            let by =
                "another host that reserved it at the same time, or another program".to_owned();
            return Error::InUse { place, by };
        }
        Refusal::Unguarded(what) => return Error::Unguarded { place, what },
        Refusal::Unsupported(what) => io::Error::new(io::ErrorKind::Unsupported, what),
        Refusal::Failed(source) => source,
    };
    Error::Io {
        op,
        place,
        source: Arc::new(source),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, atomic::AtomicUsize};

    use super::*;

    /// Answers a registration when the test lets it, then does everything, and counts it.
    #[derive(Debug)]
    struct Slow(Barrier, AtomicUsize);

    impl Reservations for Slow {
        fn register(&self, _key: u64) -> Result<(), Refusal> {
            self.0.wait();
            Ok(())
        }

        fn reserve(&self, _key: u64) -> Result<(), Refusal> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn preempt(&self, _key: u64) -> Result<(), Refusal> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn shared(&self) -> io::Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn nobody_waits_for_ever_for_a_device_that_does_not_answer() {
        let slow = Arc::new(Slow(Barrier::new(2), AtomicUsize::new(0)));
        let limit = Duration::from_millis(20);
        let taken = take_within(limit, "disk".to_owned(), Arc::clone(&slow) as _);
        let Err(Error::Io {
            op: "reserve",
            source,
            ..
        }) = &taken
        else {
            panic!("{taken:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::TimedOut);
        // It ends when the device answers, and takes nothing from whoever has the device then.
        slow.0.wait();
        while Arc::strong_count(&slow) > 1 {
            thread::yield_now();
        }
        assert_eq!(slow.1.load(Ordering::SeqCst), 0);
    }

    /// A device of a kind that could say whether it is shared, and does not.
    #[derive(Debug)]
    struct Silent;

    impl Reservations for Silent {
        fn register(&self, _key: u64) -> Result<(), Refusal> {
            Err(Refusal::Unsupported("none".to_owned()))
        }

        fn reserve(&self, _key: u64) -> Result<(), Refusal> {
            unreachable!("it is not registered")
        }

        fn preempt(&self, _key: u64) -> Result<(), Refusal> {
            unreachable!("it is not registered")
        }

        fn shared(&self) -> io::Result<bool> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    #[test]
    fn a_device_that_might_be_shared_is_refused() {
        let taken = take_within(PATIENCE, "disk".to_owned(), Arc::new(Silent));
        assert!(matches!(taken, Err(Error::Unguarded { .. })), "{taken:?}");
    }
}
