//! ListPartitionReassignments (46): none is ever under way (F57).

use kafka_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::{Abort, Reply, Request};
use crate::wire::response::Response;

pub(super) fn begin(request: Request) -> Result<Reply, Abort> {
    let _: ListPartitionReassignmentsRequest = request.decode()?;
    let answer = ListPartitionReassignmentsResponse::default().with_error_message(None);
    Reply::now(Response::encode(request.head, &answer))
}
