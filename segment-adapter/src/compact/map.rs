//! The newest offset of every key, in memory of a fixed size.
//!
//! A key is 16 bytes of hash; the key itself is not kept. So two keys of one hash would be taken for one and a record
//! lost: the hash is keyed, and the key drawn for every map, so that nobody who writes records can look for such a pair
//! beforehand, and by chance it takes 2⁶⁴ keys. `len() <= capacity()`, and the memory never grows.

use std::hash::{BuildHasher, RandomState};

use siphasher::sip128::{Hash128, SipHasher13};

/// Hash (16) and offset (8), and nothing else.
pub(crate) const SLOT_BYTES: usize = 24;
/// Of ten slots so many are filled at most, so that a search ends soon.
const FILLED_OF_TEN: usize = 9;

/// Both halves of the hash, then the offset plus one; 0 there is an empty slot, and the memory of a map that was never
/// filled is not touched.
type Slot = [u64; 3];
const _: () = assert!(size_of::<Slot>() == SLOT_BYTES);

/// The newest offset of every key of a part of a log.
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    /// The slots that are used since [`Self::clear`], from the first: fewer are cleared faster.
    used: usize,
    len: usize,
    /// One past the last offset that was looked at.
    end: i64,
    hasher: SipHasher13,
}

impl OffsetMap {
    /// A map that takes up at most `budget_bytes`, but at least one slot of 24 bytes.
    pub(crate) fn new(budget_bytes: usize) -> Self {
        let drawn = RandomState::new();
        let slots = (budget_bytes / SLOT_BYTES).max(1);
        Self {
            slots: vec![[0; 3]; slots],
            used: slots,
            len: 0,
            end: 0,
            hasher: SipHasher13::new_with_keys(drawn.hash_one(0_u64), drawn.hash_one(1_u64)),
        }
    }

    /// Empties it for a part of a log that has at most `keys_max` different keys; it may hold no more than that.
    pub(crate) fn clear(&mut self, keys_max: u64) {
        // What was never filled is not touched.
        if self.len > 0 {
            self.slots[..self.used].fill([0; 3]);
        }
        // Twice the keys: short searches, as long as the budget allows.
        let wanted = usize::try_from(keys_max.saturating_mul(2)).unwrap_or(usize::MAX);
        self.used = wanted.clamp(1, self.slots.len());
        self.len = 0;
        self.end = 0;
    }

    /// How many keys it has room for.
    pub(crate) fn capacity(&self) -> usize {
        // One at least, or a tiny map would never help.
        (self.used * FILLED_OF_TEN / 10).max(1)
    }

    /// How many keys it has.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is below is accounted for: what the map does not have of it is not the newest of its key, or was there before.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Everything below `end` was looked at. Never goes back.
    pub(crate) fn cover(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// Notes the offset of a key, the largest of those that are noted; false, and nothing is noted, if it is a new key and
    /// there is no room.
    #[must_use]
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        self.note(self.hasher.hash(key), offset)
    }

    fn note(&mut self, hash: Hash128, offset: i64) -> bool {
        debug_assert!(offset >= 0, "offsets are not negative");
        let noted = (offset as u64).saturating_add(1);
        let at = self.find(&hash);
        let is_full = self.len >= self.capacity();
        match at.map(|at| &mut self.slots[at]) {
            Some(slot) if slot[2] != 0 => slot[2] = slot[2].max(noted),
            Some(slot) if !is_full => {
                *slot = [hash.h1, hash.h2, noted];
                self.len += 1;
            }
            _ => return false,
        }
        true
    }

    /// The newest offset of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        self.noted(self.hasher.hash(key))
    }

    fn noted(&self, hash: Hash128) -> Option<i64> {
        let at = self.find(&hash)?;
        let noted = self.slots[at][2];
        (noted != 0).then(|| (noted - 1) as i64)
    }

    /// The slot that has the hash, or the empty one where it would go; `None` if all others are taken.
    fn find(&self, hash: &Hash128) -> Option<usize> {
        let slots = &self.slots[..self.used];
        let first = ((u128::from(hash.h1) * slots.len() as u128) >> 64) as usize;
        let matches = |slot: &Slot| slot[2] == 0 || (slot[0] == hash.h1 && slot[1] == hash.h2);
        let (before, from) = slots.split_at(first);
        match from.iter().position(matches) {
            Some(at) => Some(first + at),
            None => before.iter().position(matches),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn slots(count: usize) -> OffsetMap {
        OffsetMap::new(count * SLOT_BYTES)
    }

    #[test]
    fn a_map_of_few_slots_takes_at_least_one_key_and_says_when_it_is_full() {
        for (count, room) in [(0, 1), (1, 1), (2, 1), (4, 3), (10, 9), (100, 90)] {
            let mut map = slots(count);
            assert_eq!(map.capacity(), room, "{count}");
            for key in 0..room {
                assert!(map.put(&key.to_be_bytes(), key as i64), "{count} {key}");
            }
            assert!(!map.put(b"one more", 7), "{count}");
            assert_eq!(map.get(b"one more"), None);
            // A key that is there takes no more room.
            assert!(map.put(&0_usize.to_be_bytes(), 99));
            assert_eq!(map.get(&0_usize.to_be_bytes()), Some(99));
            assert_eq!(map.len(), room);
            assert_eq!(map.slots.capacity(), count.max(1), "memory has not grown");
        }
    }

    #[test]
    fn a_map_is_used_again_for_fewer_keys_and_for_more() {
        let mut map = slots(1000);
        for keys in [1000_u64, 3, 0, 400, 1_000_000] {
            map.clear(keys);
            assert_eq!((map.len(), map.end(), map.get(b"")), (0, 0, None));
            let fit = keys.clamp(1, 900);
            assert!(map.capacity() as u64 >= fit, "{keys}");
            for key in 0..fit {
                assert_eq!(map.get(&key.to_be_bytes()), None);
                assert!(map.put(&key.to_be_bytes(), key as i64));
            }
            map.cover(17);
            map.cover(5);
            assert_eq!(map.end(), 17);
        }
    }

    #[test]
    fn two_maps_hash_differently() {
        let hash = |map: OffsetMap| map.hasher.hash(b"key").as_u128();
        assert_ne!(hash(slots(1)), hash(slots(1)));
    }

    #[test]
    fn both_halves_of_a_hash_tell_keys_apart() {
        let mut map = slots(100);
        let hashes = [(1, 1), (1, 2), (2, 1), (2, 2), (u64::MAX, 1), (u64::MAX, 0)];
        let hash = |(h1, h2)| Hash128 { h1, h2 };
        for (offset, halves) in hashes.into_iter().enumerate() {
            assert_eq!(map.noted(hash(halves)), None);
            assert!(map.note(hash(halves), offset as i64));
        }
        for (offset, halves) in hashes.into_iter().enumerate() {
            assert_eq!(map.noted(hash(halves)), Some(offset as i64));
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(
            count in 1..40_usize,
            keys_max in 0..60_u64,
            puts in prop::collection::vec((0..50_u8, 0..1000_i64), 0..200),
        ) {
            let mut map = slots(count);
            map.clear(keys_max);
            let mut model: HashMap<u8, i64> = HashMap::new();
            for (key, offset) in puts {
                let fits = model.contains_key(&key) || model.len() < map.capacity();
                prop_assert_eq!(map.put(&[key], offset), fits);
                if fits {
                    let newest = model.entry(key).or_insert(offset);
                    *newest = offset.max(*newest);
                }
                prop_assert_eq!(map.len(), model.len());
            }
            for key in 0..50 {
                prop_assert_eq!(map.get(&[key]), model.get(&key).copied());
            }
        }
    }
}
