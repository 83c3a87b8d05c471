//! The names of things in a log: positions, epochs, logs, and whose they are.
//!
//! Ids order as their numbers do. None of them carries a meaning of the layers above: a log knows no stream.

use std::{fmt, str::FromStr};

use crate::Error;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A place in a log: bytes since the log was made, over all its epochs, headers and padding included. Never an offset of a stream.
    Position
}

number! {
    /// One opening of a log, granted by the caller's metadata. Later openings have higher epochs; numbers may be skipped.
    LogEpoch
}

/// One log for its whole life: 128 random bits, chosen when the log is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogUuid(u128);

impl LogUuid {
    /// Wraps 128 bits.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The bits.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for LogUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for LogUuid {
    type Err = Error;

    /// Exactly 32 hexadecimal digits, as `Display` writes them.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::Invalid(format!(
                "log uuid {text:?}: 32 hexadecimal digits expected"
            )));
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|e| Error::Invalid(format!("log uuid {text:?}: {e}")))
    }
}

/// Whose log it is. Stored in the log, compared at every opening.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: u128,
    /// The log.
    pub log: LogUuid,
    /// The node that registered it.
    pub node: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log {} of node {} in cluster {:032x}",
            self.log, self.node, self.cluster
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_uuid_reads_back_as_it_was_written() {
        let uuid = LogUuid::new(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(uuid.to_string(), "0123456789abcdef0011223344556677");
        assert_eq!(uuid.to_string().parse::<LogUuid>().unwrap(), uuid);
    }

    #[test]
    fn a_log_uuid_of_another_shape_is_refused() {
        for text in [
            "",
            "12",
            "+1234567890abcdef0011223344556677",
            "0123456789abcdef001122334455667g",
            "é123456789abcdef001122334455667",
        ] {
            assert!(
                matches!(text.parse::<LogUuid>(), Err(Error::Invalid(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn positions_keep_their_order_over_all_64_bits() {
        // Lesson 1: a 32-bit delta once overflowed. Nothing here is narrower than 64 bits.
        assert!(Position::new(u64::MAX) > Position::new(u64::from(u32::MAX) + 1));
    }
}
