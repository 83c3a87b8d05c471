//! ApiVersions (18): the table of what is served, in any version a client can think of.
//!
//! From version 3 on the features that are in force are named: clients use transactions of the second kind, for one, only if
//! these say so. Tagged fields that say nothing are not written (F2).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
    protocol::StrBytes,
};

use super::{Abort, Reply, Request};
use crate::wire::{
    apis::APIS,
    response::{Head, Response},
};

/// Features in force, each with its level.
const FEATURES: &[(&str, i16)] = &[("group.version", 1), ("transaction.version", 2)];
/// The first version that names features.
const NAMES_FEATURES: i16 = 3;
/// The first version whose clients can read that a feature is supported from level 0 on.
const FROM_LEVEL_0: i16 = 4;
/// Of the features: they do not change while a broker runs.
const FEATURES_EPOCH: i64 = 0;

pub(super) fn begin(request: Request) -> Result<Reply, Abort> {
    let asked: ApiVersionsRequest = request.decode()?;
    tracing::debug!(
        client = request.client_id.as_deref(),
        software = asked.client_software_name.as_str(),
        version = asked.client_software_version.as_str(),
        "a client asks what is served"
    );
    let answer = with_features(request.head.version, table(0));
    Reply::now(Response::encode(request.head, &answer))
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

fn with_features(version: i16, mut table: ApiVersionsResponse) -> ApiVersionsResponse {
    if version >= NAMES_FEATURES {
        table.finalized_features_epoch = FEATURES_EPOCH;
        let finalized = FEATURES.iter().map(|(name, level)| {
            FinalizedFeatureKey::default()
                .with_name(StrBytes::from_static_str(name))
                .with_min_version_level(*level)
                .with_max_version_level(*level)
        });
        table.finalized_features = finalized.collect();
    }
    if version >= FROM_LEVEL_0 {
        let supported = FEATURES.iter().map(|(name, level)| {
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_static_str(name))
                .with_max_version(*level)
        });
        table.supported_features = supported.collect();
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_no_tagged_field_is_written_that_says_nothing() {
        for (version, tags) in [(0, 0), (2, 0), (3, 2), (4, 3)] {
            let head = Head {
                key: ApiKey::ApiVersions,
                version,
                correlation_id: 1,
            };
            let answer = with_features(version, table(0));
            let response = Response::encode(head, &answer).unwrap();
            let body = &response.pieces[0];
            // number 4, error 2, then rows of 2+2+2; flexible: count 1 and an empty tagged section in each row; throttle 4.
            let tags_at = match version {
                0 => 4 + 2 + 4 + APIS.len() * 6,
                1..=2 => 4 + 2 + 4 + APIS.len() * 6 + 4,
                _ => 4 + 2 + 1 + APIS.len() * 7 + 4,
            };
            assert_eq!(body.get(tags_at).copied().unwrap_or(0), tags, "v{version}");
            assert_eq!(body.len() > tags_at, version >= 3, "v{version}");
        }
    }

    /// A client that cannot read a lowest level of 0 is not told of it.
    #[test]
    fn features_are_told_as_the_version_can_say_them() {
        let answer = with_features(3, table(0));
        assert_eq!(answer.supported_features.len(), 0);
        let told = answer.finalized_features.iter();
        let told: Vec<_> = told
            .map(|f| (f.name.as_str(), f.max_version_level))
            .collect();
        assert_eq!(told, FEATURES);
        let answer = with_features(4, table(0));
        assert_eq!(answer.supported_features.len(), FEATURES.len());
        assert!(answer.supported_features.iter().all(|f| f.min_version == 0));
    }
}
