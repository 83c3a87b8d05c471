//! The request header: which API, which version, the number that the answer repeats, and who asks.
//!
//! It is read in two steps, because an ApiVersions request of an unknown version has an unknown rest and is answered all
//! the same (F1).

use bytes::Bytes;

use super::guard;

/// The part that every version has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

const PREFIX_LEN: usize = 8;

/// Why a header cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("a request of {0} bytes, too short for a header")]
    Short(usize),
    #[error("request header: {0}")]
    Refused(#[from] guard::Refusal),
    #[error("request header: the client id is not UTF-8")]
    ClientId,
}

impl Prefix {
    /// Reads the first bytes of a frame.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, HeaderError> {
        let [k0, k1, v0, v1, c0, c1, c2, c3] = *frame
            .first_chunk::<PREFIX_LEN>()
            .ok_or(HeaderError::Short(frame.len()))?;
        Ok(Self {
            key: i16::from_be_bytes([k0, k1]),
            version: i16::from_be_bytes([v0, v1]),
            correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
        })
    }
}

/// Reads what follows the prefix. Returns the client id, a copy, and the body, a slice of `frame`.
pub(crate) fn split(frame: &Bytes, flexible: bool) -> Result<(Option<String>, Bytes), HeaderError> {
    let beyond = |len, remaining| guard::Refusal::Beyond { len, remaining };
    let after = frame
        .get(PREFIX_LEN..)
        .ok_or(HeaderError::Short(frame.len()))?;
    // The client id's length is two bytes in every version, flexible ones included.
    let (len, after) = after
        .split_first_chunk::<2>()
        .ok_or(beyond(2, after.len()))?;
    let (client_id, after) = match i16::from_be_bytes(*len) {
        -1 => (None, after),
        len => {
            let len = usize::try_from(len).map_err(|_| guard::Refusal::Negative(i32::from(len)))?;
            let (id, after) = after
                .split_at_checked(len)
                .ok_or(beyond(len, after.len()))?;
            let id = std::str::from_utf8(id).map_err(|_| HeaderError::ClientId)?;
            (Some(id.to_owned()), after)
        }
    };
    let body = if flexible {
        guard::skip_tagged(after)?
    } else {
        after
    };
    Ok((client_id, frame.slice(frame.len() - body.len()..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flexible_header_has_a_classic_client_id_and_then_tagged_fields() {
        let frame = Bytes::from_static(&[
            0, 3, 0, 9, 0, 0, 0, 7, // key, version, correlation id
            0, 2, b'm', b'e', // client id
            1, 5, 2, 0xaa, 0xbb, // one tagged field
            42,
        ]);
        let prefix = Prefix::decode(&frame).unwrap();
        assert_eq!(
            (prefix.key, prefix.version, prefix.correlation_id),
            (3, 9, 7)
        );
        let (client, body) = split(&frame, true).unwrap();
        assert_eq!(client.as_deref(), Some("me"));
        assert_eq!(&body[..], [42]);
    }

    #[test]
    fn every_prefix_of_a_header_is_refused() {
        let frame = [
            0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 1, 5, 2, 0xaa, 0xbb,
        ];
        for len in 0..frame.len() {
            let frame = Bytes::copy_from_slice(&frame[..len]);
            assert!(split(&frame, true).is_err(), "{len}");
        }
    }

    #[test]
    fn a_client_id_of_a_forged_length_is_refused() {
        for len in [3i16, i16::MAX, -2, i16::MIN] {
            let mut frame = vec![0, 3, 0, 0, 0, 0, 0, 7];
            frame.extend_from_slice(&len.to_be_bytes());
            frame.extend_from_slice(b"me");
            assert!(split(&frame.into(), false).is_err(), "{len}");
        }
    }
}
