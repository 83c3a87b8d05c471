//! The broker from outside: raw sockets, librdkafka, and the program killed and started again.

mod clients;
mod fetch;
mod kill;
mod program;
mod protocol;
mod support;
mod topics;
