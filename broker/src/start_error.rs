//! Why a broker did not start: one line that names the thing and says what to do about it.
//!
//! The engine's errors say what is wrong; what to do depends on the flags of this program, so it is said here. Each class
//! has an exit code of its own, for whoever supervises the process.

use std::{error::Error, io, sync::Arc};

use s3stream::{ErrorKind, wal};

use crate::config::{Config, ConfigError};

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {remedy}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// Bucket, log or metadata cannot be opened.
    #[error("{error}; {remedy}")]
    Open {
        /// Why, as the engine says.
        error: s3stream::Error,
        /// What to do.
        remedy: String,
    },
}

impl StartError {
    pub(crate) fn listen(address: &str, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port: stop it, or choose another with --listen"
            }
            io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
            _ => "choose an address of this machine with --listen",
        };
        Self::Listen {
            address: address.to_owned(),
            source,
            remedy,
        }
    }

    pub(crate) fn open(config: &Config, error: s3stream::Error) -> Self {
        let remedy = remedy(config, &error);
        Self::Open { error, remedy }
    }

    /// The exit code for this class of reasons, as `--help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Listen { .. } => 3,
            Self::Open { error, .. } if causes(error).any(is_io) => 6,
            Self::Open { error, .. } => match error.kind() {
                ErrorKind::Corrupt => 5,
                ErrorKind::Unavailable | ErrorKind::Full => 6,
                ErrorKind::Fenced => 7,
                _ => 4,
            },
        }
    }
}

/// What to do. The most specific cause decides.
fn remedy(config: &Config, error: &s3stream::Error) -> String {
    let (bucket, wal) = (redacted(&config.bucket), redacted(&config.wal));
    for cause in causes(error) {
        let of_log = cause.downcast_ref::<wal::Error>();
        if let Some(remedy) = of_log.and_then(|error| wal_remedy(error, &bucket, &wal)) {
            return remedy;
        }
        if let Some(remedy) = io_error(cause).and_then(io_remedy) {
            return remedy.into();
        }
    }
    match error.kind() {
        ErrorKind::Corrupt => {
            "nothing was overwritten; restore what is named from a copy before starting again".into()
        }
        ErrorKind::Unavailable => {
            format!("check that {bucket} and {wal} can be reached, then start again")
        }
        ErrorKind::Fenced => {
            "another process runs as this node: stop it, or give this one its own --node-id and --wal".into()
        }
        _ => format!(
            "nothing was overwritten; the bucket is {bucket} (--bucket), the log {wal} (--wal)"
        ),
    }
}

/// The error and what caused it, the outermost first.
fn causes<'a>(error: &'a s3stream::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next: Option<&'a (dyn Error + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

fn io_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let shared = || cause.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
    cause.downcast_ref::<io::Error>().or_else(shared)
}

fn is_io(cause: &(dyn Error + 'static)) -> bool {
    io_error(cause).is_some()
}

fn wal_remedy(error: &wal::Error, bucket: &str, wal: &str) -> Option<String> {
    Some(match error {
        wal::Error::InUse { .. } => {
            "another broker runs on this data: stop it, or give this one its own --wal and --bucket"
                .into()
        }
        wal::Error::Mismatch { .. } => format!(
            "the log {wal} is not this node's in {bucket}: name the bucket it belongs to (--bucket) or this node's log (--wal); nothing was overwritten"
        ),
        wal::Error::NotNew { .. } => format!(
            "the log {wal} holds data that {bucket} does not know of: name the bucket it belongs to (--bucket) or another --wal; nothing was overwritten"
        ),
        wal::Error::Missing { .. } => format!(
            "the log {wal} is blank though this node owes data in it: bring the registered log back and name it with --wal; nothing was overwritten"
        ),
        wal::Error::Corrupt { .. } => format!(
            "acknowledged records in {wal} cannot be read: restore it from a copy of the volume; nothing was overwritten"
        ),
        wal::Error::Unguarded { .. } => format!(
            "{wal} is a volume that several hosts can attach and that takes no reservations: use one that takes them (NVMe, SCSI-3) or one that is not shared; nothing was written"
        ),
        wal::Error::UnknownFormat { .. } => "a newer version wrote this: use that version".into(),
        wal::Error::Io { .. }
        | wal::Error::Failed { .. }
        | wal::Error::Fenced { .. }
        | wal::Error::Full { .. }
        | wal::Error::TooLarge { .. }
        | wal::Error::Closed
        | wal::Error::Invalid(_) => return None,
    })
}

fn io_remedy(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("make it writable for this user, or choose other places with --bucket and --wal")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free space on the volume, or choose other places with --bucket and --wal")
        }
        io::ErrorKind::NotFound => {
            Some("create it, or choose other places with --bucket and --wal")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Some("something else is in its place: choose other places with --bucket and --wal")
        }
        _ => None,
    }
}

/// A URL as it may be shown: without user and password.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..authority_len].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(redacted("s3://id:secret@b/p?x=1"), "s3://b/p?x=1");
        for shown in [
            "s3://b/p@q",
            "memory:",
            "file:a@b",
            "block:wal?capacity=1GiB",
        ] {
            assert_eq!(redacted(shown), shown);
        }
    }

    #[test]
    fn the_most_specific_cause_decides_what_to_do() {
        let io = io::Error::from(io::ErrorKind::StorageFull);
        let error = s3stream::Error::unavailable("metadata").caused_by(io);
        let shown = StartError::open(&Config::default(), error);
        assert!(shown.to_string().contains("free space"), "{shown}");
        assert_eq!(shown.exit_code(), 6);
    }
}
