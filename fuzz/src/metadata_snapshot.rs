//! Metadata snapshots: any bytes are refused, or are a state that has no other form.

use s3stream::{
    ErrorKind,
    metadata::{EncodedEntry, State},
};

/// Decodes `data`.
pub fn run(data: &[u8]) {
    match State::decode(data) {
        Ok(state) => assert_eq!(state.encode(), data, "what decodes has one form"),
        Err(error) => {
            assert!(matches!(
                error.kind(),
                ErrorKind::Corrupt | ErrorKind::Invalid
            ));
        }
    }
}

/// The state after each entry of a node's life.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut state = State::default();
    let mut seeds = vec![state.encode()];
    for body in crate::metadata_entry::life() {
        let entry = s3stream::metadata::Entry::after(state.tip(), body).encode();
        let parsed = EncodedEntry::parse(entry.bytes().clone()).expect("an entry just made");
        state.append(&parsed).expect("an entry that follows");
        seeds.push(state.encode());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_reach_committed_objects_destroyed_groups_and_retired_logs() {
        let states: Vec<_> = seeds()
            .iter()
            .map(|seed| State::decode(seed).expect("a seed"))
            .collect();
        let objects: Vec<_> = states.iter().map(|state| state.objects().count()).collect();
        assert_eq!(objects[3], 2, "{objects:?}");
        assert!(states[3].groups().count() == 1 && states[3].kv(b"topic").is_none());
        assert_eq!(states[4].groups().count(), 0, "destroyed");
        let second: Vec<_> = states[6].debts().map(|debt| debt.epoch.get()).collect();
        assert_eq!(second, [1, 2]);
        let last: Vec<_> = states[7].debts().map(|debt| debt.epoch.get()).collect();
        assert_eq!(last, [2], "retired");
    }
}
