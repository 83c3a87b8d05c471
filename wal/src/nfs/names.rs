//! The names of an NFS log's files. `docs/format.md`, "NFS log".
//!
//! - A name says which log and which epoch may write the file; nobody else ever does.
//! - Numbers have a fixed width, so names sort as they do.

use crate::{LogEpoch, LogUuid};

/// The file that exclusive use is locked on, where there are locks.
pub(crate) const GUARD: &str = "guard";

/// A file of a log, as its name says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Name {
    /// A number of the lease chain.
    Lease(u64),
    /// That a log was made: its first superblock.
    Made(u128),
    /// An epoch's two superblock copies.
    Head(u128, LogEpoch),
    /// A piece of an epoch's ring.
    Segment(u128, LogEpoch, u32),
    /// A file on its way to its name.
    Draft(u128),
}

impl Name {
    pub(crate) fn made(log: LogUuid) -> Self {
        Self::Made(log.get())
    }

    pub(crate) fn head(log: LogUuid, epoch: LogEpoch) -> Self {
        Self::Head(log.get(), epoch)
    }

    /// What `text` names; `None` for what is not a log's.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let name = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
            ("lease", number, None, None) => Self::Lease(number.parse().ok()?),
            ("draft", nonce, None, None) => Self::Draft(u128::from_str_radix(nonce, 16).ok()?),
            (log, "made", None, None) => Self::Made(u128::from_str_radix(log, 16).ok()?),
            (log, epoch, Some(what), None) => {
                let log = u128::from_str_radix(log, 16).ok()?;
                let epoch = LogEpoch::new(epoch.parse().ok()?);
                match what {
                    "head" => Self::Head(log, epoch),
                    segment => Self::Segment(log, epoch, segment.parse().ok()?),
                }
            }
            _ => return None,
        };
        // One name per file: another spelling of the same numbers is not ours.
        (name.to_string() == text).then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lease(number) => write!(f, "lease.{number:020}"),
            Self::Made(log) => write!(f, "{log:032x}.made"),
            Self::Head(log, epoch) => write!(f, "{log:032x}.{:020}.head", epoch.get()),
            Self::Segment(log, epoch, segment) => {
                write!(f, "{log:032x}.{:020}.{segment:02}", epoch.get())
            }
            Self::Draft(nonce) => write!(f, "draft.{nonce:032x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_what_they_were_made_of() {
        let (log, epoch) = (0xabc << 64 | 7, LogEpoch::new(12));
        let golden = [
            (Name::Lease(3), "lease.00000000000000000003"),
            (Name::Made(log), "0000000000000abc0000000000000007.made"),
            (
                Name::Head(log, epoch),
                "0000000000000abc0000000000000007.00000000000000000012.head",
            ),
            (
                Name::Segment(log, epoch, 4),
                "0000000000000abc0000000000000007.00000000000000000012.04",
            ),
            (Name::Draft(1), "draft.00000000000000000000000000000001"),
        ];
        for (name, text) in golden {
            assert_eq!(name.to_string(), text);
            assert_eq!(Name::parse(text), Some(name));
        }
    }

    #[test]
    fn what_is_not_ours_is_no_name() {
        for text in [
            "",
            "lease",
            "lease.3",
            "lease.+0000000000000000003",
            "guard",
            "x.made",
            "0000000000000abc0000000000000007.00000000000000000012.4",
            "0000000000000ABC0000000000000007.made",
            "lease.00000000000000000003.old",
            "a.b.c.d",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
