//! An answer, ready to be written: pieces that are sent without being joined.
//!
//! The first piece starts with the request's number; the length in front is the frame's. Whoever builds a large answer takes
//! its share of `limits.response_bytes_max` first; the share is returned when the answer has been written or dropped.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{messages::ApiKey, protocol::Encodable};
use tokio::sync::OwnedSemaphorePermit;

/// What an answer repeats of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

/// Bytes for one connection.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// A message that the codec refuses to write: a defect of this program.
#[derive(Debug, thiserror::Error)]
#[error("{key:?} v{version} response: {reason}")]
pub(crate) struct EncodeError {
    key: ApiKey,
    version: i16,
    reason: String,
}

impl Response {
    /// Encodes `message` in the version of its request.
    pub(crate) fn encode(head: Head, message: &impl Encodable) -> Result<Self, EncodeError> {
        let mut buf = start(head);
        message
            .encode(&mut buf, head.version)
            .map_err(|error| EncodeError {
                key: head.key,
                version: head.version,
                reason: error.to_string(),
            })?;
        Ok(Self::of(vec![buf.freeze()]))
    }

    /// An answer of pieces, the first of which began with [`start`].
    pub(crate) fn of(pieces: Vec<Bytes>) -> Self {
        Self {
            pieces,
            permit: None,
        }
    }

    /// Ties a share of the budget to this answer.
    pub(crate) fn holding(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }
}

/// A buffer that holds the response header.
pub(crate) fn start(head: Head) -> BytesMut {
    let mut buf = BytesMut::with_capacity(256);
    buf.put_i32(head.correlation_id);
    // F1: an ApiVersions response has header 0 in every version, as its reader does not know yet what the peer speaks.
    if head.key.response_header_version(head.version) >= 1 {
        buf.put_u8(0);
    }
    buf
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiVersionsResponse, MetadataResponse};

    use super::*;

    fn head(key: ApiKey, version: i16) -> Head {
        Head {
            key,
            version,
            correlation_id: 0x0102_0304,
        }
    }

    #[test]
    fn the_header_repeats_the_number_of_the_request() {
        let response =
            Response::encode(head(ApiKey::Metadata, 9), &MetadataResponse::default()).unwrap();
        assert_eq!(response.pieces[0][..5], [1, 2, 3, 4, 0]);
    }

    #[test]
    fn an_api_versions_response_never_has_tagged_fields_in_its_header() {
        let message = ApiVersionsResponse::default();
        for version in 0..=4 {
            let response = Response::encode(head(ApiKey::ApiVersions, version), &message).unwrap();
            // The error code stands right behind the number.
            assert_eq!(response.pieces[0][4..6], [0, 0], "{version}");
        }
    }
}
