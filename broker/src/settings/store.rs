//! What was changed while the broker ran, of the broker itself and of groups: in the metadata's keys and values.
//!
//! One key for each place that has any: `kafka/configs/brokers` for all brokers, `kafka/configs/broker/ID`, and
//! `kafka/configs/group/NAME`. The value is JSON: `{"version":1,"config":{"log.retention.ms":"1000"}}`. A change is kept
//! before it is answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::RwLock;
use s3stream::Engine;
use serde::{Deserialize, Serialize};

use super::Overrides;

const PREFIX: &str = "kafka/configs/";
const VERSION: u32 = 1;
/// Groups that may have settings of their own.
pub(crate) const GROUPS_MAX: usize = 10_000;

/// Whose settings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    AllBrokers,
    Broker(u64),
    Group(String),
}

/// All that was changed.
#[derive(Debug)]
pub(crate) struct Store {
    engine: Engine,
    kept: RwLock<BTreeMap<Place, Overrides>>,
    /// Held by whoever changes the settings of brokers or groups, from reading what is there to keeping what shall be; and
    /// shared by those who change settings of topics, which must go with those of brokers.
    pub(crate) changing: tokio::sync::RwLock<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    config: Overrides,
}

impl Store {
    /// Reads what was kept. A value that is not understood ends the start.
    pub(crate) fn load(engine: Engine) -> s3stream::Result<Self> {
        let mut kept = BTreeMap::new();
        for (key, value) in engine.kv_list(PREFIX.as_bytes()) {
            let corrupt = |what: &str| {
                let key = String::from_utf8_lossy(&key).into_owned();
                s3stream::Error::corrupt("settings")
                    .with("key", key)
                    .with("what", what.to_owned())
            };
            let place = Place::of(&key).ok_or_else(|| corrupt("of nobody"))?;
            let stored: Stored =
                serde_json::from_slice(&value).map_err(|error| corrupt(&error.to_string()))?;
            if stored.version != VERSION {
                return Err(corrupt("of another version"));
            }
            kept.insert(place, stored.config);
        }
        Ok(Self {
            engine,
            kept: RwLock::new(kept),
            changing: tokio::sync::RwLock::default(),
        })
    }

    /// The place of this broker's own.
    pub(crate) fn this_broker(&self) -> Place {
        Place::Broker(self.engine.node().get())
    }

    /// What was changed at a place.
    pub(crate) fn get(&self, place: &Place) -> Overrides {
        self.kept.read().get(place).cloned().unwrap_or_default()
    }

    /// The value that was given to a setting at a place.
    pub(crate) fn value(&self, place: &Place, name: &str) -> Option<String> {
        self.kept.read().get(place)?.get(name).cloned()
    }

    /// The groups that have settings of their own.
    pub(crate) fn groups(&self) -> Vec<String> {
        let kept = self.kept.read();
        let groups = kept.keys().filter_map(|place| match place {
            Place::Group(name) => Some(name.clone()),
            Place::AllBrokers | Place::Broker(_) => None,
        });
        groups.collect()
    }

    /// Keeps other values, then lets them hold. The caller holds `changing`.
    pub(crate) async fn put(&self, place: Place, overrides: Overrides) -> s3stream::Result<()> {
        let key = Bytes::from(place.key());
        let value = (!overrides.is_empty()).then(|| {
            let stored = Stored {
                version: VERSION,
                config: overrides.clone(),
            };
            serde_json::to_vec(&stored).expect("strings and numbers have a JSON form")
        });
        // No version is expected: there is one writer.
        let put = self
            .engine
            .kv_put(key, value.map(Bytes::from), None)
            .await?;
        put.map_err(|_| s3stream::Error::internal("a put that expects nothing was refused"))?;
        let mut kept = self.kept.write();
        if overrides.is_empty() {
            kept.remove(&place);
        } else {
            kept.insert(place, overrides);
        }
        Ok(())
    }
}

impl Place {
    fn key(&self) -> String {
        match self {
            Self::AllBrokers => format!("{PREFIX}brokers"),
            Self::Broker(id) => format!("{PREFIX}broker/{id}"),
            Self::Group(name) => format!("{PREFIX}group/{name}"),
        }
    }

    fn of(key: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
        match rest.split_once('/') {
            None if rest == "brokers" => Some(Self::AllBrokers),
            Some(("broker", id)) => id.parse().ok().map(Self::Broker),
            Some(("group", name)) => Some(Self::Group(name.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::engine;

    fn places() -> [Place; 3] {
        let group = Place::Group("a/b".into());
        [Place::AllBrokers, Place::Broker(7), group]
    }

    #[tokio::test]
    async fn what_was_changed_is_there_after_a_load_and_gone_when_it_is_taken_back() {
        let engine = engine().await;
        let store = Store::load(engine.clone()).unwrap();
        let overrides = Overrides::from([("log.retention.ms".to_owned(), "1".to_owned())]);
        for place in places() {
            store.put(place, overrides.clone()).await.unwrap();
        }
        let golden = br#"{"version":1,"config":{"log.retention.ms":"1"}}"#;
        let (value, _) = engine.kv_get(b"kafka/configs/broker/7").unwrap();
        assert_eq!(&value[..], golden);
        let store = Store::load(engine.clone()).unwrap();
        assert_eq!(store.groups(), ["a/b"]);
        for place in places() {
            assert_eq!(store.get(&place), overrides);
            store.put(place, Overrides::new()).await.unwrap();
        }
        assert!(engine.kv_list(PREFIX.as_bytes()).is_empty());
    }

    #[tokio::test]
    async fn what_is_not_understood_ends_the_load() {
        for (key, value) in [
            ("kafka/configs/broker/7", r#"{"version":2,"config":{}}"#),
            ("kafka/configs/broker/7", "x"),
            ("kafka/configs/broker/x", r#"{"version":1,"config":{}}"#),
            ("kafka/configs/planet/x", r#"{"version":1,"config":{}}"#),
        ] {
            let engine = engine().await;
            let put = engine.kv_put(key.into(), Some(value.into()), None).await;
            put.unwrap().unwrap();
            let error = Store::load(engine).unwrap_err();
            assert_eq!(error.kind(), s3stream::ErrorKind::Corrupt, "{key} {value}");
        }
    }
}
