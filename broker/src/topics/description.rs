//! What the metadata keeps of a topic: one key per topic, `kafka/topics/NAME`, whose value is JSON.
//!
//! `{"version":1,"id":"32 hex digits","groups":[5,6],"config":{"retention.ms":"1000"}}`: partition i is the group at
//! place i. A topic exists iff its key does. A value of an unknown version is refused, never skipped.

use std::collections::BTreeMap;

use bytes::Bytes;
use s3stream::GroupId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::config::TopicConfig;

/// Prefix of the keys.
pub(crate) const KEY_PREFIX: &str = "kafka/topics/";
const VERSION: u32 = 1;

/// The value of a topic's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Description {
    pub(crate) id: Uuid,
    pub(crate) groups: Vec<GroupId>,
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
    config: BTreeMap<String, String>,
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
        if version != VERSION {
            return Err(wrong(format!(
                "version {version}, this program knows {VERSION}; use a newer one"
            )));
        }
        let stored: Stored = serde_json::from_slice(value).map_err(json)?;
        let id = Uuid::try_parse(&stored.id).map_err(|error| wrong(error.to_string()))?;
        if stored.groups.is_empty() {
            return Err(wrong("no partitions".into()));
        }
        let overrides = stored.config.into_iter().map(|(k, v)| (k, Some(v)));
        Ok(Self {
            id,
            groups: stored.groups.into_iter().map(GroupId::new).collect(),
            config: TopicConfig::new(overrides).map_err(wrong)?,
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
            config: TopicConfig::new(config).unwrap(),
        };
        let golden = br#"{"version":1,"id":"00000000000000000000000000001234","groups":[5,6],"config":{"retention.ms":"1000"}}"#;
        assert_eq!(description.encode(), golden);
        assert_eq!(Description::decode("t", golden), Ok(description));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (value, reason) in [
            (r#"{"version":2,"anything":1}"#, "version 2"),
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
