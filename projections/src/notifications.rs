//! The read models of the notifications service.

pub mod message_log;

pub use message_log::MessageLog;
