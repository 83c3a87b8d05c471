//! ApiVersions (18): the table of what is served, in any version a client can think of.
//!
//! No features are named, so no tagged field is written (F2): neither transactions of the second kind nor groups of the
//! new protocol are offered.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion,
    },
};

use super::{Abort, Reply, Request};
use crate::wire::{
    apis::APIS,
    response::{Head, Response},
};

pub(super) fn begin(request: Request) -> Result<Reply, Abort> {
    let asked: ApiVersionsRequest = request.decode()?;
    tracing::debug!(
        client = request.client_id.as_deref(),
        software = asked.client_software_name.as_str(),
        version = asked.client_software_version.as_str(),
        "a client asks what is served"
    );
    Reply::now(Response::encode(request.head, &table(0)))
}

/// The answer to a version that is not known: the oldest body, which every client can read, with the full table (F1).
pub(crate) fn unsupported_version(correlation_id: i32) -> Result<Reply, Abort> {
    let head = Head {
        key: ApiKey::ApiVersions,
        version: 0,
        correlation_id,
    };
    let code = ResponseError::UnsupportedVersion.code();
    Reply::now(Response::encode(head, &table(code)))
}

fn table(error_code: i16) -> ApiVersionsResponse {
    let keys = APIS.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(*api.advertised.start())
            .with_max_version(*api.advertised.end())
    });
    ApiVersionsResponse::default()
        .with_error_code(error_code)
        .with_api_keys(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tagged_field_is_written() {
        for version in [3, 4] {
            let head = Head {
                key: ApiKey::ApiVersions,
                version,
                correlation_id: 1,
            };
            let response = Response::encode(head, &table(0)).unwrap();
            // number 4, error 2, count 1, rows of 2+2+2 and an empty tagged section, throttle 4, an empty tagged section.
            assert_eq!(response.pieces[0].len(), 4 + 2 + 1 + APIS.len() * 7 + 4 + 1);
            assert_eq!(response.pieces[0].last(), Some(&0));
        }
    }
}
