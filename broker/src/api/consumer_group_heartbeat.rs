//! ConsumerGroupHeartbeat (68): all that a member of a consumer group says, and hears of its assignment (KIP-848).

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_response::{Assignment, TopicPartitions},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    Abort, Reply, Request, Session,
    groups::{fresh, owned, text},
};
use crate::{
    coordinator::groups::consumer::{Beat, Catalog, ConsumerHeartbeat, Partitions, Refusal},
    node::Node,
    settings::{group, store::Place},
    topics::Topics,
    wire::response::Response,
};

/// First version with regular expressions.
const REGEXES: i16 = 1;

impl Catalog for Topics {
    fn version(&self) -> u64 {
        self.version()
    }

    fn find(&self, name: &str) -> Option<(Uuid, i32)> {
        let topic = self.get(name)?;
        let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        Some((topic.id, partitions))
    }

    fn select(&self, passes: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
        self.select(passes)
    }
}

pub(super) fn begin(node: Arc<Node>, session: &Session, request: Request) -> Result<Reply, Abort> {
    let asked: ConsumerGroupHeartbeatRequest = request.decode()?;
    let head = request.head;
    let topics = asked.subscribed_topic_names.as_ref();
    let beat = ConsumerHeartbeat {
        version: head.version,
        group: asked.group_id.to_string(),
        member_id: asked.member_id.to_string(),
        fresh_id: fresh().hyphenated().to_string(),
        epoch: asked.member_epoch,
        instance: owned(asked.instance_id.as_ref()),
        rack: owned(asked.rack_id.as_ref()),
        client_id: request.client_id.unwrap_or_default(),
        client_host: format!("/{}", session.peer.ip().to_canonical()),
        rebalance_ms: asked.rebalance_timeout_ms,
        topics: topics.map(|topics| topics.iter().map(|name| name.to_string()).collect()),
        regex: owned(asked.subscribed_topic_regex.as_ref()).filter(|_| head.version >= REGEXES),
        assignor: owned(asked.server_assignor.as_ref()),
        owned: asked.topic_partitions.as_ref().map(|owned| {
            let mut partitions = Partitions::new();
            for topic in owned.iter().filter(|topic| !topic.partitions.is_empty()) {
                let of_topic = partitions.entry(topic.topic_id).or_default();
                of_topic.extend(&topic.partitions);
            }
            partitions
        }),
        ..ConsumerHeartbeat::default()
    };
    let place = Place::Group(beat.group.clone());
    let settings = &node.topics.settings;
    let own = |name| settings.value(&place, name)?.parse::<i32>().ok();
    let beat = ConsumerHeartbeat {
        own_session_ms: own(group::SESSION).and_then(|ms| u64::try_from(ms).ok()),
        own_heartbeat_ms: own(group::HEARTBEAT),
        ..beat
    };
    let pending = node.groups.ask(&beat.group, |groups, now, out| {
        groups.consumer_heartbeat(&beat, &*node.topics, now, out)
    });
    Reply::later(async move {
        let answer = match pending.answer().await {
            Ok(Ok(beat)) => answer(beat),
            Ok(Err(refusal)) => refused(refusal),
            Err(error) => ConsumerGroupHeartbeatResponse::default().with_error_code(error.code()),
        };
        Ok(Response::encode(head, &answer)?)
    })
}

fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(refusal.error.code())
        .with_error_message(Some(text(refusal.message)))
}

fn answer(beat: Beat) -> ConsumerGroupHeartbeatResponse {
    let assignment = beat.assignment.map(|partitions| {
        let topics = partitions.into_iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic_id(topic)
                .with_partitions(partitions.into_iter().collect())
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(StrBytes::from_string(beat.member_id)))
        .with_member_epoch(beat.epoch)
        .with_heartbeat_interval_ms(beat.heartbeat_ms)
        .with_assignment(assignment)
}
