//! What members subscribe to, as topics that there are: names, and regular expressions that the server resolves.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use regex::{Regex, RegexBuilder};
use uuid::Uuid;

use super::{Refusal, Subscription, member::TEXT_BYTES};

/// Most bytes of an expression: it is a part of a record's key.
const REGEX_BYTES_MAX: usize = 4096;
/// Most bytes that a compiled expression takes, for the moment in which it is used.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// The topics that there are.
pub(crate) trait Catalog {
    /// Another number whenever something below may be another.
    fn version(&self) -> u64;

    /// The id of a topic and how many partitions it has.
    fn find(&self, name: &str) -> Option<(Uuid, i32)>;

    /// The names that pass.
    fn select(&self, passes: &dyn Fn(&str) -> bool) -> BTreeSet<String>;
}

/// An expression with what it stands for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) topics: BTreeSet<String>,
    /// Of the catalog that it was resolved with.
    pub(crate) version: i64,
    pub(crate) resolved_ms: i64,
}

impl Resolved {
    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.topics.iter().map(|name| name.len() + TEXT_BYTES).sum()
    }
}

/// An expression that must match a whole name. The syntax is RE2's, but for few corners.
fn compile(expression: &str) -> Result<Regex, Refusal> {
    let refused = |reason: String| {
        let error = ResponseError::InvalidRegularExpression;
        Refusal::of(error, format!("{expression:.200} is not valid: {reason}"))
    };
    if expression.len() > REGEX_BYTES_MAX {
        return Err(refused(format!("it has more than {REGEX_BYTES_MAX} bytes")));
    }
    // First as it is: in brackets, `a)(b` would be one.
    for text in [expression, &format!("^(?:{expression})$")] {
        let regex = RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .build();
        match regex {
            Ok(regex) if text != expression => return Ok(regex),
            Ok(_) => {}
            Err(error) => return Err(refused(error.to_string())),
        }
    }
    Err(refused("it cannot be anchored".into()))
}

/// Refuses an expression that cannot be resolved.
pub(super) fn check(expression: &str) -> Result<(), Refusal> {
    compile(expression).map(|_| ())
}

/// The topics that match.
pub(super) fn resolve(
    expression: &str,
    catalog: &dyn Catalog,
    now_ms: i64,
) -> Result<Resolved, Refusal> {
    let regex = compile(expression)?;
    Ok(Resolved {
        topics: catalog.select(&|name| regex.is_match(name)),
        version: i64::try_from(catalog.version()).unwrap_or(i64::MAX),
        resolved_ms: now_ms,
    })
}

/// The names that a member reads.
pub(super) fn names<'a>(
    subscription: &'a Subscription,
    resolved: &'a BTreeMap<String, Resolved>,
) -> impl Iterator<Item = &'a str> {
    let regex = subscription.regex.as_ref();
    let matched = regex.and_then(|regex| resolved.get(regex));
    let matched = matched.into_iter().flat_map(|resolved| &resolved.topics);
    subscription
        .topics
        .iter()
        .chain(matched)
        .map(String::as_str)
}

/// A number that is another one when a topic of a group comes, goes, is made anew or gets partitions. 0 if it reads
/// none. It is stored: the way to it must not change, or every group computes its assignment once more.
pub(super) fn fingerprint(names: &BTreeSet<&str>, catalog: &dyn Catalog) -> i64 {
    let mut topics = names
        .iter()
        .filter_map(|name| catalog.find(name).map(|found| (name, found)))
        .peekable();
    if topics.peek().is_none() {
        return 0;
    }
    // FNV-1a of 64 bits.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (name, (id, partitions)) in topics {
        take(name.as_bytes());
        take(&[0]);
        take(id.as_bytes());
        take(&partitions.to_be_bytes());
    }
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names(Vec<(&'static str, u128, i32)>);

    impl Catalog for Names {
        fn version(&self) -> u64 {
            7
        }

        fn find(&self, name: &str) -> Option<(Uuid, i32)> {
            let mut topics = self.0.iter();
            let found = topics.find(|(known, ..)| *known == name)?;
            Some((Uuid::from_u128(found.1), found.2))
        }

        fn select(&self, passes: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
            let names = self.0.iter().map(|(name, ..)| (*name).to_owned());
            names.filter(|name| passes(name)).collect()
        }
    }

    #[test]
    fn an_expression_matches_whole_names() {
        let catalog = Names(vec![("a", 1, 1), ("ab", 2, 1), ("b", 3, 1), ("xab", 4, 1)]);
        for (expression, expected) in [
            ("a|ab", &["a", "ab"][..]),
            ("a.*", &["a", "ab"]),
            ("^b$", &["b"]),
            ("(?i)A", &["a"]),
            ("none", &[]),
        ] {
            let resolved = resolve(expression, &catalog, 5).unwrap();
            let topics: Vec<_> = resolved.topics.iter().map(String::as_str).collect();
            assert_eq!(topics, expected, "{expression}");
            assert_eq!((resolved.version, resolved.resolved_ms), (7, 5));
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let long = "a".repeat(REGEX_BYTES_MAX + 1);
        for expression in ["(", "a)(b", "[", "(?=a)", "a{1000}{1000}", &long] {
            let refusal = check(expression).unwrap_err();
            assert_eq!(refusal.error, ResponseError::InvalidRegularExpression);
        }
    }

    #[test]
    fn the_fingerprint_tells_topics_apart_and_stays_as_it_is() {
        let names = BTreeSet::from(["a", "b", "c"]);
        let of =
            |topics: &[(&'static str, u128, i32)]| fingerprint(&names, &Names(topics.to_vec()));
        assert_eq!(of(&[("d", 1, 1)]), 0);
        let golden = of(&[("a", 1, 3), ("b", 2, 1)]);
        assert_eq!(golden, 0x5f4c_a6db_6063_2f11);
        for other in [
            of(&[("a", 1, 3)]),
            of(&[("a", 1, 4), ("b", 2, 1)]),
            of(&[("a", 9, 3), ("b", 2, 1)]),
            of(&[("a", 1, 3), ("c", 2, 1)]),
        ] {
            assert_ne!(golden, other);
        }
    }
}
