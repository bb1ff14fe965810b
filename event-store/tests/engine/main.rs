//! The engine on a real PostgreSQL: append, execute, subscriptions, relay, rebuild.

mod account;
mod appending;
mod executing;
mod migrating;
mod personal_data;
