//! One error type whose kind says what the caller should do.
//!
//! `Display` is one line; `{:?}` adds the sources. Errors are `Clone`: one failed group commit fails many appends.

use std::{fmt, sync::Arc};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another node took over. Stop; never register again by itself (W6).
    Fenced,
    /// The offset is trimmed or not yet written. Pick another.
    OutOfRange,
    /// A part that is needed does not answer, or not yet. Retry with back-off.
    Unavailable,
    /// A limit is reached. Slow down; `ready` waits for room.
    Full,
    /// The call or the configuration is wrong. Fix it.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// Stored bytes are not what was written. Stop and repair.
    Corrupt,
    /// The engine or the stream was closed.
    Closed,
    /// A defect of this library. Report it.
    Internal,
}

/// Why a call did not succeed.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    may_have_happened: bool,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            }
        )+
    };
}

impl Error {
    /// An error of `kind`. The message is lower case and names the thing.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            context: Vec::new(),
            source: None,
            may_have_happened: false,
        }
    }

    constructors! {
        /// [`ErrorKind::Fenced`].
        fenced => Fenced,
        /// [`ErrorKind::OutOfRange`].
        out_of_range => OutOfRange,
        /// [`ErrorKind::Unavailable`].
        unavailable => Unavailable,
        /// [`ErrorKind::Full`].
        full => Full,
        /// [`ErrorKind::Invalid`].
        invalid => Invalid,
        /// [`ErrorKind::NotFound`].
        not_found => NotFound,
        /// [`ErrorKind::Corrupt`].
        corrupt => Corrupt,
        /// [`ErrorKind::Closed`].
        closed => Closed,
        /// [`ErrorKind::Internal`].
        internal => Internal,
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Marks a failed append whose record may nevertheless have become durable (S5).
    #[must_use]
    pub fn ambiguous(mut self) -> Self {
        self.may_have_happened = true;
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without context and sources.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The facts, in the order they were added.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.context
    }

    /// Whether what the failed call asked for may have happened, or may yet happen (S5).
    pub fn may_have_happened(&self) -> bool {
        self.may_have_happened
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (index, (key, value)) in self.context.iter().enumerate() {
            let separator = if index == 0 { " (" } else { ", " };
            write!(f, "{separator}{key}: {value}")?;
        }
        if !self.context.is_empty() {
            f.write_str(")")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)?;
        let mut source = self
            .source
            .as_deref()
            .and_then(|source| std::error::Error::source(source));
        while let Some(cause) = source {
            write!(f, "\n  caused by: {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<wal::Error> for Error {
    fn from(error: wal::Error) -> Self {
        let kind = match &error {
            wal::Error::Fenced { .. } => ErrorKind::Fenced,
            wal::Error::Full { .. } => ErrorKind::Full,
            wal::Error::Corrupt { .. } | wal::Error::Missing { .. } => ErrorKind::Corrupt,
            wal::Error::Closed => ErrorKind::Closed,
            wal::Error::Io { .. } | wal::Error::Failed { .. } => ErrorKind::Unavailable,
            wal::Error::TooLarge { .. }
            | wal::Error::InUse { .. }
            | wal::Error::Mismatch { .. }
            | wal::Error::NotNew { .. }
            | wal::Error::UnknownFormat { .. }
            | wal::Error::Unguarded { .. }
            | wal::Error::Invalid(_) => ErrorKind::Invalid,
        };
        Self::new(kind, "write-ahead log").caused_by(error)
    }
}
