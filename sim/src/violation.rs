//! A contract that was broken: what the simulator looks for.

use std::fmt;

/// A contract that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its id, or a word for what has none.
    pub contract: &'static str,
    /// What was seen and what was allowed.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(contract: &'static str, what: impl fmt::Display) -> Self {
        Self {
            contract,
            what: what.to_string(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.contract, self.what)
    }
}
