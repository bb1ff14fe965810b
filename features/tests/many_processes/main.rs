//! Several processes of each part, and what befalls them: they freeze, die, stop and come back while the shop is
//! full. Whoever is left takes over; nothing is lost, nothing happens twice, and no request hangs.

mod database;
mod hot_product;
mod paying;
mod projectors;
mod relays;
mod stopping;

use std::time::Duration;

use embedded::testing::{self, TestBroker};
use features::TestMart;
use features::mart::Setup;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long it may take until another process does the work of one that froze or died: 8 s until leases have ended
/// and are shared out, and as much for a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(16);
/// How long everything may take to come to rest after the last trouble.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// One mart in many processes at a time: they share two cores and the connections of one server.
static MARTS: Semaphore = Semaphore::const_new(1);

/// Waits until another mart may run.
async fn room() -> SemaphorePermit<'static> {
    MARTS.acquire().await.expect("nobody closes it")
}

/// A mart with its first data, of which only the process that serves runs yet, and its broker.
async fn in_parts(setup: Setup) -> (TestMart, TestBroker) {
    let broker = testing::broker();
    let mart = setup.with_broker(&broker).await.command(&["serve", "all"]).start().await;
    succeeds(&mart, &["seed"]).await;
    (mart, broker)
}

/// Runs a command of the mart, which must succeed.
async fn succeeds(mart: &TestMart, arguments: &[&str]) {
    let output = mart.run(arguments).await;
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "`mart {}`: {}", arguments.join(" "), String::from_utf8_lossy(&told));
}
