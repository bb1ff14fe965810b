//! What benchmarks have in common: how a run is asked for, rows with their rounds, baselines and targets, and the
//! one table of them all.
//!
//! A benchmark measures its rows in several rounds, each beside its baseline, and writes them to
//! `bench/rows/<name>.json` in cargo's target folder; the program `figures` makes one table and one file of all
//! that is there.

#![expect(clippy::float_arithmetic, reason = "rates and ratios are no money")]

pub mod invocation;
pub mod results;
pub mod row;

pub use invocation::{Invocation, Options};
pub use results::{Results, folder, table};
pub use row::{Row, median};

/// The failure of a run: whatever it is, no figures come out.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
