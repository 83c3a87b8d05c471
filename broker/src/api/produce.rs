//! Produce (0): appends, in the order of the connection, and answers when the records are durable.
//!
//! `begin` has queued every append when it returns, and waits for room in the log before, so a producer that is faster
//! than the log is slowed down by its own connection. acks 1 and -1 both wait for durability: there is one copy, and it is
//! either durable or not. A request that times out has not been taken back: its records may be in the log.
//! Batches that take long to check (a few bytes may expand to the limit of one batch) let other connections in between.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ProduceRequest, ProduceResponse, TopicName,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{
            BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
        },
    },
    protocol::StrBytes,
};
use segment_adapter::{AppendHandle, AppendOptions, Guard, LogError};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{Abort, Named, Reply, Request, create_topics::topic_name, find_named, let_others};
use crate::{
    node::Node,
    topics::{
        self, name,
        partition::{Leading, Partition},
    },
    wire::response::Response,
};

mod transactional;

/// First version whose records may be compressed with zstd.
const ZSTD: i16 = 7;
/// First version that names topics by id alone.
const IDS: i16 = 13;
/// First version with record errors and messages.
const MESSAGES: i16 = 8;
/// Where the magic byte and the low attribute byte stand in a batch.
const MAGIC_AT: usize = 16;
const ATTRIBUTES_AT: usize = 22;
const CODEC_MASK: u8 = 0b111;
const CODEC_ZSTD: u8 = 4;
const TRANSACTIONAL: u8 = 1 << 4;

/// An append under way, or why there is none.
type Begun = Result<Appending, Failure>;

/// What one topic got.
struct BegunTopic {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(i32, Begun)>,
}

struct Appending {
    handle: AppendHandle,
    partition: Arc<Partition>,
    leading: Leading,
}

/// Why nothing was appended, for the client.
#[derive(Debug)]
struct Failure {
    code: i16,
    message: Option<String>,
    records: Vec<(i32, String)>,
    log_start: i64,
}

pub(super) async fn begin(node: Arc<Node>, request: Request) -> Result<Reply, Abort> {
    let mut asked: ProduceRequest = request.decode()?;
    let version = request.head.version;
    find_names(&node, version, &mut asked);
    let deadline = Instant::now() + Duration::from_millis(asked.timeout_ms.max(0) as u64);
    let acks_known = matches!(asked.acks, -1..=1);
    let unauthorized = asked.transactional_id.is_none() && transactional::is_any(&asked);
    let mut verified = match unauthorized {
        true => transactional::Verified::new(),
        false => {
            let verified = transactional::verify(&node, version, &asked);
            let late = |_| transactional::refuse_all(&asked, ResponseError::RequestTimedOut);
            timeout_at(deadline, verified).await.unwrap_or_else(late)
        }
    };
    let mut turn = Instant::now();
    let mut begun = Vec::with_capacity(asked.topic_data.len());
    for topic in asked.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        let named = named(version, &topic);
        for data in topic.partition_data {
            let index = data.index;
            let result = if unauthorized {
                Err(Failure::of(
                    ResponseError::TransactionalIdAuthorizationFailed,
                ))
            } else if !acks_known {
                Err(Failure::of(ResponseError::InvalidRequiredAcks))
            } else if version >= IDS && topic.name.is_empty() {
                Err(Failure::of(ResponseError::UnknownTopicId))
            } else if topics::is_internal(topic.name.as_str()) {
                // Whoever asks: what is there is the state of a coordinator.
                Err(Failure::of(ResponseError::InvalidTopicException))
            } else {
                let name = topic.name.as_str();
                match verified.remove(&(name.to_owned(), index)).transpose() {
                    Ok(place) => append(&node, version, &named, data, place, deadline).await,
                    Err(failure) => Err(failure),
                }
            };
            partitions.push((index, result));
            let_others(&mut turn).await;
        }
        // A copy: the name would keep the frame in memory until the answer.
        begun.push(BegunTopic {
            name: topic_name(&topic.name),
            id: topic.topic_id,
            partitions,
        });
    }
    if asked.acks == 0 {
        return silent(&begun);
    }
    // What the frame held is in the log's memory now.
    drop(request.body);
    Reply::later(async move {
        let mut topics = Vec::with_capacity(begun.len());
        for topic in begun {
            topics.push(finish(version, topic, deadline).await);
        }
        let answer = ProduceResponse::default().with_responses(topics);
        Ok(Response::encode(request.head, &answer)?)
    })
}

/// A topic as the request names it.
fn named(version: i16, topic: &TopicProduceData) -> Named {
    match version {
        IDS.. => Named::Id(topic.topic_id),
        _ => Named::Name(topic.name.clone()),
    }
}

/// Names the topics of a request that has only their ids; none for those that are not known.
fn find_names(node: &Node, version: i16, asked: &mut ProduceRequest) {
    for topic in asked.topic_data.iter_mut().filter(|_| version >= IDS) {
        if let Some(found) = node.topics.by_id(topic.topic_id) {
            topic.name = topic_name(&found.name);
        }
    }
}

/// acks=0: no byte is sent, and an error can only be shown by closing the connection, as Kafka does.
fn silent(begun: &[BegunTopic]) -> Result<Reply, Abort> {
    for topic in begun {
        for (index, result) in &topic.partitions {
            if let Err(failure) = result {
                let (name, code) = (topic.name.as_str(), failure.code);
                return Err(Abort::SilentFailure(format!(
                    "{name}-{index}: error {code}"
                )));
            }
        }
    }
    Ok(Reply::Silent)
}

/// Where a batch goes, and what it is appended with.
struct Place {
    partition: Arc<Partition>,
    leading: Leading,
    guard: Guard,
}

/// Finds it for a batch that is not of a transaction.
async fn find(node: &Node, topic: &Named, index: i32, deadline: Instant) -> Result<Place, Failure> {
    let found = timeout_at(deadline, find_named(node, topic, index)).await;
    let found = found.unwrap_or(Err(ResponseError::RequestTimedOut.code()));
    let (partition, leading) = found.map_err(Failure::code)?;
    Ok(Place {
        partition,
        leading,
        guard: Guard::NONE,
    })
}

/// Appends what one partition got, waiting for room until `deadline`. A batch of a transaction goes to the log that its
/// guard is of, and to no other that may have been opened since.
async fn append(
    node: &Node,
    version: i16,
    topic: &Named,
    data: PartitionProduceData,
    place: Option<Place>,
    deadline: Instant,
) -> Begun {
    if let Named::Name(name) = topic
        && name::problem(name).is_some()
    {
        return Err(Failure::of(ResponseError::InvalidTopicException));
    }
    let place = match place {
        Some(place) => place,
        None => find(node, topic, data.index, deadline).await?,
    };
    let Place {
        partition,
        leading,
        guard,
    } = place;
    let records = check(version, data.records)?;
    let options = AppendOptions {
        guard,
        ..AppendOptions::default()
    };
    loop {
        let appended = leading
            .log
            .append_with(records.clone(), leading.epoch, &options);
        match appended {
            Ok(handle) if handle.info.first_offset < 0 => {
                return Err(Failure::invalid("no record batch"));
            }
            Ok(handle) => {
                return Ok(Appending {
                    handle,
                    partition,
                    leading,
                });
            }
            Err(LogError::Overloaded(_)) => {
                match timeout_at(deadline, leading.log.ready(records.len())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(fail(&partition, &leading, error)),
                    // Nothing was appended: the client may send it again.
                    Err(_) => return Err(Failure::of(ResponseError::RequestTimedOut)),
                }
            }
            Err(error) => return Err(fail(&partition, &leading, error)),
        }
    }
}

/// What can be said of records before the log looks at them.
fn check(version: i16, records: Option<Bytes>) -> Result<Bytes, Failure> {
    let records = records.unwrap_or_default();
    let Some(magic) = records.get(MAGIC_AT) else {
        return Err(Failure::invalid("no record batch"));
    };
    if *magic != 2 {
        return Err(Failure::invalid("a record batch of an old format"));
    }
    let codec = records.get(ATTRIBUTES_AT).map(|byte| byte & CODEC_MASK);
    if codec == Some(CODEC_ZSTD) && version < ZSTD {
        return Err(Failure::of(ResponseError::UnsupportedCompressionType));
    }
    Ok(records)
}

fn fail(partition: &Partition, leading: &Leading, error: LogError) -> Failure {
    partition.note(leading, &error);
    let records = error.record_errors().iter();
    Failure {
        code: error.code(),
        message: Some(error.to_string()),
        records: records
            .map(|record| (record.batch_index as i32, record.fault.to_string()))
            .collect(),
        log_start: leading.log.offsets().log_start,
    }
}

impl Failure {
    fn of(error: ResponseError) -> Self {
        Self::code(error.code())
    }

    fn code(code: i16) -> Self {
        Self {
            code,
            message: None,
            records: Vec::new(),
            log_start: -1,
        }
    }

    fn invalid(message: &str) -> Self {
        Self {
            message: Some(message.into()),
            ..Self::of(ResponseError::InvalidRecord)
        }
    }
}

/// Waits until what one topic got is durable, and answers for it.
async fn finish(version: i16, topic: BegunTopic, deadline: Instant) -> TopicProduceResponse {
    let mut answers = Vec::with_capacity(topic.partitions.len());
    for (index, begun) in topic.partitions {
        let done = match begun {
            Ok(appending) => durable(appending, deadline).await,
            Err(failure) => Err(failure),
        };
        answers.push(answer(version, index, done));
    }
    let answer = TopicProduceResponse::default().with_partition_responses(answers);
    match version {
        IDS.. => answer.with_topic_id(topic.id),
        _ => answer.with_name(topic.name),
    }
}

struct Done {
    base_offset: i64,
    log_append_time: i64,
    log_start: i64,
}

async fn durable(appending: Appending, deadline: Instant) -> Result<Done, Failure> {
    let Appending {
        handle,
        partition,
        leading,
    } = appending;
    let info = handle.info.clone();
    match timeout_at(deadline, handle.durable()).await {
        Ok(Ok(())) => Ok(Done {
            base_offset: info.first_offset,
            log_append_time: info.log_append_time,
            log_start: info.log_start,
        }),
        Ok(Err(error)) => Err(fail(&partition, &leading, error)),
        Err(_) => Err(Failure::of(ResponseError::RequestTimedOut)),
    }
}

fn answer(version: i16, index: i32, done: Result<Done, Failure>) -> PartitionProduceResponse {
    let mut answer = PartitionProduceResponse::default()
        .with_index(index)
        .with_log_append_time_ms(-1);
    match done {
        Ok(done) => {
            answer.base_offset = done.base_offset;
            answer.log_append_time_ms = done.log_append_time;
            if version >= 5 {
                answer.log_start_offset = done.log_start;
            }
        }
        Err(failure) => {
            answer.error_code = failure.code;
            answer.base_offset = -1;
            if version >= 5 {
                answer.log_start_offset = failure.log_start;
            }
            if version >= MESSAGES {
                answer.error_message = failure.message.map(StrBytes::from_string);
                let records = failure.records.into_iter();
                answer.record_errors = records
                    .map(|(batch_index, message)| {
                        BatchIndexAndErrorMessage::default()
                            .with_batch_index(batch_index)
                            .with_batch_index_error_message(Some(StrBytes::from_string(message)))
                    })
                    .collect();
            }
        }
    }
    answer
}
