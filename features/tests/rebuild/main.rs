//! Rebuilding read models of a long past while the shop is open: bounded in memory, told with rate and time left,
//! harmless when it is killed, and true to the events; and programs of two versions on the same data.
//!
//! `EVENTS` says how long the past is: 80,000 events unless it is given, so that a debug build is done within a
//! minute. `EVENTS=1000000 cargo test --release -p features --test rebuild -- --nocapture` is the real thing.

mod long_past;
mod versions;

use features::TestMart;
use features::history;
use features::mart::Setup;
use tokio::sync::{Semaphore, SemaphorePermit};

/// One mart at a time, so that durations mean something.
static MARTS: Semaphore = Semaphore::const_new(1);

/// Waits until another mart may run.
async fn room() -> SemaphorePermit<'static> {
    MARTS.acquire().await.expect("nobody closes it")
}

/// A mart with a past of so many stock items, all but its read model of stock worked off.
async fn with_past(items: i64) -> TestMart {
    let mut mart = Setup::new().await.start().await;
    mart.stop().await;
    history::write_past(mart.databases(), items).await;
    mart.start().await;
    mart
}
