//! Step by step: between any two effects of the mart a process is ended, fails or stalls, one place and one of
//! the three at a time; the customer asks again under the same `Idempotency-Key`, and the end is always the same.

mod journey;
mod lane;
mod places;
mod rebuilding;

use lane::Lane;
use places::{ABORT, FAIL, STALL, places};

/// Every place, with what happens there, on one mart. They are shared out over several marts that run side by
/// side, because most of the time is spent waiting: for a stall to end, for a lease of the dead to run out.
async fn each_place(what: &str, share: usize, of: usize) {
    let mut lane = Lane::start().await;
    for place in places().into_iter().skip(share).step_by(of) {
        journey::with(&mut lane, &place, what).await;
    }
    lane.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_may_die_at_each_step_first_half() {
    each_place(ABORT, 0, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_may_die_at_each_step_second_half() {
    each_place(ABORT, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_may_fail() {
    each_place(FAIL, 0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_may_stall() {
    each_place(STALL, 0, 1).await;
}
