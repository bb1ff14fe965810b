//! What goes wrong in a shop's life: nothing to start on, power failures, a broker with strange records or none;
//! and that the mart stops cleanly and goes on where it was.

mod failures;
mod parked;
mod parts;
mod rebuilding;
mod starting;

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many marts run at the same time: each has dozens of connections to the one database server.
static MARTS: Semaphore = Semaphore::const_new(2);

/// Waits until another mart may run.
async fn room() -> SemaphorePermit<'static> {
    MARTS.acquire().await.expect("nobody closes it")
}
