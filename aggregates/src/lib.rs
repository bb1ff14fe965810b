//! The domain of the mart: aggregates, what happens to them, and the processes that join them.
//!
//! Everything here is pure. There is no I/O, no clock, no randomness, no SQL, HTTP or Kafka: time and new ids
//! come in with the commands, and a test reads the sources to keep it so. Contexts do not import each other;
//! only process managers do, because joining contexts is what they are for.

pub mod identifiers;
pub mod lines;
pub mod money;
pub mod personal;
pub mod process;
pub mod records;
pub mod text;

pub mod carts;
pub mod catalog;
pub mod inventory;
pub mod notifications;
pub mod orders;
pub mod payments;
pub mod users;
