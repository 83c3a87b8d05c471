//! Settings that clients read and change, as Kafka has them: names, types, defaults, where a value comes from.
//!
//! Those of topics are the topics' own. Here are the words for all of them, the broker's table, and what was changed while it
//! ran: kept in the metadata before it is answered.

use std::collections::BTreeMap;

pub(crate) mod broker;
pub(crate) mod group;
pub(crate) mod store;

/// Values by name. `None` is what the protocol calls null.
pub(crate) type Overrides = BTreeMap<String, String>;

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Kind {
    /// From, to.
    Number(i64, i64),
    Ratio,
    Bool,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// Any list.
    List,
    Text,
}

/// A setting that can be described.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
    /// The broker's setting that this one's default is.
    pub(crate) broker_name: Option<&'static str>,
    /// Whether the broker's setting has no value unless somebody gives it one: another one of Kafka's, in another unit,
    /// makes the default then.
    pub(crate) broker_unset: bool,
    /// What it does, for a client that asks.
    pub(crate) about: &'static str,
}

/// The largest number that Kafka calls an int.
pub(crate) const INT: i64 = i32::MAX as i64;
/// The largest number that Kafka calls a long.
pub(crate) const LONG: i64 = i64::MAX;

/// Where a value comes from, as the protocol counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Topic = 1,
    Broker = 2,
    AllBrokers = 3,
    File = 4,
    Default = 5,
    Group = 8,
}

/// A value with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sourced {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: Source,
}

/// A setting as it is described.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static Kind,
    pub(crate) about: &'static str,
    pub(crate) read_only: bool,
    /// Every place that has a value, the one that holds first.
    pub(crate) values: Vec<Sourced>,
    /// What holds if none has.
    pub(crate) fallback: Option<&'static str>,
}

impl Described {
    pub(crate) fn of(key: &'static Key, values: Vec<Sourced>) -> Self {
        Self {
            name: key.name,
            kind: &key.kind,
            about: key.about,
            read_only: false,
            values,
            fallback: Some(key.default),
        }
    }

    /// The value that holds, if there is any.
    pub(crate) fn value(&self) -> Option<&str> {
        let first = self.values.first();
        first.map_or(self.fallback, |first| Some(first.value.as_str()))
    }

    pub(crate) fn source(&self) -> Source {
        let first = self.values.first();
        first.map_or(Source::Default, |first| first.source)
    }
}

/// What is to be done to a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

/// A change of one value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Alteration {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) value: String,
}

impl Kind {
    /// The error says what was expected.
    pub(crate) fn accepts(&self, value: &str) -> Result<(), String> {
        let accepted = match self {
            Self::Number(least, most) => value
                .parse::<i64>()
                .is_ok_and(|number| (*least..=*most).contains(&number)),
            Self::Ratio => value
                .parse::<f64>()
                .is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)),
            Self::Bool => ["true", "false"].contains(&value),
            Self::OneOf(words) => words.contains(&value),
            Self::ListOf(words) => value.split(',').all(|word| words.contains(&word.trim())),
            Self::List | Self::Text => true,
        };
        if accepted {
            return Ok(());
        }
        Err(match self {
            Self::Number(least, most) => format!("expected a number from {least} to {most}"),
            Self::Ratio => "expected a number from 0 to 1".into(),
            Self::Bool => "expected true or false".into(),
            Self::OneOf(words) => format!("expected one of {}", words.join(", ")),
            Self::ListOf(words) => format!("expected a list of {}", words.join(", ")),
            Self::List => "expected a list".into(),
            Self::Text => "expected a text".into(),
        })
    }

    /// The type, as the protocol counts.
    pub(crate) fn protocol_type(&self) -> i8 {
        match self {
            Self::Bool => 1,
            Self::OneOf(_) | Self::Text => 2,
            Self::Number(_, most) if *most <= INT => 3,
            Self::Number(..) => 5,
            Self::Ratio => 6,
            Self::ListOf(_) | Self::List => 7,
        }
    }

    fn is_list(&self) -> bool {
        matches!(self, Self::ListOf(_) | Self::List)
    }
}

impl Key {
    /// The default, under the name that the broker's setting has.
    pub(crate) fn default_of_broker(&self) -> Option<Sourced> {
        Some(Sourced {
            name: self.broker_name.filter(|_| !self.broker_unset)?,
            value: self.default.to_owned(),
            source: Source::Default,
        })
    }

    /// Checks a value for this key; returns it as it is kept.
    pub(crate) fn checked(&self, value: &str) -> Result<String, String> {
        let value = value.trim();
        self.kind
            .accepts(value)
            .map_err(|expected| format!("invalid value {value:?} for {}: {expected}", self.name))?;
        Ok(value.to_owned())
    }
}

/// Applies changes in their order. `key_of` finds a key and what holds if it is not overridden: lists grow and shrink from
/// there (F55). Values are checked by the caller, together.
pub(crate) fn alter(
    mut overrides: Overrides,
    alterations: Vec<Alteration>,
    key_of: impl Fn(&str) -> Option<(&'static Kind, String)>,
) -> Result<Overrides, String> {
    for Alteration {
        name,
        operation,
        value,
    } in alterations
    {
        match operation {
            Operation::Set => {
                overrides.insert(name, value);
            }
            Operation::Delete => {
                overrides.remove(&name);
            }
            Operation::Append | Operation::Subtract => {
                let (kind, default) =
                    key_of(&name).ok_or_else(|| format!("unknown config name: {name}"))?;
                if !kind.is_list() {
                    return Err(format!("{name} is not a list"));
                }
                let list = overrides.get(&name).unwrap_or(&default);
                let list = edited(list, operation, &value);
                overrides.insert(name, list);
            }
        }
    }
    Ok(overrides)
}

/// A list with words added that it does not have, or without words.
fn edited(list: &str, operation: Operation, words: &str) -> String {
    let parts = |text: &str| -> Vec<String> {
        let parts = text.split(',').map(|part| part.trim().to_owned());
        parts.filter(|part| !part.is_empty()).collect()
    };
    let (mut list, words) = (parts(list), parts(words));
    if operation == Operation::Subtract {
        list.retain(|part| !words.contains(part));
    } else {
        for word in words {
            if !list.contains(&word) {
                list.push(word);
            }
        }
    }
    list.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    static LIST: Kind = Kind::ListOf(&["compact", "delete"]);
    static NUMBER: Kind = Kind::Number(0, INT);

    fn alteration(name: &str, operation: Operation, value: &str) -> Alteration {
        Alteration {
            name: name.into(),
            operation,
            value: value.into(),
        }
    }

    fn altered(alterations: Vec<Alteration>) -> Result<Overrides, String> {
        let key_of = |name: &str| match name {
            "list" => Some((&LIST, "delete".to_owned())),
            "number" => Some((&NUMBER, "1".to_owned())),
            _ => None,
        };
        let before = Overrides::from([("number".to_owned(), "7".to_owned())]);
        alter(before, alterations, key_of)
    }

    #[test]
    fn f55_lists_grow_and_shrink_from_the_default() {
        let grown = altered(vec![alteration("list", Operation::Append, "compact")]).unwrap();
        assert_eq!(grown["list"], "delete,compact");
        let twice = vec![
            alteration("list", Operation::Append, "compact, delete"),
            alteration("list", Operation::Subtract, "delete"),
        ];
        assert_eq!(altered(twice).unwrap()["list"], "compact");
        let gone = altered(vec![alteration("list", Operation::Subtract, "delete")]).unwrap();
        assert_eq!(gone["list"], "");
    }

    #[test]
    fn values_are_set_and_taken_away_and_only_lists_grow() {
        let set = altered(vec![alteration("number", Operation::Set, "3")]).unwrap();
        assert_eq!(set["number"], "3");
        let gone = altered(vec![alteration("number", Operation::Delete, "")]).unwrap();
        assert!(gone.is_empty());
        for name in ["number", "unknown"] {
            let refused = altered(vec![alteration(name, Operation::Append, "1")]);
            assert!(refused.unwrap_err().contains(name));
        }
    }

    #[test]
    fn types_are_those_of_the_protocol() {
        for (kind, expected) in [
            (Kind::Bool, 1),
            (Kind::Text, 2),
            (Kind::OneOf(&[]), 2),
            (Kind::Number(-1, 9), 3),
            (Kind::Number(0, LONG), 5),
            (Kind::Ratio, 6),
            (Kind::List, 7),
        ] {
            assert_eq!(kind.protocol_type(), expected, "{kind:?}");
        }
    }
}
