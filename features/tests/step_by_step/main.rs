//! Step by step: between any two effects of the mart a process is ended, fails or stalls, one place and one of
//! the three at a time; the customer asks again under the same `Idempotency-Key`, and the end is always the same.

use std::panic::resume_unwind;
use std::time::Instant;

use tokio::task::{JoinSet, LocalSet};

mod journey;
mod lane;
mod places;
mod rebuilding;

use lane::Lane;
use places::{ABORT, FAIL, STALL, places};

/// What is tried at every place, and on how many marts side by side: most of the time is spent waiting, for a
/// stall to end and for the leases of the dead to run out.
const TRIED: [(&str, usize); 3] = [(ABORT, 2), (FAIL, 1), (STALL, 2)];

/// A share of the places, on one mart.
async fn share(what: &str, first: usize, marts: usize) {
    let begun = Instant::now();
    let mut lane = Lane::start().await;
    for place in places().into_iter().skip(first).step_by(marts) {
        journey::with(&mut lane, &place, what).await;
    }
    lane.end().await;
    println!("{what}, share {} of {marts}: {:?}", first + 1, begun.elapsed());
}

#[tokio::test]
async fn a_process_may_die_fail_or_stall_at_each_step_and_nothing_is_lost_or_done_twice() {
    let all = LocalSet::new();
    all.run_until(async {
        let mut lanes = JoinSet::new();
        for (what, marts) in TRIED {
            for first in 0..marts {
                lanes.spawn_local(share(what, first, marts));
            }
        }
        while let Some(ended) = lanes.join_next().await {
            // The first that fails ends the others with it.
            if let Err(error) = ended {
                resume_unwind(error.into_panic());
            }
        }
    })
    .await;
}
