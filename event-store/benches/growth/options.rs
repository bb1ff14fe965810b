//! How a run is done.

use std::time::Duration;

/// Events of the large log.
const EVENTS: usize = 5_000_000;
/// The same in a quick run.
const QUICK_EVENTS: usize = 50_000;

/// How a run is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// How many events the large log has at first.
    pub(crate) events: usize,
    /// How long a cell is measured.
    pub(crate) measured: Duration,
    /// How long a cell runs before it is measured.
    pub(crate) warm_up: Duration,
}

impl Options {
    pub(crate) fn of(invocation: &figures::Options) -> Self {
        let (events, measured_ms) = if invocation.quick { (QUICK_EVENTS, 300) } else { (EVENTS, 2_000) };
        let measured = Duration::from_millis(measured_ms);
        Self { rounds: invocation.rounds, events, measured, warm_up: measured / 4 }
    }
}
