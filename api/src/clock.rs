//! What time it is for this process. Sessions, tokens and cards are judged by it; events and leases by the clock of
//! the database.

use chrono::{DateTime, Utc};

/// The time. Where failpoints are built in, `MART_CLOCK_OFFSET` makes the clock wrong by so many seconds, as that of
/// a machine may be.
pub fn now() -> DateTime<Utc> {
    Utc::now() + offset()
}

#[cfg(feature = "failpoints")]
fn offset() -> chrono::TimeDelta {
    static OFFSET: std::sync::OnceLock<chrono::TimeDelta> = std::sync::OnceLock::new();
    *OFFSET.get_or_init(|| {
        let seconds = std::env::var("MART_CLOCK_OFFSET").ok().and_then(|seconds| seconds.parse().ok());
        chrono::TimeDelta::seconds(seconds.unwrap_or(0))
    })
}

#[cfg(not(feature = "failpoints"))]
fn offset() -> chrono::TimeDelta {
    chrono::TimeDelta::zero()
}
