//! What the metadata keeps of a topic: one key per topic, `kafka/topics/NAME`, whose value is JSON.
//!
//! `{"version":2,"id":"32 hex digits","groups":[5,6],"replicas":1,"assigned":[],"config":{"retention.ms":"1000"}}`:
//! partition i is the group at place i. Version 1 has neither `replicas` nor `assigned`. A topic exists iff its key does. A value of an unknown version is refused, never skipped.

use std::collections::BTreeMap;

use bytes::Bytes;
use s3stream::GroupId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{config::TopicConfig, placement::Placement};

/// Prefix of the keys.
pub(crate) const KEY_PREFIX: &str = "kafka/topics/";
const VERSION: u32 = 2;

/// The value of a topic's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Description {
    pub(crate) id: Uuid,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) placement: Placement,
    pub(crate) config: TopicConfig,
}

/// A value that this program does not understand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the description of topic {topic} in the metadata: {what}")]
pub(crate) struct DescriptionError {
    topic: String,
    what: String,
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    id: String,
    groups: Vec<u64>,
    #[serde(default = "one_replica")]
    replicas: u16,
    #[serde(default)]
    assigned: Vec<Vec<i32>>,
    config: BTreeMap<String, String>,
}

/// What version 1 means.
fn one_replica() -> u16 {
    1
}

/// The key of a topic.
pub(crate) fn key(topic: &str) -> Bytes {
    format!("{KEY_PREFIX}{topic}").into()
}

impl Description {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            version: VERSION,
            id: self.id.simple().to_string(),
            groups: self.groups.iter().map(|group| group.get()).collect(),
            replicas: self.placement.replicas,
            assigned: self.placement.assigned.clone(),
            config: self.config.overrides().clone(),
        };
        serde_json::to_vec(&stored).expect("strings and numbers have a JSON form")
    }

    pub(crate) fn decode(topic: &str, value: &[u8]) -> Result<Self, DescriptionError> {
        let wrong = |what: String| DescriptionError {
            topic: topic.into(),
            what,
        };
        let json = |error: serde_json::Error| wrong(error.to_string());
        let Versioned { version } = serde_json::from_slice(value).map_err(json)?;
        if !(1..=VERSION).contains(&version) {
            return Err(wrong(format!(
                "version {version}, this program knows {VERSION}; use a newer one"
            )));
        }
        let stored: Stored = serde_json::from_slice(value).map_err(json)?;
        let id = Uuid::try_parse(&stored.id).map_err(|error| wrong(error.to_string()))?;
        if stored.groups.is_empty() {
            return Err(wrong("no partitions".into()));
        }
        let placement = Placement {
            replicas: stored.replicas,
            assigned: stored.assigned,
        };
        let overrides = stored.config.into_iter().map(|(k, v)| (k, Some(v)));
        Ok(Self {
            id,
            groups: stored.groups.into_iter().map(GroupId::new).collect(),
            placement,
            config: if super::is_internal(topic) {
                // Whatever it was made with.
                TopicConfig::internal()
            } else {
                TopicConfig::new(overrides).map_err(wrong)?
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_value() {
        let config = [("retention.ms".to_owned(), Some("1000".to_owned()))];
        let description = Description {
            id: Uuid::from_u128(0x1234),
            groups: vec![GroupId::new(5), GroupId::new(6)],
            placement: Placement {
                replicas: 2,
                assigned: vec![vec![], vec![3, 1]],
            },
            config: TopicConfig::new(config).unwrap(),
        };
        let golden = br#"{"version":2,"id":"00000000000000000000000000001234","groups":[5,6],"replicas":2,"assigned":[[],[3,1]],"config":{"retention.ms":"1000"}}"#;
        assert_eq!(description.encode(), golden);
        assert_eq!(Description::decode("t", golden), Ok(description));
    }

    #[test]
    fn golden_value_of_version_1() {
        let golden = br#"{"version":1,"id":"00000000000000000000000000001234","groups":[5,6],"config":{"retention.ms":"1000"}}"#;
        let description = Description::decode("t", golden).unwrap();
        assert_eq!(description.placement, Placement::replicated(1));
        assert_eq!(description.groups.len(), 2);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (value, reason) in [
            (r#"{"version":3,"anything":1}"#, "version 3"),
            (r#"{"version":0,"anything":1}"#, "version 0"),
            (r#"{"version":1,"id":"x","groups":[1],"config":{}}"#, ""),
            (
                r#"{"version":1,"id":"00000000000000000000000000001234","groups":[],"config":{}}"#,
                "no partitions",
            ),
            ("", ""),
        ] {
            let error = Description::decode("orders", value.as_bytes()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("orders") && text.contains(reason), "{text}");
        }
    }
}
