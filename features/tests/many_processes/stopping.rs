//! Processes that are asked to stop under load: no request fails, and no effect is lost or doubled.

mod kept_connection;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use features::crowd::{Crowd, adds_up};
use features::eventually::eventually;
use features::mart::Setup;
use features::shop::{ADDRESS, customer, product};
use features::{Client, PATIENCE};
use rand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{SETTLED_WITHIN, in_parts, room, succeeds};
use kept_connection::KeptConnection;

const PIECES: u32 = 10_000;
/// How many clients keep a connection.
const CLIENTS: usize = 12;
/// How long the slower half of them waits before it asks again, at most: some connections are idle at any moment.
const IDLE_AT_MOST: Duration = Duration::from_millis(600);
/// How often a process is replaced by another.
const ROUNDS: usize = 2;
/// How many answers come between two replacements.
const ANSWERS_BETWEEN: usize = 150;
/// The longest that a process may take to stop behind clients that keep their connections.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Clients that keep their connections as long as they may, and connect to whichever door is open then.
struct Visitors {
    tasks: JoinSet<()>,
    answered: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Visitors {
    fn come(doors: [String; 2], open: &Arc<AtomicUsize>, token: &str, product: &str) -> Self {
        let (answered, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let body = json!({"items": [{"product_id": product, "quantity": 1}], "shipping_address": ADDRESS});
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let (doors, open, token) = (doors.clone(), Arc::clone(open), token.to_owned());
            let (answered, over, body) = (Arc::clone(&answered), Arc::clone(&over), body.to_string());
            tasks.spawn(async move {
                let mut kept: Option<KeptConnection> = None;
                let mut reads = number % 3 != 0;
                while !over.load(Ordering::Relaxed) {
                    let mut connection = match kept.take() {
                        Some(connection) if !connection.has_ended() => connection,
                        Some(_) | None => KeptConnection::to(&doors[open.load(Ordering::SeqCst)]).await,
                    };
                    let answer = if reads {
                        connection.ask("GET", "/v1/orders?limit=3", &token, "").await
                    } else {
                        connection.ask("POST", "/v1/orders", &token, &body).await
                    };
                    let answer = answer.unwrap_or_else(|error| panic!("a request failed: {error}"));
                    assert!(matches!(answer.status, 200..=202), "{}: {}", answer.status, answer.body);
                    answered.fetch_add(1, Ordering::Relaxed);
                    reads = !reads;
                    if !answer.ends {
                        kept = Some(connection);
                    }
                    if number % 2 == 0 {
                        // Idle clients are what is tested here, not something to wait for.
                        let idle = rand::rng().random_range(Duration::ZERO..IDLE_AT_MOST);
                        tokio::time::sleep(idle).await;
                    }
                }
            });
        }
        Self { tasks, answered, over }
    }

    async fn go_on(&self) {
        let wanted = self.answered.load(Ordering::Relaxed) + ANSWERS_BETWEEN;
        eventually(PATIENCE, async || {
            let answered = self.answered.load(Ordering::Relaxed);
            if answered >= wanted { Ok(()) } else { Err(format!("{answered} answers of {wanted}")) }
        })
        .await;
    }

    async fn leave(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        while let Some(visitor) = self.tasks.join_next().await {
            visitor.expect("no request fails");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

fn address_of(client: &Client) -> String {
    client.base().trim_start_matches("http://").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_behind_kept_connections_fails_no_request() {
    let _room = room().await;
    let (mart, _broker) = in_parts(Setup::new().await).await;
    let mut running = [mart.role(&["work", "all"]).await, mart.role(&["project", "all"]).await];
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", PIECES).await);
    let token = ann.token().unwrap_or_default().to_owned();
    for _round in 0..ROUNDS {
        let (mut stopping, first) = mart.serve_beside(&["serve", "all"]).await;
        let (mut staying, second) = mart.serve_beside(&["serve", "all"]).await;
        let open = Arc::new(AtomicUsize::new(0));
        let doors = [address_of(&first), address_of(&second)];
        let visitors = Visitors::come(doors, &open, &token, &product);
        visitors.go_on().await;
        // As a gateway does: new connections go elsewhere from here on, and those that are open are used on.
        open.store(1, Ordering::SeqCst);
        let since = Instant::now();
        assert!(stopping.stop().await.success(), "it stopped badly");
        let took = since.elapsed();
        assert!(took < STOPPED_WITHIN, "it took {took:?} to stop");
        visitors.go_on().await;
        let answers = visitors.leave().await;
        println!("{answers} requests, all answered; the process took {took:?} to stop");
        assert!(staying.stop().await.success(), "it stopped badly");
    }
    for process in &mut running {
        assert!(process.stop().await.success(), "a process stopped badly");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_projectors_that_stop_lose_and_double_nothing() {
    const BUYERS: usize = 4;
    const ORDERS_BETWEEN: usize = 10;
    let _room = room().await;
    let (mut mart, _broker) = in_parts(Setup::new().await).await;
    let roles: [&[&str]; 2] = [&["work", "all"], &["project", "all"]];
    let mut running = Vec::new();
    for role in roles.iter().chain(&roles) {
        running.push(mart.role(role).await);
    }
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", PIECES).await);
    let crowd = Crowd::of(std::iter::repeat_n(ann.client.clone(), BUYERS), &product);
    for round in 0..2 * ROUNDS {
        crowd.goes_on(ORDERS_BETWEEN, PATIENCE).await;
        assert!(running.remove(0).stop().await.success(), "a process stopped badly");
        running.push(mart.role(roles[round % 2]).await);
    }
    crowd.goes_on(ORDERS_BETWEEN, PATIENCE).await;
    let told = crowd.stop().await;
    assert!(told.refused.is_empty() && told.unanswered.is_empty(), "{told:?}");
    let orders = adds_up(&mart.admin().await, &ann, &product, PIECES, &told, SETTLED_WITHIN).await;

    // One message for each order, one for each payment, one for the registration, and no more.
    let paid = orders.iter().filter(|order| order["payment_status"] == "paid").count();
    let mut wanted = vec!["registration"];
    wanted.extend(std::iter::repeat_n("order_received", orders.len()));
    wanted.extend(std::iter::repeat_n("payment_received", paid));
    features::shop::mails_become(&ann, wanted).await;
    succeeds(&mart, &["verify"]).await;
    println!("{} orders, {paid} paid", orders.len());
    for process in &mut running {
        assert!(process.stop().await.success(), "a process stopped badly");
    }
    mart.stop().await;
}
