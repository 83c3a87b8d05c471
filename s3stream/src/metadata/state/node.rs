//! Lives of nodes and what their logs owe: M5, M6, F0, W7.
//!
//! `trim <= durable_end <= sealed_end` of every debt, as far as each is known. At most one unstarted debt per node: that of its current epoch.

use wal::{LogUuid, Position};

use super::{
    Debt, Node, PAST_LIVES, SealedEnd, State,
    apply::{Caller, Outcome},
};
use crate::{
    NodeEpoch, NodeId, StreamEpoch,
    metadata::{
        answer::{Answer, DebtView, Refusal, Registered},
        command::{LogRegistration, LogTrim, Started},
        entry::Registration,
    },
};

/// Object ids that come with a registration.
const FIRST_OBJECTS: u32 = 64;
const URL_BYTES_MAX: usize = 4096;

impl State {
    pub(super) fn register(&mut self, registration: &Registration) -> Outcome {
        if let Some(known) = self.registration_outcome(registration) {
            return known;
        }
        let node = registration.node;
        if let Err(refusal) = self.check_log(node, registration.log.as_ref()) {
            return Outcome::Refused(refusal);
        }
        let epoch = NodeEpoch::new(self.next.epoch);
        self.next.epoch += 1;
        let past = self.fence(node, registration.incarnation);
        let log_state = match &registration.log {
            Some(log) => self.record_debt(node, epoch, log),
            None => Vec::new(),
        };
        let objects = self.reserve(epoch, FIRST_OBJECTS);
        let registered = Registered {
            epoch,
            log_state,
            objects,
        };
        self.nodes.insert(
            node,
            Node {
                epoch,
                incarnation: registration.incarnation,
                attempt: registration.attempt,
                past,
                left: false,
                registered: Some(registered.clone()),
                sequence: 0,
                answers: Vec::new(),
            },
        );
        Outcome::Registered(registered)
    }

    /// What the state already knows of a registration; `None`: it has not been decided.
    pub fn registration_outcome(&self, registration: &Registration) -> Option<Outcome> {
        let known = self.nodes.get(&registration.node)?;
        if known.past.contains(&registration.incarnation) {
            return Some(Outcome::Fenced { by: known.epoch });
        }
        if known.incarnation != registration.incarnation || known.attempt < registration.attempt {
            return None;
        }
        match &known.registered {
            Some(registered) if known.attempt == registration.attempt => {
                Some(Outcome::Registered(registered.clone()))
            }
            // An earlier attempt of the same life, or one whose answer was used long ago.
            _ => Some(Outcome::Fenced { by: known.epoch }),
        }
    }

    /// The node's debts, if any, must be in the log it brings; that log must be nobody else's.
    fn check_log(&self, node: NodeId, log: Option<&LogRegistration>) -> Result<(), Refusal> {
        if log.is_some_and(|log| log.url.len() > URL_BYTES_MAX) {
            return Err(Refusal::TooLarge(format!(
                "log url above {URL_BYTES_MAX} bytes"
            )));
        }
        let uuid = log.map(|log| log.uuid);
        for debt in self.debts.values() {
            if Some(debt.log) == uuid && debt.holder != node {
                return Err(Refusal::HeldBy(debt.holder));
            }
            // An epoch that was never started never acknowledged anything: it owes nothing.
            if debt.holder == node && debt.started && Some(debt.log) != uuid {
                return Err(Refusal::OtherLog {
                    uuid: debt.log,
                    url: debt.url.clone(),
                });
            }
        }
        Ok(())
    }

    /// Ends the node's current life: what it prepared and did not commit may never be committed. Returns its past lives.
    fn fence(&mut self, node: NodeId, by: u128) -> Vec<u128> {
        let Some(old) = self.nodes.remove(&node) else {
            return Vec::new();
        };
        self.condemn_prepared(old.epoch);
        // The life can no longer be started (M2), so an epoch that was not will never hold anything.
        if self.debts.get(&old.epoch).is_some_and(|debt| !debt.started) {
            self.debts.remove(&old.epoch);
        }
        let mut past = old.past;
        // A process that registers again is no past life of itself: its attempts tell its lives apart.
        if old.incarnation != by {
            past.push(old.incarnation);
        }
        if past.len() > PAST_LIVES {
            past.remove(0);
        }
        past
    }

    /// The new log epoch is known before its first byte (M6). Returns the older ones.
    fn record_debt(
        &mut self,
        node: NodeId,
        epoch: NodeEpoch,
        log: &LogRegistration,
    ) -> Vec<DebtView> {
        let mut owed = Vec::new();
        for (epoch, debt) in &mut self.debts {
            if debt.log == log.uuid {
                // The log may have been moved: where it was opened last is where it is.
                debt.url.clone_from(&log.url);
                owed.push(debt.view(*epoch));
            }
        }
        let debt = Debt {
            log: log.uuid,
            url: log.url.clone(),
            node,
            holder: node,
            trim: Position::new(0),
            durable_end: Position::new(0),
            sealed_end: None,
            started: false,
        };
        self.debts.insert(epoch, debt);
        owed
    }

    /// F0 step 5, all of it or nothing.
    pub(super) fn started(&mut self, caller: Caller, started: &Started) -> Answer {
        match self.check_started(caller, started) {
            Ok(()) => self.do_start(caller, started),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn check_started(&self, caller: Caller, started: &Started) -> Result<(), Refusal> {
        let own = self.debts.get(&caller.epoch).ok_or(Refusal::NotFound)?;
        if own.log != started.log {
            return Err(Refusal::OtherLog {
                uuid: own.log,
                url: own.url.clone(),
            });
        }
        if own.started {
            return Err(Refusal::AlreadyStarted);
        }
        for (epoch, found) in &started.ends {
            let debt = self.debts.get(epoch).ok_or(Refusal::NotFound)?;
            if debt.log != started.log || *epoch >= caller.epoch {
                return Err(Refusal::NotFound);
            }
            if debt.sealed_end.is_some_and(|sealed| sealed != *found) {
                return Err(Refusal::SealedEnd(*epoch));
            }
            let known = debt.trim.max(debt.durable_end);
            if *found < known {
                return Err(Refusal::EndBelowDurable {
                    epoch: *epoch,
                    found: *found,
                    known,
                });
            }
        }
        for (epoch, debt) in self.debts.range(..caller.epoch) {
            let listed = started.ends.iter().any(|(listed, _)| listed == epoch);
            if debt.log == started.log && debt.sealed_end.is_none() && !listed {
                return Err(Refusal::SealedEnd(*epoch));
            }
        }
        for (id, end) in &started.streams {
            let stream = self.streams.get(id).ok_or(Refusal::NotFound)?;
            let owner = self.groups.get(&stream.group).and_then(|group| group.owner);
            if owner != Some(caller.node) {
                return Err(Refusal::NotOwner);
            }
            if *end < stream.end {
                return Err(Refusal::EndBelowCommitted {
                    stream: *id,
                    committed_end: stream.end,
                    end: *end,
                });
            }
        }
        Ok(())
    }

    fn do_start(&mut self, caller: Caller, started: &Started) -> Answer {
        for (epoch, end) in &started.ends {
            if let Some(debt) = self.debts.get_mut(epoch) {
                debt.sealed_end = Some(*end);
            }
        }
        if let Some(debt) = self.debts.get_mut(&caller.epoch) {
            debt.started = true;
            debt.trim = started.start;
            debt.durable_end = started.start;
        }
        let ends: std::collections::BTreeMap<_, _> = started.streams.iter().copied().collect();
        let mut groups = Vec::new();
        for id in self.owned.get(&caller.node).into_iter().flatten() {
            let Some(group) = self.groups.get_mut(id) else {
                continue;
            };
            for stream_id in &group.streams {
                if let Some(stream) = self.streams.get_mut(stream_id) {
                    let end = ends.get(stream_id).copied().unwrap_or(stream.end);
                    stream.sealed.push(SealedEnd {
                        epoch: group.epoch,
                        log_epoch: group.log_epoch,
                        end,
                    });
                }
            }
            group.epoch = StreamEpoch::new(group.epoch.get() + 1);
            group.log_epoch = caller.epoch;
            groups.push((*id, group.epoch));
        }
        Answer::Started { groups }
    }

    /// Nothing in the log epoch is owed: every end that was sealed for it is committed (M6).
    pub(super) fn retire(
        &mut self,
        caller: Caller,
        log: LogUuid,
        epoch: NodeEpoch,
    ) -> Result<NodeEpoch, Refusal> {
        let debt = self.debts.get(&epoch).ok_or(Refusal::NotFound)?;
        if debt.log != log {
            return Err(Refusal::NotFound);
        }
        if debt.holder != caller.node {
            return Err(Refusal::HeldBy(debt.holder));
        }
        if debt.sealed_end.is_none() && epoch != caller.epoch {
            return Err(Refusal::SealedEnd(epoch));
        }
        let open = |group: &super::Group| group.owner.is_some() && group.log_epoch == epoch;
        if self.groups.values().any(open) {
            return Err(Refusal::InUse(epoch));
        }
        for (id, stream) in &self.streams {
            for sealed in &stream.sealed {
                if sealed.log_epoch == epoch && sealed.end > stream.end {
                    return Err(Refusal::NotSettled {
                        stream: *id,
                        committed_end: stream.end,
                        end: sealed.end,
                    });
                }
            }
        }
        self.debts.remove(&epoch);
        for stream in self.streams.values_mut() {
            stream.sealed.retain(|sealed| sealed.log_epoch != epoch);
        }
        Ok(epoch)
    }

    pub(super) fn leave(&mut self, caller: Caller) -> Answer {
        let groups = self.owned.get(&caller.node).map_or(0, |owned| owned.len()) as u64;
        let owes = |debt: &&Debt| debt.holder == caller.node && debt.started;
        let debts = self.debts.values().filter(owes).count() as u64;
        if groups > 0 || debts > 0 {
            return Answer::Refused(Refusal::NotIdle { groups, debts });
        }
        self.debts.remove(&caller.epoch);
        self.condemn_prepared(caller.epoch);
        if let Some(node) = self.nodes.get_mut(&caller.node) {
            node.left = true;
        }
        Answer::Left
    }

    pub(super) fn trim_log_alone(
        &mut self,
        caller: Caller,
        log: LogUuid,
        trims: &[LogTrim],
    ) -> Answer {
        match trims.iter().try_for_each(check_log_trim) {
            Ok(()) => Answer::LogTrimmed(self.trim_log(caller, log, trims, true)),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// W7: monotone, by the holder alone.
    pub(super) fn trim_log(
        &mut self,
        caller: Caller,
        log: LogUuid,
        trims: &[LogTrim],
        settled: bool,
    ) -> Vec<(NodeEpoch, Result<Position, Refusal>)> {
        let one = |trim: &LogTrim| {
            let debt = match self.debts.get_mut(&trim.epoch) {
                Some(debt) if debt.log == log && debt.started => debt,
                _ => return Err(Refusal::NotFound),
            };
            if debt.holder != caller.node {
                return Err(Refusal::HeldBy(debt.holder));
            }
            let to = if settled {
                trim.with_this
            } else {
                trim.settled
            };
            // Never past where the epoch ends: what lies there is the next epoch's.
            let end = debt.sealed_end.unwrap_or(Position::new(u64::MAX));
            debt.trim = debt.trim.max(to.min(end));
            debt.durable_end = debt.durable_end.max(trim.durable_end.min(end));
            Ok(debt.trim)
        };
        let epochs = trims.iter().map(|trim| trim.epoch);
        epochs
            .zip(trims.iter().map(one).collect::<Vec<_>>())
            .collect()
    }
}

pub(super) fn check_log_trim(trim: &LogTrim) -> Result<(), Refusal> {
    if trim.settled <= trim.with_this && trim.with_this <= trim.durable_end {
        Ok(())
    } else {
        Err(Refusal::Malformed(format!(
            "log trim of epoch {}: settled {}, with this {}, durable {}",
            trim.epoch, trim.settled, trim.with_this, trim.durable_end
        )))
    }
}

impl Debt {
    pub(super) fn view(&self, epoch: NodeEpoch) -> DebtView {
        DebtView {
            log: self.log,
            url: self.url.clone(),
            epoch,
            node: self.node,
            holder: self.holder,
            trim: self.trim,
            durable_end: self.durable_end,
            sealed_end: self.sealed_end,
            started: self.started,
        }
    }
}
