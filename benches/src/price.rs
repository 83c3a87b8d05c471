//! What requests cost, in one place: the list price of S3 Standard in us-east-1.
//!
//! Only requests are counted: no storage, no transfer, no discounts. Deletes are free.

use serde::Serialize;

/// US dollars for one PUT (also of a part) or one LIST: $0.005 per 1,000.
pub(crate) const USD_PER_PUT: f64 = 0.005 / 1_000.0;
/// US dollars for one LIST.
pub(crate) const USD_PER_LIST: f64 = 0.005 / 1_000.0;
/// US dollars for one GET or HEAD: $0.0004 per 1,000.
pub(crate) const USD_PER_GET: f64 = 0.0004 / 1_000.0;

/// Requests sent to a bucket, attempts that failed included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Requests {
    /// PUTs, conditional ones and the parts of multipart uploads included.
    pub(crate) put: u64,
    /// GETs and HEADs.
    pub(crate) get: u64,
    /// LISTs.
    pub(crate) list: u64,
    /// DELETEs, one per object.
    pub(crate) delete: u64,
    /// Bytes of payload in PUTs.
    #[serde(skip)]
    pub(crate) put_bytes: u64,
}

impl From<s3stream::store::Requests> for Requests {
    fn from(sent: s3stream::store::Requests) -> Self {
        Self {
            put: sent.put,
            get: sent.get,
            list: sent.list,
            delete: sent.delete,
            put_bytes: sent.put_bytes,
        }
    }
}

impl Requests {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            put: self.put.saturating_sub(before.put),
            get: self.get.saturating_sub(before.get),
            list: self.list.saturating_sub(before.list),
            delete: self.delete.saturating_sub(before.delete),
            put_bytes: self.put_bytes.saturating_sub(before.put_bytes),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            put: self.put + other.put,
            get: self.get + other.get,
            list: self.list + other.list,
            delete: self.delete + other.delete,
            put_bytes: self.put_bytes + other.put_bytes,
        }
    }

    pub(crate) fn total(self) -> u64 {
        self.put + self.get + self.list + self.delete
    }

    pub(crate) fn cost_usd(self) -> f64 {
        self.put as f64 * USD_PER_PUT
            + self.list as f64 * USD_PER_LIST
            + self.get as f64 * USD_PER_GET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_of_each_costs_the_list_price() {
        let requests = Requests {
            put: 1_000,
            get: 1_000,
            list: 1_000,
            delete: 1_000,
            put_bytes: 0,
        };
        assert!((requests.cost_usd() - 0.0104).abs() < 1e-12);
    }

    #[test]
    fn a_difference_never_goes_below_zero() {
        let more = Requests {
            put: 5,
            ..Requests::default()
        };
        assert_eq!(more.since(Requests::default()).total(), 5);
        assert_eq!(Requests::default().since(more).total(), 0);
    }
}
