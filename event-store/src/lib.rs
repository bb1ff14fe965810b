//! The log of the mart and everything that reads it: append and load, the command bus, the relay to
//! Kafka, subscriptions with their checkpoints, timers and parked streams.
//!
//! Everything rests on one property: within the log of a service, position order is commit order, and
//! positions are dense. A reader that has seen position *n* has seen everything below *n*.
//!
//! This crate knows no product and no order: it speaks the traits of cqrs-es and takes what it must know
//! of an aggregate (its claims, its personal fields) as plain functions in [`execute::Behaviour`]. It
//! knows no HTTP either.

pub mod append;
pub mod broker;
pub mod checkpoints;
pub mod commands;
pub mod committer;
pub mod connections;
pub mod cqrs;
pub mod event;
pub mod execute;
#[cfg(feature = "failpoints")]
pub mod failpoints;
pub mod feed;
pub mod lease;
pub mod log;
pub mod migrations;
pub mod panics;
pub mod parked;
pub mod personal;
pub mod read_your_writes;
pub mod relay;
pub mod signal;
pub mod snapshots;
pub mod subscription;
pub mod tail;
pub mod timers;

mod announcer;
mod beside;
mod error;
mod lookups;
mod memory;
mod points;
mod read_once;

pub use error::{Error, Result};
pub use event::{Metadata, NewEvent, Recorded};
pub use execute::{Behaviour, CommandBus, Committed, Context, ExecuteError, Target};
pub use log::Log;
pub use read_once::ReadOnce;

/// How many partitions a topic has, and how many checkpoints a subscription keeps for each source.
/// Fixed for ever when a mart is created: an aggregate never changes its partition.
pub const PARTITIONS: i16 = 12;
