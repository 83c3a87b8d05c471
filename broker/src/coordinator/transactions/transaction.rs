//! One transactional id: who holds it, and how far its transaction has come.
//!
//! What a request does to it is told by functions from the transaction as it is to what it becomes; nothing here is
//! changed in place, and nothing is kept that the record of `__transaction_state` does not have.

use std::collections::{BTreeMap, BTreeSet};

use segment_adapter::TransactionVersion;

/// The last epoch that a client is given; the one above is for the marker that ends its last transaction.
pub(crate) const EPOCH_LAST: i16 = i16::MAX - 1;

/// How far a transaction has come. The numbers are persisted: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Status {
    /// There has been none since the producer asked for its id.
    Empty = 0,
    Ongoing = 1,
    /// It is decided; the markers are being written.
    PrepareCommit = 2,
    PrepareAbort = 3,
    /// Every partition has its marker.
    CompleteCommit = 4,
    CompleteAbort = 5,
    /// The id is forgotten.
    Dead = 6,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
    ];

    pub(crate) fn of(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as i8 == number)
    }

    /// The word of the protocol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Decided, and not yet told to every partition.
    pub(crate) fn is_ending(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Whether it may come after `before`; Kafka's table.
    pub(crate) fn may_follow(self, before: Self) -> bool {
        use Status::{
            CompleteAbort, CompleteCommit, Dead, Empty, Ongoing, PrepareAbort, PrepareCommit,
        };
        let rests = matches!(before, Empty | CompleteCommit | CompleteAbort);
        match self {
            Empty | Dead => rests,
            Ongoing | PrepareAbort => rests || before == Ongoing,
            PrepareCommit => before == Ongoing,
            CompleteCommit => before == PrepareCommit,
            CompleteAbort => before == PrepareAbort,
        }
    }
}

/// The partitions of a transaction, by topic.
pub(crate) type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// What is known of a transactional id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transaction {
    pub(crate) producer_id: i64,
    /// The epoch of its holder; while a transaction ends, that of its markers.
    pub(crate) epoch: i16,
    /// The producer id of whoever has the right to this id and epoch without perhaps knowing them, since the answer may
    /// have been lost: the same id with the epoch before, or another whose epochs are used up.
    pub(crate) previous: Option<i64>,
    /// The producer id that its holder has once the transaction has ended, if epochs are used up.
    pub(crate) next: Option<i64>,
    pub(crate) timeout_ms: i32,
    pub(crate) status: Status,
    pub(crate) partitions: Partitions,
    pub(crate) updated_ms: i64,
    /// When the transaction began; -1 if there has been none.
    pub(crate) started_ms: i64,
    /// How its producer counts epochs.
    pub(crate) version: TransactionVersion,
}

impl Transaction {
    /// An id that nobody has held.
    pub(crate) fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            epoch: 0,
            previous: None,
            next: None,
            timeout_ms,
            status: Status::Empty,
            partitions: Partitions::new(),
            updated_ms: now_ms,
            started_ms: -1,
            version: TransactionVersion::V0,
        }
    }

    /// No further epoch can be given to a client.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.epoch >= EPOCH_LAST
    }

    /// Whether whoever had this id and epoch may have been given the present ones.
    pub(crate) fn succeeds(&self, producer_id: i64, epoch: i16) -> bool {
        match self.previous {
            Some(previous) if previous != producer_id => false,
            Some(previous) if previous == self.producer_id => Some(epoch) == self.epoch_before(),
            Some(_) => epoch >= EPOCH_LAST && self.epoch == 0,
            None => false,
        }
    }

    fn epoch_before(&self) -> Option<i16> {
        self.epoch.checked_sub(1)
    }

    /// A new instance, or the same one after an error (`by_holder`), begins anew.
    pub(crate) fn begun_anew(&self, by_holder: bool, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            epoch: self.epoch.saturating_add(1),
            previous: by_holder.then_some(self.producer_id),
            ..self.emptied(timeout_ms, now_ms)
        }
    }

    /// As [`Self::begun_anew`], when no epoch is left for its id.
    pub(crate) fn rotated(
        &self,
        producer_id: i64,
        by_holder: bool,
        timeout_ms: i32,
        now_ms: i64,
    ) -> Self {
        Self {
            producer_id,
            epoch: 0,
            previous: by_holder.then_some(self.producer_id),
            ..self.emptied(timeout_ms, now_ms)
        }
    }

    fn emptied(&self, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            next: None,
            timeout_ms,
            status: Status::Empty,
            partitions: Partitions::new(),
            updated_ms: now_ms,
            started_ms: -1,
            ..self.clone()
        }
    }

    /// These partitions are of the transaction, which begins with them if there is none.
    pub(crate) fn with_partitions(
        &self,
        partitions: &Partitions,
        version: TransactionVersion,
        now_ms: i64,
    ) -> Self {
        let goes_on = self.status == Status::Ongoing;
        let mut all = if goes_on {
            self.partitions.clone()
        } else {
            Partitions::new()
        };
        // A name without partitions would be kept for nothing.
        for (topic, indexes) in partitions.iter().filter(|(_, indexes)| !indexes.is_empty()) {
            all.entry(topic.clone()).or_default().extend(indexes);
        }
        Self {
            previous: None,
            status: Status::Ongoing,
            partitions: all,
            updated_ms: now_ms,
            started_ms: if goes_on { self.started_ms } else { now_ms },
            version,
            ..self.clone()
        }
    }

    /// Those that are not of the transaction that is going on.
    pub(crate) fn missing(&self, partitions: &Partitions) -> Partitions {
        let is_known = |topic: &String, index: &i32| {
            let known = self.partitions.get(topic);
            self.status == Status::Ongoing && known.is_some_and(|known| known.contains(index))
        };
        let missing = partitions.iter().map(|(topic, indexes)| {
            let indexes = indexes.iter().filter(|index| !is_known(topic, index));
            (topic.clone(), indexes.copied().collect::<BTreeSet<_>>())
        });
        missing.filter(|(_, indexes)| !indexes.is_empty()).collect()
    }

    /// Its holder ends it. In version 2 the epoch rises with each transaction, and `next` is the producer id once epochs
    /// are used up.
    pub(crate) fn ended(
        &self,
        commit: bool,
        version: TransactionVersion,
        next: Option<i64>,
        now_ms: i64,
    ) -> Self {
        let bumps = version == TransactionVersion::V2;
        let going_on = self.status == Status::Ongoing;
        Self {
            epoch: self.epoch.saturating_add(i16::from(bumps)),
            previous: bumps.then_some(self.producer_id),
            next,
            status: if commit {
                Status::PrepareCommit
            } else {
                Status::PrepareAbort
            },
            // An abort without any partition.
            partitions: if going_on {
                self.partitions.clone()
            } else {
                Partitions::new()
            },
            started_ms: if going_on { self.started_ms } else { now_ms },
            updated_ms: now_ms,
            version,
            ..self.clone()
        }
    }

    /// It is aborted over the head of its holder, who cannot write any more; unless that is who asked (`by_holder`).
    pub(crate) fn fenced(&self, by_holder: bool, now_ms: i64) -> Self {
        Self {
            epoch: self.epoch.saturating_add(1),
            previous: by_holder.then_some(self.producer_id),
            status: Status::PrepareAbort,
            updated_ms: now_ms,
            ..self.clone()
        }
    }

    /// Every partition has its marker.
    pub(crate) fn completed(&self, now_ms: i64) -> Self {
        let status = match self.status {
            Status::PrepareCommit => Status::CompleteCommit,
            _ => Status::CompleteAbort,
        };
        let (producer_id, epoch) = match self.next {
            Some(next) => (next, 0),
            None => (self.producer_id, self.epoch),
        };
        Self {
            producer_id,
            epoch,
            next: None,
            status,
            partitions: Partitions::new(),
            updated_ms: now_ms,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_without_partitions_is_not_kept() {
        let partitions = Partitions::from([
            ("t".to_owned(), [1].into()),
            ("x".repeat(900), BTreeSet::new()),
        ]);
        let txn = Transaction::new(7, 1, 0);
        let txn = txn.with_partitions(&partitions, TransactionVersion::V0, 0);
        assert_eq!(txn.partitions.into_keys().collect::<Vec<_>>(), ["t"]);
    }

    #[test]
    fn the_order_of_states_is_kafkas() {
        use Status::{
            CompleteAbort, CompleteCommit, Dead, Empty, Ongoing, PrepareAbort, PrepareCommit,
        };
        let before: [(Status, &[Status]); 7] = [
            (Empty, &[Empty, CompleteCommit, CompleteAbort]),
            (Ongoing, &[Empty, Ongoing, CompleteCommit, CompleteAbort]),
            (PrepareCommit, &[Ongoing]),
            (
                PrepareAbort,
                &[Empty, Ongoing, CompleteCommit, CompleteAbort],
            ),
            (CompleteCommit, &[PrepareCommit]),
            (CompleteAbort, &[PrepareAbort]),
            (Dead, &[Empty, CompleteCommit, CompleteAbort]),
        ];
        for (status, allowed) in before {
            let found = Status::ALL
                .into_iter()
                .filter(|before| status.may_follow(*before));
            assert_eq!(found.collect::<Vec<_>>(), allowed, "{status:?}");
            assert_eq!(Status::of(status as i8), Some(status));
            assert_eq!(Status::of_name(status.name()), Some(status));
        }
        // 7 is a state of Kafka's that is in memory alone.
        assert_eq!((Status::of(7), Status::of(-1)), (None, None));
    }
}
