//! DeleteTopics (20): by name, and from version 6 on by id.
//!
//! When the answer says that a topic is gone, its name is free and its records are unreachable; what is left of them in
//! the bucket is deleted in the background.

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
        delete_topics_response::DeletableTopicResult,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{Abort, Reply, Request, create_topics::topic_name};
use crate::{
    coordinator::groups::Groups,
    node::Node,
    topics::{self, Topic, TopicError},
    wire::response::Response,
};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    name: Option<TopicName>,
    id: Uuid,
}

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let asked: DeleteTopicsRequest = request.decode()?;
    let version = request.head.version;
    let by_name = asked.topic_names.into_iter().map(|name| Wanted {
        name: Some(name),
        id: Uuid::nil(),
    });
    let by_either = asked.topics.into_iter().map(|topic| Wanted {
        name: topic.name,
        id: topic.topic_id,
    });
    let wanted: BTreeSet<Wanted> = by_name.chain(by_either).collect();
    let deleted = wanted.into_iter().map(|wanted| {
        let node = &node;
        async move {
            let result = delete(node, &wanted).await;
            answer(version, wanted, result)
        }
    });
    let responses = futures::future::join_all(deleted).await;
    let answer = DeleteTopicsResponse::default().with_responses(responses);
    Reply::now(Response::encode(request.head, &answer))
}

async fn delete(node: &Node, wanted: &Wanted) -> Result<Arc<Topic>, (ResponseError, String)> {
    let topic = match &wanted.name {
        Some(_) if !wanted.id.is_nil() => {
            let message = "both the name and the id of a topic are set".to_owned();
            return Err((ResponseError::InvalidRequest, message));
        }
        Some(name) => node.topics.get(name.as_str()).ok_or_else(|| {
            let message = format!("there is no topic {}", name.as_str());
            (ResponseError::UnknownTopicOrPartition, message)
        })?,
        None => node.topics.by_id(wanted.id).ok_or_else(|| {
            let message = format!("there is no topic of id {}", wanted.id);
            (ResponseError::UnknownTopicId, message)
        })?,
    };
    if topics::is_internal(&topic.name) {
        let message = format!("topic {} belongs to the broker itself", topic.name);
        return Err((ResponseError::InvalidTopicException, message));
    }
    match node.topics.delete(topic.clone()).await {
        Ok(()) => {
            forget_offsets(node, &topic.name).await;
            Ok(topic)
        }
        Err(error) => {
            let code = match &error {
                TopicError::Engine(error) => super::error_of(error),
                TopicError::Refused(refused) => refused.error,
                TopicError::Exists(_) | TopicError::Busy(_) | TopicError::Unknown(_) => {
                    ResponseError::UnknownTopicOrPartition
                }
            };
            Err((code, error.to_string()))
        }
    }
}

/// What groups have read of the topic goes with it. If it stays, as its coordinator is not loaded, it goes when it is old.
async fn forget_offsets(node: &Node, topic: &str) {
    let forgotten = (0..node.groups.partitions()).map(|partition| {
        let forget = |groups: &mut Groups, _, out: &mut _| groups.forget_topic(topic, out);
        node.groups.ask_at(partition, forget).answer()
    });
    for forgotten in futures::future::join_all(forgotten).await {
        if let Err(error) = forgotten {
            tracing::warn!(topic, %error, "offsets of a deleted topic are kept until they are old");
        }
    }
}

fn answer(
    version: i16,
    wanted: Wanted,
    result: Result<Arc<Topic>, (ResponseError, String)>,
) -> DeletableTopicResult {
    let mut answer = DeletableTopicResult::default().with_name(wanted.name);
    if version >= 6 {
        answer.topic_id = wanted.id;
    }
    match result {
        Ok(topic) => {
            answer.name = Some(topic_name(&topic.name));
            if version >= 6 {
                answer.topic_id = topic.id;
            }
        }
        Err((error, message)) => {
            answer.error_code = error.code();
            if version >= 5 {
                answer.error_message = Some(StrBytes::from_string(message));
            }
        }
    }
    answer
}
