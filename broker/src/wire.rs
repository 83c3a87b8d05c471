//! Kafka's protocol on the wire: frames, headers, the table of what is served, and the guard before the codec.
//!
//! A request reaches the codec (`kafka-protocol`) only after [`guard::check`] has walked it: the codec allocates whatever a
//! length says. Nothing here knows topics or logs.

pub(crate) mod apis;
pub(crate) mod fetch_response;
pub(crate) mod frame;
pub(crate) mod guard;
pub(crate) mod header;
pub(crate) mod response;
pub(crate) mod schema;
