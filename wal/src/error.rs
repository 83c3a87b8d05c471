//! What can go wrong with a log. Every variant names the thing and what was found there.

use std::{io, sync::Arc};

use crate::Position;

/// Why a log did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Another owner has the log. Final: the loser never reopens by itself (W6).
    #[error("fenced by {by}")]
    Fenced {
        /// Who took over.
        by: String,
    },
    /// No room until a trim. Nothing was reserved.
    #[error("log full: {needed} bytes needed, {free} free")]
    Full {
        /// Bytes the record would take, padding included.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The record would never fit.
    #[error("record of {len} bytes, at most {max} are possible")]
    TooLarge {
        /// The record's length.
        len: usize,
        /// The largest possible.
        max: usize,
    },
    /// Bytes that were made durable are not there any more.
    #[error("corrupt at position {position}: {what}")]
    Corrupt {
        /// Where.
        position: Position,
        /// What was found and what was expected.
        what: String,
    },
    /// The device or the file system refused.
    #[error("{op} {place}: {source}")]
    Io {
        /// The operation.
        op: &'static str,
        /// The file or device.
        place: String,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// Another process uses the log.
    #[error("{place} is in use by {by}")]
    InUse {
        /// The file or device.
        place: String,
        /// Who, as far as it can be known.
        by: String,
    },
    /// The log belongs to another cluster, node, or registration.
    #[error("{place} holds {found}, expected {expected}")]
    Mismatch {
        /// The file or device.
        place: String,
        /// What it says it is.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A new log was asked for where there is one that may owe data.
    #[error("{place} is not new: it holds {found}")]
    NotNew {
        /// The file or device.
        place: String,
        /// What it says it is.
        found: String,
    },
    /// A log that holds acknowledged records is blank or gone.
    #[error("{place}: {what}")]
    Missing {
        /// The file or device.
        place: String,
        /// What is missing.
        what: String,
    },
    /// A format this version cannot read.
    #[error("{place} has format {found}, known are up to {known}")]
    UnknownFormat {
        /// The file or device.
        place: String,
        /// The version found.
        found: u32,
        /// The highest known.
        known: u32,
    },
    /// Nothing keeps another host from writing to the device, which says that several can.
    #[error("{place} {what}")]
    Unguarded {
        /// The device.
        place: String,
        /// What it says.
        what: String,
    },
    /// The log was closed.
    #[error("log closed")]
    Closed,
    /// An earlier write failed; nothing more is accepted until the log is reopened (W6).
    #[error("log failed: {cause}")]
    Failed {
        /// The first failure.
        cause: Arc<Error>,
    },
    /// The call or the configuration is wrong.
    #[error("{0}")]
    Invalid(String),
}

/// What Linux answers an operation that another host's reservation keeps out: `EBADE`.
const CONFLICT: i32 = 52;

impl Error {
    /// What a device reported. One that knows more than the operating system said gives an error of this kind as the cause (`io::Error::other`).
    pub(crate) fn of_device(op: &'static str, place: String, source: io::Error) -> Self {
        if cfg!(target_os = "linux") && source.raw_os_error() == Some(CONFLICT) {
            let by = format!("another host, which has reserved {place}");
            return Self::Fenced { by };
        }
        match source.get_ref().and_then(|e| e.downcast_ref::<Self>()) {
            Some(known) => known.clone(),
            None => Self::Io {
                op,
                place,
                source: Arc::new(source),
            },
        }
    }
}
