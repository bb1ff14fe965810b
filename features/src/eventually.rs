//! Waiting for what comes true a moment later, in another service.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long tests wait for what another service does. It takes milliseconds; a busy machine may take seconds.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The time between two looks: an eighth of the time that was waited already, within these bounds. A test that
/// looked often for a minute would take the processor from what it waits for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Looks until there is something to see; `look` says what it saw instead.
///
/// # Panics
/// When the time is over, with what was seen last.
pub async fn eventually<T>(within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) => assert!(begun.elapsed() < within, "after {within:?} still: {instead}"),
        }
        sleep((begun.elapsed() / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
    }
}
