//! The whole state as bytes. `docs/format.md` §Metadata.
//!
//! Same state, same bytes (M1). Derived indexes are not written; they are built again.

use std::collections::BTreeMap;

use super::{
    Counters, Debt, Exception, Group, KNOWN_LEVEL, KvEntry, Node, Object, SealedEnd, State,
    StreamState,
};
use crate::{
    Error, Result,
    metadata::wire::{Reader, Wire, WireError, Writer, wire_struct},
};

const SNAPSHOT_VERSION: u8 = 1;

wire_struct!(Counters {
    epoch,
    group,
    stream,
    object,
    version,
    order
});
wire_struct!(Node {
    epoch,
    incarnation,
    attempt,
    past,
    left,
    registered,
    sequence,
    answers
});
wire_struct!(Debt {
    log,
    url,
    node,
    holder,
    trim,
    durable_end,
    sealed_end,
    started
});
wire_struct!(Group {
    owner,
    epoch,
    log_epoch,
    streams,
    tags
});
wire_struct!(StreamState {
    group,
    start,
    end,
    sealed
});
wire_struct!(SealedEnd {
    epoch,
    log_epoch,
    end
});
wire_struct!(KvEntry { version, value });
wire_struct!(Object {
    order,
    kind,
    size,
    node_epoch,
    streams,
    offsets,
    ranges,
    exceptions
});
wire_struct!(Exception { range, valid });

impl State {
    /// The state's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.raw(&[SNAPSHOT_VERSION]);
        self.tip.put(&mut out);
        self.level.put(&mut out);
        self.next.put(&mut out);
        put_map(&self.nodes, &mut out);
        put_map(&self.debts, &mut out);
        put_map(&self.groups, &mut out);
        put_map(&self.streams, &mut out);
        put_map(&self.kv, &mut out);
        put_map(&self.prepared, &mut out);
        put_map(&self.condemned, &mut out);
        put_map(&self.objects, &mut out);
        out.into_vec()
    }

    /// The state that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.first() {
            Some(&SNAPSHOT_VERSION) => {}
            Some(version) => {
                return Err(Error::invalid(
                    "metadata snapshot of a newer format: this version must be upgraded",
                )
                .with("format", version)
                .with("known", SNAPSHOT_VERSION));
            }
            None => return Err(Error::corrupt("metadata snapshot is empty")),
        }
        let mut reader = Reader::new(&bytes[1..]);
        let state = Self::read(&mut reader)
            .and_then(|state| reader.finish().map(|()| state))
            .map_err(|error| Error::corrupt("metadata snapshot").caused_by(error))?;
        if state.level > KNOWN_LEVEL {
            return Err(Error::invalid(
                "the cluster uses features of a newer version: this version must be upgraded",
            )
            .with("level", state.level)
            .with("known", KNOWN_LEVEL));
        }
        Ok(state)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut state = Self {
            tip: Wire::get(from)?,
            level: Wire::get(from)?,
            next: Wire::get(from)?,
            nodes: get_map(from)?,
            debts: get_map(from)?,
            groups: get_map(from)?,
            streams: get_map(from)?,
            kv: get_map(from)?,
            prepared: get_map(from)?,
            condemned: get_map(from)?,
            objects: get_map(from)?,
            ..Self::default()
        };
        state.build_indexes()?;
        Ok(state)
    }

    fn build_indexes(&mut self) -> Result<(), WireError> {
        self.check_counters()?;
        for (id, group) in &self.groups {
            if let Some(owner) = group.owner {
                self.owned.entry(owner).or_default().insert(*id);
            }
            for tag in &group.tags {
                self.tags.entry(tag.clone()).or_default().insert(*id);
            }
            let known = |id| self.streams.contains_key(id);
            if !group.streams.iter().all(known) {
                return Err(WireError::Impossible("group whose stream does not exist"));
            }
        }
        if self
            .streams
            .values()
            .any(|stream| stream.start > stream.end)
        {
            return Err(WireError::Impossible("stream that starts past its end"));
        }
        let objects = std::mem::take(&mut self.objects);
        for (id, object) in &objects {
            self.index_object(*id, object);
        }
        self.objects = objects;
        Ok(())
    }
}

impl State {
    /// What is only ever counted up by one stays far from where it would overflow.
    fn check_counters(&self) -> Result<(), WireError> {
        const FAR: u64 = 1 << 62;
        let Counters {
            epoch,
            group,
            stream,
            object,
            version,
            order,
        } = self.next;
        let next = [self.tip.index, epoch, group, stream, object, version, order];
        let epochs = self.groups.values().map(|group| group.epoch.get());
        let sequences = self.nodes.values().map(|node| node.sequence);
        match next
            .into_iter()
            .chain(epochs)
            .chain(sequences)
            .all(|count| count < FAR)
        {
            true => Ok(()),
            false => Err(WireError::Impossible("counter")),
        }
    }
}

fn put_map<K: Wire, V: Wire>(map: &BTreeMap<K, V>, out: &mut Writer) {
    out.varint(map.len() as u64);
    for (key, value) in map {
        key.put(out);
        value.put(out);
    }
}

/// Keys ascend: a map has one form.
fn get_map<K: Wire + Ord + Clone, V: Wire>(
    from: &mut Reader<'_>,
) -> Result<BTreeMap<K, V>, WireError> {
    let count = from.count(K::LEAST + V::LEAST)?;
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let key = K::get(from)?;
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(WireError::Impossible("keys out of order"));
        }
        map.insert(key, V::get(from)?);
    }
    Ok(map)
}
