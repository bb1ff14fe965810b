//! What `mart up` and the tests start themselves: a private PostgreSQL and an in-process Kafka broker.
//!
//! - [`EmbeddedPostgres`] finds server binaries (or fetches them once), makes a cluster in the data folder,
//!   starts the server as a user that PostgreSQL accepts, and stops it again.
//! - [`EmbeddedBroker`] is librdkafka's broker, which speaks the real protocol on a local port.
//! - [`testing`] gives every test a fresh database on one server per test process, and a broker: the embedded one
//!   or a real Apache Kafka.
//!
//! This crate knows no table, no topic and no event: it starts servers and says where they listen.

pub mod broker;
pub mod postgres;
pub mod testing;

pub use broker::{BrokerError, EmbeddedBroker};
pub use postgres::{EmbeddedPostgres, PostgresError, PostgresOptions};
