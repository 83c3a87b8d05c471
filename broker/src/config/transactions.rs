//! Section `[transactions]`: how long a transaction, and the memory of who made it, may last.

use serde::{Deserialize, Serialize};

/// Transactions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transactions {
    /// The longest time-out that a producer may ask for, in milliseconds.
    pub timeout_max_ms: i32,
    /// How long a transactional id is kept that nobody uses, in milliseconds.
    pub id_expiration_ms: u64,
}

impl Default for Transactions {
    fn default() -> Self {
        Self {
            timeout_max_ms: 900_000,
            id_expiration_ms: 604_800_000,
        }
    }
}

impl Transactions {
    pub(super) fn validate(&self, check: &mut impl FnMut(bool, &'static str, String)) {
        check(
            self.timeout_max_ms > 0,
            "transactions.timeout_max_ms",
            format!("{} is not above 0", self.timeout_max_ms),
        );
        check(
            self.id_expiration_ms > 0,
            "transactions.id_expiration_ms",
            "0 would forget every id at once".into(),
        );
    }
}
