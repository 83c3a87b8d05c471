//! A small map for names, configurations and whatever else a broker keeps: compare-and-set by version.

use super::{KvEntry, State};
use crate::metadata::{
    answer::{Answer, Refusal},
    command::{Expect, KvPut},
};

const KEY_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 1 << 20;

impl State {
    pub(super) fn kv_put(&mut self, put: &KvPut) -> Answer {
        if put.key.is_empty() || put.key.len() > KEY_BYTES_MAX {
            return Answer::Refused(Refusal::TooLarge(format!(
                "a key of {} bytes, possible are 1 to {KEY_BYTES_MAX}",
                put.key.len()
            )));
        }
        let len = put.value.as_ref().map_or(0, |value| value.len());
        if len > VALUE_BYTES_MAX {
            return Answer::Refused(Refusal::TooLarge(format!(
                "a value of {len} bytes, at most {VALUE_BYTES_MAX} are possible"
            )));
        }
        let current = self.kv.get(&put.key).map(|entry| entry.version);
        let expected = match put.expect {
            None => true,
            Some(Expect::Absent) => current.is_none(),
            Some(Expect::Version(version)) => current == Some(version),
        };
        if !expected {
            return Answer::KvConflict { current };
        }
        let version = self.next.version;
        self.next.version += 1;
        match &put.value {
            Some(value) => {
                let value = value.clone();
                self.kv.insert(put.key.clone(), KvEntry { version, value });
            }
            None => {
                self.kv.remove(&put.key);
            }
        }
        Answer::KvDone { version }
    }
}
