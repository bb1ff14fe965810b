//! The engine on a real PostgreSQL: append, execute, subscriptions, relay, rebuild.

mod account;
mod appending;
mod bad_brokers;
mod being_alone;
mod connecting;
mod cqrs_es;
mod executing;
mod failing;
mod following;
mod forgetting;
mod handing;
mod leasing;
mod looking_up;
mod migrating;
mod owning;
mod personal_data;
mod preparing_ahead;
mod purging;
mod racing;
mod timing;
mod turns;
