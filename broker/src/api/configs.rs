//! What the requests about settings have in common: whose settings they name, and a change of them.
//!
//! A change is in the metadata before it is answered, and holds at once.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::error::ResponseError;

use super::refused;
use crate::{
    node::Node,
    settings::{
        self, Alteration, Overrides, broker, group,
        store::{GROUPS_MAX, Place},
    },
    topics::{
        self, Topics,
        change::{Change, Refused},
        config::TopicConfig,
        name,
    },
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// Whose settings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Resource {
    Topic(String),
    AllBrokers,
    /// A node of this broker.
    Broker(i32),
    Group(String),
    /// There are no subscriptions to metrics.
    ClientMetrics(String),
}

/// What they shall be.
#[derive(Debug)]
pub(super) enum Wanted {
    /// These and no others.
    All(Overrides),
    /// As they are, but for these.
    Changed(Vec<Alteration>),
}

/// The kinds of resources that have a list of names, as ListConfigResources tells them.
pub(super) fn names(node: &Node, kind: i8) -> Option<Vec<String>> {
    match kind {
        TOPIC => Some(
            node.topics
                .all()
                .iter()
                .map(|topic| topic.name.clone())
                .collect(),
        ),
        BROKER => Some(node.ids().map(|id| id.to_string()).collect()),
        CLIENT_METRICS => Some(Vec::new()),
        GROUP => Some(node.topics.settings.groups()),
        _ => None,
    }
}

/// Every kind that [`names`] knows.
pub(super) const KINDS: [i8; 4] = [TOPIC, BROKER, CLIENT_METRICS, GROUP];

impl Resource {
    pub(super) fn find(node: &Node, kind: i8, name: &str) -> Result<Self, Refused> {
        let invalid = |message: String| Refused::new(ResponseError::InvalidRequest, message);
        match kind {
            TOPIC => {
                if let Some(problem) = name::problem(name) {
                    return Err(Refused::new(ResponseError::InvalidTopicException, problem));
                }
                if node.topics.get(name).is_none() {
                    return Err(unknown_topic(name));
                }
                Ok(Self::Topic(name.to_owned()))
            }
            BROKER if name.is_empty() => Ok(Self::AllBrokers),
            BROKER => {
                let id: i32 = name
                    .parse()
                    .map_err(|_| invalid(format!("{name:?} is no number of a broker")))?;
                if !node.ids().contains(&id) {
                    return Err(invalid(format!("there is no broker {id}")));
                }
                Ok(Self::Broker(id))
            }
            GROUP if name.is_empty() => Err(invalid("a group has a name".into())),
            GROUP => Ok(Self::Group(name.to_owned())),
            CLIENT_METRICS => Ok(Self::ClientMetrics(name.to_owned())),
            kind => Err(invalid(format!(
                "resources of type {kind} have no settings"
            ))),
        }
    }
}

fn unknown_topic(name: &str) -> Refused {
    let message = format!("there is no topic {name}");
    Refused::new(ResponseError::UnknownTopicOrPartition, message)
}

fn invalid_config(message: String) -> Refused {
    Refused::new(ResponseError::InvalidConfig, message)
}

/// Makes the changes, of each resource by itself; with `dry` says what would come of them. The answers are in the order of
/// the requests.
pub(super) async fn alter_all(
    node: &Arc<Node>,
    all: Vec<(i8, String, Result<Wanted, Refused>)>,
    dry: bool,
) -> Vec<Result<(), Refused>> {
    let mut times: BTreeMap<(i8, String), usize> = BTreeMap::new();
    for (kind, name, _) in &all {
        *times.entry((*kind, name.clone())).or_default() += 1;
    }
    let altered = all.into_iter().map(|(kind, name, wanted)| {
        let once = times.get(&(kind, name.clone())) == Some(&1);
        async move {
            if !once {
                let message = "the request has this resource more than once";
                return Err(Refused::new(ResponseError::InvalidRequest, message));
            }
            let resource = Resource::find(node, kind, &name)?;
            alter(node, resource, wanted?, dry).await
        }
    });
    futures::future::join_all(altered).await
}

async fn alter(
    node: &Arc<Node>,
    resource: Resource,
    wanted: Wanted,
    dry: bool,
) -> Result<(), Refused> {
    let topics = node.topics.clone();
    let place = match resource {
        Resource::Topic(name) => return alter_topic(&topics, &name, wanted, dry).await,
        Resource::AllBrokers => Place::AllBrokers,
        Resource::Broker(_) => topics.settings.this_broker(),
        Resource::Group(name) => Place::Group(name),
        Resource::ClientMetrics(_) => {
            let message = "there are no subscriptions to metrics";
            return Err(Refused::new(ResponseError::InvalidRequest, message));
        }
    };
    // To its end, even if the client goes away.
    let altering = tokio::spawn(async move { alter_place(&topics, place, wanted, dry).await });
    altering.await.unwrap_or_else(|error| {
        let message = format!("the change ended: {error}");
        Err(Refused::new(ResponseError::UnknownServerError, message))
    })
}

async fn alter_topic(
    topics: &Arc<Topics>,
    name: &str,
    wanted: Wanted,
    dry: bool,
) -> Result<(), Refused> {
    let _changing = topics.settings.changing.read().await;
    if topics::is_internal(name) {
        let message = format!("topic {name} is kept as the broker itself needs it");
        return Err(Refused::new(ResponseError::InvalidTopicException, message));
    }
    let defaults = topics.defaults();
    let changed = topics.change(name, dry, move |mut description| {
        let config = match wanted {
            Wanted::All(overrides) => TopicConfig::of(overrides),
            Wanted::Changed(alterations) => description.config.altered(alterations, &defaults),
        };
        description.config = config.map_err(invalid_config)?;
        let log = description.config.log_over(&defaults);
        log.validate()
            .map_err(|error| invalid_config(error.to_string()))?;
        Ok(Change {
            partitions: description.groups.len(),
            description,
        })
    });
    changed.await.map_err(refused)
}

/// What was changed at a place outside topics.
async fn alter_place(
    topics: &Topics,
    place: Place,
    wanted: Wanted,
    dry: bool,
) -> Result<(), Refused> {
    let store = &topics.settings;
    let _changing = store.changing.write().await;
    let of_group = matches!(place, Place::Group(_));
    let before = store.get(&place);
    let known = !before.is_empty();
    let after = match wanted {
        Wanted::All(overrides) => overrides,
        Wanted::Changed(alterations) => {
            let key_of = |name: &str| match of_group {
                true => group::find(name).map(|key| (&key.kind, key.default.to_owned())),
                false => broker::find(name),
            };
            settings::alter(before, alterations, key_of).map_err(invalid_config)?
        }
    };
    let after = match of_group {
        true => group::check(after).map_err(invalid_config)?,
        false => broker::check(after)
            .map_err(|message| Refused::new(ResponseError::InvalidRequest, message))?,
    };
    if of_group && !known && store.groups().len() >= GROUPS_MAX {
        let message = format!("{GROUPS_MAX} groups have settings of their own");
        return Err(Refused::new(ResponseError::InvalidRequest, message));
    }
    let defaults = (!of_group).then(|| broker::topic_defaults(store, &place, &after));
    if let Some(defaults) = &defaults {
        check_defaults(topics, defaults)?;
    }
    if dry {
        return Ok(());
    }
    let put = store.put(place, after).await;
    put.map_err(|error| Refused::new(super::error_of(&error), error.to_string()))?;
    if let Some(defaults) = defaults {
        topics.set_defaults(defaults);
    }
    Ok(())
}

/// Whether every topic can have these defaults.
fn check_defaults(topics: &Topics, defaults: &Overrides) -> Result<(), Refused> {
    let alone = TopicConfig::default().log_over(defaults).validate();
    alone.map_err(|error| invalid_config(error.to_string()))?;
    for topic in topics.all() {
        let log = topic.config.log_over(defaults);
        log.validate()
            .map_err(|error| invalid_config(format!("topic {}: {error}", topic.name)))?;
    }
    Ok(())
}
