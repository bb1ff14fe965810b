//! The routes of all services: one module each, with a draft of each body, a check that makes it a command,
//! and handlers.

pub(crate) mod executed;
pub mod users;
