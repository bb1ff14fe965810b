//! Projectors that join and leave while the shop is full: the read models stay right, and never stand still.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use features::crowd::{Crowd, adds_up};
use features::eventually::eventually;
use features::failpoints;
use features::mart::Setup;
use features::program::Program;
use features::shop::{customer, order_of, product, unique};
use features::{Client, PATIENCE, TestMart};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{SETTLED_WITHIN, TAKEN_OVER_WITHIN, in_parts, room, succeeds};

const PIECES: u32 = 10_000;
const BUYERS: usize = 4;
/// How many orders come between two events.
const ORDERS_BETWEEN: usize = 10;
/// The longest that a read may take, on a busy machine, whoever keeps the read models.
const READ_WITHIN: Duration = Duration::from_secs(5);

async fn projector(mart: &TestMart) -> Program {
    mart.role(&["project", "all"]).await
}

/// A projector in which failpoints can be armed, and where.
async fn projector_with_failpoints(mart: &TestMart) -> (Program, PathBuf) {
    let socket = mart.setup().data_dir().join("projector.sock");
    let told = socket.display().to_string();
    let program = mart.role_with(&["project", "all"], &[(failpoints::SOCKET_VARIABLE, &told)]).await;
    (program, socket)
}

/// Freezes a projector at the worst moment: when it has written rows of products and not yet committed them. The rows of
/// orders are written by one statement. Gives the products that were listed for that, until one was of its partitions.
async fn freeze_in_a_transaction(mart: &TestMart, projector: &Program, points: &Path) -> Vec<String> {
    let admin = mart.admin().await;
    let mut listed = Vec::new();
    failpoints::arm(points, "subscription-before-commit=sleep(3000)").await;
    let unfinished = "select count(*) from pg_locks l \
                      join pg_stat_activity a using (pid) join pg_class c on c.oid = l.relation \
                      where c.relname = 'product_listing' and l.mode = 'RowExclusiveLock' \
                        and a.state = 'idle in transaction' \
                        and a.state_change < clock_timestamp() - interval '0.5 s' \
                        and l.database = (select oid from pg_database where datname = current_database())";
    let until = Instant::now() + PATIENCE;
    while mart.databases().number("catalog", unfinished).await == 0 {
        assert!(Instant::now() < until, "no row is written");
        let body = json!({"name": unique("Product"), "price": "2.00"});
        let reply = admin.post("/v1/products").header("prefer", "respond-async").json(&body).await;
        assert!(matches!(reply.status, 201 | 202), "{reply}");
        listed.push(reply.text_of("id"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    projector.signal(Signal::SIGSTOP);
    listed
}

/// Waits until products are shown, also the one whose row a frozen projector had begun to write.
async fn all_are_listed(reader: &Client, products: &[String]) {
    eventually(TAKEN_OVER_WITHIN, async || {
        for product in products {
            let reply = reader.get(&format!("/v1/products/{product}")).await;
            if reply.status != 200 {
                return Err(reply.to_string());
            }
        }
        Ok(())
    })
    .await;
}

/// Waits until the orders are kept by so many processes.
async fn kept_by(mart: &TestMart, processes: i64) {
    let owners = "select count(distinct owner) from event_store.leases \
                  where name like 'order_details@%' and name not like '%/member/%' \
                    and expires_at > clock_timestamp()";
    eventually(PATIENCE, async || {
        let owners = mart.databases().number("orders", owners).await;
        if owners == processes { Ok(()) } else { Err(format!("{owners} processes keep the orders")) }
    })
    .await;
}

/// Places orders of each partition's luck until all of them are shown: however a projector ended, no partition may
/// stay behind for longer than a take-over takes.
async fn all_partitions_are_kept(buyer: &Client, product: &str, how: &str) {
    let since = Instant::now();
    let mut placed = Vec::new();
    for _order in 0..ORDERS_BETWEEN {
        let call = buyer.post("/v1/orders").header("prefer", "respond-async").json(&order_of(product, 1));
        let reply = call.await;
        assert!(matches!(reply.status, 201 | 202), "{reply}");
        placed.push(reply.text_of("id"));
    }
    eventually(TAKEN_OVER_WITHIN, async || {
        for id in &placed {
            let reply = buyer.get(&format!("/v1/orders/{id}")).await;
            if reply.status != 200 {
                return Err(reply.to_string());
            }
        }
        Ok(())
    })
    .await;
    println!("after {how} new orders of all partitions are shown within {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn projectors_that_join_and_leave_keep_the_read_models_right_and_moving() {
    let _room = room().await;
    let (mut mart, _broker) = in_parts(Setup::new().await).await;
    let mut worker = mart.role(&["work", "all"]).await;
    let mut first = projector(&mart).await;
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", PIECES).await);

    let crowd = Crowd::of(std::iter::repeat_n(ann.client.clone(), BUYERS), &product);
    let over = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let (over, reader, path) = (Arc::clone(&over), ann.client.clone(), format!("/v1/products/{product}"));
        async move {
            let mut slowest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                for path in ["/v1/orders?limit=5", &path] {
                    let begun = Instant::now();
                    drop(reader.get(path).await.is(200));
                    slowest = slowest.max(begun.elapsed());
                }
            }
            slowest
        }
    });
    crowd.goes_on(ORDERS_BETWEEN, PATIENCE).await;
    let mut second = projector(&mart).await;
    let (mut third, points) = projector_with_failpoints(&mart).await;
    kept_by(&mart, 3).await;
    crowd.goes_on(ORDERS_BETWEEN, PATIENCE).await;

    first.kill();
    all_partitions_are_kept(&ann, &product, "kill -9").await;
    assert!(second.stop().await.success(), "a projector stopped badly");
    all_partitions_are_kept(&ann, &product, "SIGTERM").await;
    let mut fourth = projector(&mart).await;
    kept_by(&mart, 2).await;
    let listed = freeze_in_a_transaction(&mart, &third, &points).await;
    all_partitions_are_kept(&ann, &product, "a freeze").await;
    all_are_listed(&ann, &listed).await;
    third.signal(Signal::SIGCONT);
    failpoints::arm(&points, "subscription-before-commit=off").await;
    kept_by(&mart, 2).await;
    crowd.goes_on(ORDERS_BETWEEN, PATIENCE).await;

    let told = crowd.stop().await;
    over.store(true, Ordering::Relaxed);
    let slowest = reading.await.expect("every read succeeds");
    assert!(slowest < READ_WITHIN, "a read took {slowest:?}");
    assert!(told.refused.is_empty() && told.unanswered.is_empty(), "{told:?}");
    println!("{} orders, the slowest read took {slowest:?}", told.placed.len());
    adds_up(&mart.admin().await, &ann, &product, PIECES, &told, SETTLED_WITHIN).await;
    succeeds(&mart, &["verify"]).await;
    for process in [&mut third, &mut fourth, &mut worker] {
        assert!(process.stop().await.success(), "a process stopped badly");
    }
    mart.stop().await;
}
