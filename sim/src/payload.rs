//! Payloads that say who they are: every byte follows from (seed, stream, sequence, length).
//!
//! A payload that comes back is checked byte for byte without having been kept.

use bytes::{BufMut, Bytes, BytesMut};

use crate::entropy::mix;

/// Stream, sequence and length come first.
pub(crate) const HEADER_LEN: usize = 24;

/// Who a payload says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) stream: u64,
    pub(crate) sequence: u64,
}

/// The payload of an append, `len` bytes long, at least the header's.
pub(crate) fn make(seed: u64, identity: Identity, len: usize) -> Bytes {
    let len = len.max(HEADER_LEN);
    let mut bytes = BytesMut::with_capacity(len + 8);
    bytes.put_u64(identity.stream);
    bytes.put_u64(identity.sequence);
    bytes.put_u64(len as u64);
    let start = mix(seed ^ mix(identity.stream ^ mix(identity.sequence)));
    let mut word = start;
    while bytes.len() < len {
        word = mix(word.wrapping_add(start | 1));
        bytes.put_u64(word);
    }
    bytes.truncate(len);
    bytes.freeze()
}

/// Whose payload it is, if every byte is as it was made.
pub(crate) fn check(seed: u64, payload: &Bytes) -> Result<Identity, String> {
    let word = |at: usize| {
        let bytes = payload.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_be_bytes)
    };
    let (Some(stream), Some(sequence)) = (word(0), word(8)) else {
        return Err(format!("a payload of {} bytes", payload.len()));
    };
    let identity = Identity { stream, sequence };
    let expected = make(seed, identity, payload.len());
    if expected == *payload {
        return Ok(identity);
    }
    let at = expected.iter().zip(payload).position(|(a, b)| a != b);
    Err(format!(
        "{identity:?} differs from what was appended at byte {at:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Identity = Identity {
        stream: 3,
        sequence: 9,
    };

    #[test]
    fn a_payload_says_who_it_is() {
        for len in [0, 24, 25, 31, 32, 5_000] {
            let payload = make(1, WHO, len);
            assert_eq!(payload.len(), len.max(HEADER_LEN));
            assert_eq!(check(1, &payload), Ok(WHO));
        }
    }

    #[test]
    fn any_changed_byte_and_any_other_length_is_noticed() {
        let payload = make(1, WHO, 100);
        for at in 0..payload.len() {
            let mut bytes = payload.to_vec();
            bytes[at] ^= 1;
            assert!(check(1, &bytes.into()).is_err(), "{at}");
        }
        assert!(check(1, &payload.slice(..99)).is_err());
        assert!(check(2, &payload).is_err());
        assert!(check(1, &payload.slice(..7)).is_err());
    }
}
