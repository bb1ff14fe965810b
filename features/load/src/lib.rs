//! Customers by the hundred: a load generator for a running mart, which speaks to it over HTTP as its users do.
//!
//! A run prepares what it needs (products with stock, registered buyers), then plays [`Scenario`]s one after the
//! other. Each visitor has a keep-alive connection of its own. With [`Pace::Closed`] a visitor begins anew as soon
//! as it has its answer: that finds the highest rate. With [`Pace::Open`] visits begin at a given rate whatever
//! the answers do, and latencies count from the moment at which a visit was due, so that a mart that stalls is
//! charged for everybody who had to wait (Gil Tene's "coordinated omission").
//!
//! What a scenario promises is checked afterwards: [`Sale`] says from the inventory whether too much was sold.

#![expect(clippy::float_arithmetic, reason = "rates and milliseconds are no money")]

pub mod connection;
pub mod error;
pub mod figures;
pub mod pace;
pub mod run;
pub mod scenarios;
pub mod stage;
pub mod tally;

pub use connection::{Connection, Server};
pub use error::{LoadError, Result};
pub use figures::{Figures, Part, table};
pub use pace::{Pace, Timing};
pub use run::{Level, Plan, run};
pub use scenarios::{Sale, Scenario};
pub use stage::{Credentials, Stage};
