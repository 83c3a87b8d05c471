//! The settings that a group may have of its own.

use super::{Described, INT, Key, Kind, Overrides, Source, Sourced};

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key {
        name,
        default,
        kind: Kind::Number(1, INT),
        broker_name: None,
        broker_unset: false,
        about,
    }
}

/// How often members are asked to send.
pub(crate) const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
/// How long they may be silent.
pub(crate) const SESSION: &str = "consumer.session.timeout.ms";

pub(crate) static KEYS: &[Key] = &[
    key(
        HEARTBEAT,
        "5000",
        "How often a member of a group of the consumer protocol says that it is there.",
    ),
    key(
        SESSION,
        "45000",
        "After what silence a member of a group of the consumer protocol is gone.",
    ),
];

/// The key of this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Every setting of a group with these overrides.
pub(crate) fn describe(overrides: &Overrides) -> Vec<Described> {
    let describe = |key: &'static Key| {
        let chosen = overrides.get(key.name).map(|value| Sourced {
            name: key.name,
            value: value.clone(),
            source: Source::Group,
        });
        let default = Sourced {
            name: key.name,
            value: key.default.to_owned(),
            source: Source::Default,
        };
        Described::of(key, chosen.into_iter().chain([default]).collect())
    };
    KEYS.iter().map(describe).collect()
}

/// Checks what a group shall have.
pub(crate) fn check(overrides: Overrides) -> Result<Overrides, String> {
    let check = |(name, value): (String, String)| {
        let key = find(&name).ok_or_else(|| format!("unknown group config name: {name}"))?;
        let value = key.checked(&value)?;
        Ok((name, value))
    };
    overrides.into_iter().map(check).collect()
}
