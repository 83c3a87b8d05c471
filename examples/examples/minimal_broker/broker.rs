//! Streams by name: the engine's keys say which group a name means.
//!
//! A name means at most one stream, and the key decides: it is written last, and only if it is absent. A crash between the two leaves a group
//! without a name, which the next start destroys.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use s3stream::{
    Engine, Error, Expect, GroupId, Result, Stream,
    store::{BucketPlace, LogPlace},
};

const LOG_BYTES: u64 = 64 << 20;
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// Keys of names are this and the name; their values are group ids.
const NAMES: &[u8] = b"name/";
/// How its groups are found again.
const TAG: (&str, &str) = ("made-by", "minimal-broker");

/// Clones are the same broker.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    engine: Engine,
}

impl Broker {
    pub(crate) async fn open(data: &Path) -> Result<Self> {
        std::fs::create_dir_all(data).map_err(|e| {
            Error::invalid("the data directory")
                .with("path", data.display())
                .caused_by(e)
        })?;
        let log = LogPlace::Block {
            path: data.join("log"),
            capacity: Some(LOG_BYTES),
        };
        let engine = Engine::builder()
            .bucket(BucketPlace::File(data.join("bucket")).to_string())
            .wal(log.to_string())
            .open()
            .await?;
        let broker = Self { engine };
        broker.destroy_nameless().await?;
        Ok(broker)
    }

    async fn destroy_nameless(&self) -> Result<()> {
        let named: Vec<_> = self
            .engine
            .kv_list(NAMES)
            .iter()
            .map(|(_, group)| decode(group))
            .collect::<Result<_>>()?;
        for group in self.engine.groups_tagged(TAG.0, TAG.1) {
            if !named.contains(&group) {
                self.engine.destroy_group(group).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn create(&self, name: &str) -> Result<()> {
        let taken = || Error::invalid("the name is taken").with("name", name);
        let key = key(name);
        if self.engine.kv_get(&key).is_some() {
            return Err(taken());
        }
        let tag = (TAG.0.to_owned(), TAG.1.to_owned());
        let (group, _) = self.engine.create_group(1, vec![tag]).await?;
        let value = Bytes::from(group.get().to_be_bytes().to_vec());
        // After any other error the key may or may not be there: the next start looks.
        match self
            .engine
            .kv_put(key, Some(value), Some(Expect::Absent))
            .await?
        {
            Ok(_version) => Ok(()),
            // Another connection was faster.
            Err(_version) => {
                self.engine.destroy_group(group).await?;
                Err(taken())
            }
        }
    }

    /// Open for writing here; cheap when it was before.
    pub(crate) async fn stream(&self, name: &str) -> Result<Stream> {
        let Some((group, _version)) = self.engine.kv_get(&key(name)) else {
            return Err(Error::not_found("no such stream").with("name", name));
        };
        let mut streams = self.engine.open_group(decode(&group)?).await?;
        streams
            .pop()
            .ok_or_else(|| Error::internal("a group without its stream"))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let keys = self.engine.kv_list(NAMES).into_iter().map(|(key, _)| key);
        keys.map(|key| String::from_utf8_lossy(&key[NAMES.len()..]).into_owned())
            .collect()
    }

    /// Waits for what ends the engine, as another node that takes over.
    pub(crate) async fn ended(&self) -> Error {
        self.engine.ended().await
    }

    pub(crate) async fn close(&self) -> Result<()> {
        self.engine.close(CLOSE_WITHIN).await
    }
}

fn key(name: &str) -> Bytes {
    [NAMES, name.as_bytes()].concat().into()
}

fn decode(group: &[u8]) -> Result<GroupId> {
    let group = group
        .try_into()
        .map_err(|e| Error::corrupt("a name's group is 8 bytes").caused_by(e))?;
    Ok(GroupId::new(u64::from_be_bytes(group)))
}
