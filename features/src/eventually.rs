//! Waiting for what comes true a moment later, in another service.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long tests wait for what another service does. It takes milliseconds; a busy machine may take seconds.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something to see; `look` says what it saw instead.
///
/// # Panics
/// When the time is over, with what was seen last.
pub async fn eventually<T>(within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match look().await {
            Ok(seen) => return seen,
            Err(instead) => assert!(Instant::now() < deadline, "after {within:?} still: {instead}"),
        }
    }
}
