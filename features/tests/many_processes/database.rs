//! The database server crashes under load and comes back: requests are refused at once meanwhile, and no process of
//! the mart has to be started anew.

use std::time::{Duration, Instant};

use embedded::testing::TemporaryPostgres;
use features::crowd::{Crowd, adds_up};
use features::eventually::eventually;
use features::mart::Setup;
use features::shop::{customer, order_of, product};
use features::{Client, PATIENCE};

use crate::{SETTLED_WITHIN, in_parts, room, succeeds};

const PIECES: u32 = 10_000;
const BUYERS: usize = 6;
const CRASHES: usize = 2;
const ORDERS_BETWEEN: usize = 20;
/// How often each request is tried while the database is down.
const TRIES: usize = 10;
/// The longest that the refusal of a request may take that comes while the database is down.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// The longest that any request may take: one that was under way when the database went.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How long the mart may take from the start of the server until it sells again.
const RECOVERED_WITHIN: Duration = Duration::from_secs(15);

/// Reads and writes until each was refused some times, as it must be, and quickly.
async fn is_refused(buyer: &Client, product: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for _try in 0..TRIES {
        let write = buyer.post("/v1/orders").json(&order_of(product, 1));
        for call in [write, buyer.get("/v1/orders"), buyer.get(&format!("/v1/products/{product}"))] {
            let begun = Instant::now();
            let reply = call.await;
            slowest = slowest.max(begun.elapsed());
            assert!(reply.header("retry-after").is_some(), "{reply}");
            reply.refuses(503, "service_unavailable");
        }
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_database_is_told_at_once_and_survived_without_a_restart() {
    let _room = room().await;
    let mut server = TemporaryPostgres::start().await.expect("a server of its own");
    let setup = Setup::embedded().with("MART_DATABASE_URL", &server.server_url());
    let (mut mart, _broker) = in_parts(setup).await;
    let mut running = [mart.role(&["work", "all"]).await, mart.role(&["project", "all"]).await];
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", PIECES).await);

    let crowd = Crowd::of(std::iter::repeat_n(ann.client.clone(), BUYERS), &product);
    for _crash in 0..CRASHES {
        crowd.goes_on(ORDERS_BETWEEN, PATIENCE).await;
        server.crash().await.expect("it crashes");
        let slowest = is_refused(&ann, &product).await;
        assert!(slowest < REFUSED_WITHIN, "a refusal took {slowest:?}");
        let ready = ann.get("/readyz").await;
        ready.refuses(503, "service_unavailable");
        server.start_again().await.expect("it starts");
        let since = Instant::now();
        crowd.goes_on(1, RECOVERED_WITHIN).await;
        println!("the slowest refusal took {slowest:?}; the shop sold again after {:?}", since.elapsed());
        eventually(RECOVERED_WITHIN, async || {
            let ready = ann.get("/readyz").await;
            if ready.status == 200 { Ok(()) } else { Err(ready.to_string()) }
        })
        .await;
    }
    crowd.goes_on(ORDERS_BETWEEN, PATIENCE).await;
    let told = crowd.stop().await;
    println!("{} orders placed, {} refused", told.placed.len(), told.refused.len());
    assert!(told.unanswered.is_empty(), "requests without an answer: {:?}", told.unanswered);
    assert!(told.slowest < ANSWERED_WITHIN, "a request took {:?}", told.slowest);
    if let Some(other) = told.refused.iter().find(|reply| reply.status != 503) {
        panic!("refused otherwise than for the database: {other}");
    }
    adds_up(&mart.admin().await, &ann, &product, PIECES, &told, SETTLED_WITHIN).await;
    succeeds(&mart, &["verify"]).await;
    for process in &mut running {
        assert!(process.status().is_none(), "a process did not outlive the crash");
        assert!(process.stop().await.success(), "a process stopped badly");
    }
    mart.stop().await;
    server.stop().await;
}
