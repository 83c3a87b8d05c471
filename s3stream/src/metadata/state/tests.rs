//! Each rule of the state machine, and the bracketed scenarios of `docs/contracts.md` that it decides.

mod commit;
mod golden;
mod model;

mod nodes;

use std::ops::Range;

use wal::{LogUuid, Position};

use super::*;
use crate::metadata::Command;
use crate::metadata::{
    answer::{Committed, Refusal},
    command::{Commit, CreateGroup, LogRegistration, LogTrim, Started},
    entry::{Batch, Body, EncodedEntry, Entry, Registration},
};

const A: NodeId = NodeId::new(1);
const B: NodeId = NodeId::new(2);

/// The log that a node uses in these tests unless it says otherwise.
fn log_of(node: NodeId) -> LogUuid {
    LogUuid::new(u128::from(node.get()) * 1000)
}

/// A log of entries and the state they give; nodes send their batches through it.
#[derive(Clone, Default)]
struct Cluster {
    state: State,
    entries: Vec<EncodedEntry>,
    sequences: BTreeMap<(NodeId, NodeEpoch), u64>,
    incarnations: u128,
}

impl Cluster {
    /// Every entry goes through its bytes, as from a bucket.
    fn entry(&mut self, body: Body) -> Outcome {
        let bytes = Entry::after(self.state.tip, body).encode().bytes().clone();
        let entry = EncodedEntry::parse(bytes).unwrap();
        let outcome = self.state.append(&entry).unwrap();
        self.entries.push(entry);
        outcome
    }

    fn try_register(&mut self, node: NodeId, log: LogUuid) -> Outcome {
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.entry(Body::Register(Registration {
            node,
            incarnation,
            attempt: 1,
            log: Some(LogRegistration {
                uuid: log,
                url: format!("block:/log/{log}"),
            }),
        }))
    }

    fn register(&mut self, node: NodeId) -> Registered {
        match self.try_register(node, log_of(node)) {
            Outcome::Registered(registered) => registered,
            other => panic!("{other:?}"),
        }
    }

    /// Sends commands under `epoch` as its next batch.
    fn batch(&mut self, node: NodeId, epoch: NodeEpoch, commands: Vec<Command>) -> Outcome {
        let sequence = self
            .sequences
            .get(&(node, epoch))
            .map_or(1, |last| last + 1);
        let outcome = self.entry(Body::Batch(Batch {
            node,
            epoch,
            sequence,
            commands,
        }));
        if let Outcome::Answers(_) = outcome {
            self.sequences.insert((node, epoch), sequence);
        }
        outcome
    }

    fn ask(&mut self, node: NodeId, epoch: NodeEpoch, command: Command) -> Answer {
        match self.batch(node, epoch, vec![command]) {
            Outcome::Answers(mut answers) if answers.len() == 1 => answers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn start(&mut self, node: NodeId, epoch: NodeEpoch, at: u64) -> Answer {
        self.start_with(node, epoch, at, vec![])
    }

    /// Every older epoch of the node's log ends at `at`, and the granted one begins there.
    fn start_with(
        &mut self,
        node: NodeId,
        epoch: NodeEpoch,
        at: u64,
        streams: Vec<(StreamId, u64)>,
    ) -> Answer {
        let log = log_of(node);
        let open = |debt: &crate::metadata::DebtView| debt.log == log && debt.sealed_end.is_none();
        let older = self
            .state
            .debts()
            .filter(|debt| open(debt) && debt.epoch < epoch);
        let ends = older.map(|debt| (debt.epoch, Position::new(at))).collect();
        let started = Started {
            log,
            start: Position::new(at),
            ends,
            streams,
        };
        self.ask(node, epoch, Command::Started(started))
    }

    /// Registers and starts, a log without records before it.
    fn join(&mut self, node: NodeId) -> NodeEpoch {
        let epoch = self.register(node).epoch;
        let answer = self.start(node, epoch, 0);
        assert!(matches!(answer, Answer::Started { .. }), "{answer:?}");
        epoch
    }

    /// A group of one stream, opened.
    fn create(&mut self, node: NodeId, epoch: NodeEpoch) -> (GroupId, StreamId) {
        let create = CreateGroup {
            streams: 1,
            tags: vec![],
            open: true,
        };
        match self.ask(node, epoch, Command::CreateGroup(create)) {
            Answer::GroupCreated { group, streams, .. } => (group, streams[0]),
            other => panic!("{other:?}"),
        }
    }

    fn prepare(&mut self, node: NodeId, epoch: NodeEpoch) -> ObjectId {
        match self.ask(node, epoch, Command::Prepare { count: 1 }) {
            Answer::Prepared { objects } => ObjectId::new(objects.start),
            other => panic!("{other:?}"),
        }
    }

    /// A stream-set object with these ranges, under a fresh id.
    fn commit(&mut self, node: NodeId, epoch: NodeEpoch, ranges: Vec<StreamRange>) -> Committed {
        let object = self.prepare(node, epoch);
        match self.ask(
            node,
            epoch,
            Command::Commit(set_object(object, node, ranges)),
        ) {
            Answer::Committed(committed) => committed,
            other => panic!("{other:?}"),
        }
    }

    fn end(&self, stream: StreamId) -> u64 {
        self.state.stream(stream).unwrap().end
    }
}

fn set_object(object: ObjectId, node: NodeId, ranges: Vec<StreamRange>) -> Commit {
    Commit {
        object,
        kind: ObjectKind::StreamSet,
        size: 100,
        ranges,
        log: log_of(node),
        trim: vec![],
    }
}

fn range(stream: StreamId, epoch: u64, offsets: Range<u64>) -> StreamRange {
    StreamRange {
        stream,
        epoch: StreamEpoch::new(epoch),
        offsets,
    }
}

fn log_trim(epoch: NodeEpoch, settled: u64, with_this: u64) -> LogTrim {
    LogTrim {
        epoch,
        settled: Position::new(settled),
        with_this: Position::new(with_this),
        durable_end: Position::new(with_this),
    }
}
