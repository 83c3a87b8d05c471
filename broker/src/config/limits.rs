//! What clients may use of a broker: `largest request <= unanswered bytes of all`, `largest fetch <= answers of all`.
//!
//! Together they bound what clients can make a broker hold, however slow or hostile they are.

use serde::{Deserialize, Serialize};

/// Limits on connections, requests and answers. Bytes and milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at one time; further ones are closed at once.
    pub connections_max: usize,
    /// Connections from one address at one time; further ones are closed at once.
    pub connections_per_address_max: usize,
    /// Unanswered requests of one connection; further ones stay in the socket.
    pub requests_in_flight_max: usize,
    /// The largest request, and the most unanswered bytes of one connection.
    pub request_bytes_max: usize,
    /// Unanswered bytes of all connections.
    pub in_flight_bytes_max: usize,
    /// Records in one Fetch answer, whatever the client asks for (a first batch that is larger is sent all the same).
    pub fetch_bytes_max: usize,
    /// Answers being read or written, of all connections.
    pub response_bytes_max: usize,
    /// How long a request may take to arrive, from its first byte, and a connection's first one from the beginning.
    pub request_read_timeout_ms: u64,
    /// How long a client may take nothing of an answer.
    pub write_stall_timeout_ms: u64,
    /// How long a client may take for one whole answer.
    pub write_timeout_ms: u64,
    /// How long a connection may be silent.
    pub idle_timeout_ms: u64,
}

const MIB: usize = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 5_000,
            requests_in_flight_max: 64,
            request_bytes_max: 100 * MIB,
            in_flight_bytes_max: 256 * MIB,
            fetch_bytes_max: 55 * MIB,
            response_bytes_max: 256 * MIB,
            request_read_timeout_ms: 30_000,
            write_stall_timeout_ms: 30_000,
            write_timeout_ms: 600_000,
            idle_timeout_ms: 600_000,
        }
    }
}

impl Limits {
    pub(super) fn validate(&self, check: &mut impl FnMut(bool, &'static str, String)) {
        for (key, value) in [
            ("limits.connections_max", self.connections_max),
            (
                "limits.connections_per_address_max",
                self.connections_per_address_max,
            ),
            ("limits.requests_in_flight_max", self.requests_in_flight_max),
            ("limits.fetch_bytes_max", self.fetch_bytes_max),
        ] {
            check(value > 0, key, "0 would serve nobody".into());
        }
        for (key, value) in [
            (
                "limits.request_read_timeout_ms",
                self.request_read_timeout_ms,
            ),
            ("limits.write_stall_timeout_ms", self.write_stall_timeout_ms),
            ("limits.write_timeout_ms", self.write_timeout_ms),
            ("limits.idle_timeout_ms", self.idle_timeout_ms),
        ] {
            check(value > 0, key, "0 would end every connection".into());
        }
        let least = 16 * 1024;
        check(
            (least..=i32::MAX as usize).contains(&self.request_bytes_max),
            "limits.request_bytes_max",
            format!(
                "{} is not within {least}..={}",
                self.request_bytes_max,
                i32::MAX
            ),
        );
        check(
            (self.request_bytes_max..=u32::MAX as usize).contains(&self.in_flight_bytes_max),
            "limits.in_flight_bytes_max",
            format!(
                "{} is not within {} (limits.request_bytes_max) and {}",
                self.in_flight_bytes_max,
                self.request_bytes_max,
                u32::MAX
            ),
        );
        check(
            self.fetch_bytes_max <= i32::MAX as usize / 2,
            "limits.fetch_bytes_max",
            format!("{} is above {}", self.fetch_bytes_max, i32::MAX / 2),
        );
        check(
            (self.fetch_bytes_max..=u32::MAX as usize).contains(&self.response_bytes_max),
            "limits.response_bytes_max",
            format!(
                "{} is not within {} (limits.fetch_bytes_max) and {}",
                self.response_bytes_max,
                self.fetch_bytes_max,
                u32::MAX
            ),
        );
    }
}
