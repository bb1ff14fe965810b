//! Buyers who go on until they are told to stop, and what they were told meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{Client, Reply};
use crate::eventually::eventually;
use crate::shop::{self, GOOD_CARD, card, order_of};

/// What buyers were told.
#[derive(Debug, Default)]
pub struct Told {
    /// The orders that were acknowledged, with or without a decision.
    pub placed: Vec<String>,
    /// The orders whose payment was acknowledged.
    pub paid: Vec<String>,
    /// Every other answer.
    pub refused: Vec<Reply>,
    /// Requests that got no answer, with the reason.
    pub unanswered: Vec<String>,
    /// How long the longest answer took.
    pub slowest: Duration,
}

impl Told {
    /// What others were told as well.
    pub fn add(&mut self, other: Self) {
        self.placed.extend(other.placed);
        self.paid.extend(other.paid);
        self.refused.extend(other.refused);
        self.unanswered.extend(other.unanswered);
        self.slowest = self.slowest.max(other.slowest);
    }

    async fn ask(&mut self, call: crate::client::Call) -> Option<Reply> {
        let begun = Instant::now();
        let sent = call.send().await;
        self.slowest = self.slowest.max(begun.elapsed());
        match sent {
            Ok(reply) => Some(reply),
            Err(error) => {
                self.unanswered.push(format!("{error:?}"));
                None
            }
        }
    }

    /// Buys a piece, and pays for it unless that is left for later.
    async fn buy(&mut self, buyer: &Client, product: &str, pays: bool) {
        let Some(placed) = self.ask(buyer.post("/v1/orders").json(&order_of(product, 1))).await else {
            return;
        };
        if !matches!(placed.status, 201 | 202) {
            self.refused.push(placed);
            return;
        }
        let (id, decided) = (placed.text_of("id"), placed.status == 201);
        self.placed.push(id.clone());
        if !pays || !decided {
            return;
        }
        let payment = buyer.post(&format!("/v1/orders/{id}/payments")).json(&card(GOOD_CARD));
        match self.ask(payment).await {
            Some(reply) if reply.status == 200 => self.paid.push(id),
            // The outcome of the charge is told later.
            Some(reply) if reply.status == 202 => {}
            Some(reply) => self.refused.push(reply),
            None => {}
        }
    }
}

/// Buyers of one product, each in a task of its own. They stop with this value.
#[derive(Debug)]
pub struct Crowd {
    buyers: JoinSet<Told>,
    over: Arc<AtomicBool>,
    placed: Arc<AtomicUsize>,
}

impl Crowd {
    /// Lets each of these clients buy; every second order is paid.
    pub fn of(buyers: impl IntoIterator<Item = Client>, product: &str) -> Self {
        let (over, placed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for buyer in buyers {
            let (over, placed, product) = (Arc::clone(&over), Arc::clone(&placed), product.to_owned());
            tasks.spawn(async move {
                let mut told = Told::default();
                let mut pays = false;
                while !over.load(Ordering::Relaxed) {
                    let before = told.placed.len();
                    told.buy(&buyer, &product, pays).await;
                    placed.fetch_add(told.placed.len() - before, Ordering::Relaxed);
                    pays = !pays;
                    if told.placed.len() == before {
                        // Refused or not answered: whoever asks on at once only keeps others from being served.
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                told
            });
        }
        Self { buyers: tasks, over, placed }
    }

    /// How many orders were acknowledged until now.
    pub fn placed(&self) -> usize {
        self.placed.load(Ordering::Relaxed)
    }

    /// Waits until so many more orders are acknowledged.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn goes_on(&self, orders: usize, within: Duration) {
        let wanted = self.placed() + orders;
        eventually(within, async || {
            let placed = self.placed();
            if placed >= wanted { Ok(()) } else { Err(format!("{placed} orders placed of {wanted}")) }
        })
        .await;
    }

    /// Tells them to stop and hears what they were told.
    ///
    /// # Panics
    /// When a buyer met something that cannot be.
    pub async fn stop(mut self) -> Told {
        self.over.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        while let Some(buyer) = self.buyers.join_next().await {
            told.add(buyer.expect("a buyer does not fail"));
        }
        told
    }
}

/// The pause of a buyer who was turned away.
const PAUSE: Duration = Duration::from_millis(25);

/// Waits until every order of a buyer is either waiting for its money or confirmed with it, and the stock of the
/// product, of which `pieces` came in, adds up; then nothing that was acknowledged may be missing. Gives all orders.
///
/// # Panics
/// When it does not become so.
pub async fn adds_up(
    admin: &Client,
    buyer: &Client,
    product: &str,
    pieces: u32,
    told: &Told,
    within: Duration,
) -> Vec<Value> {
    // Orders and stock are looked at together: the list of orders may be behind as long as the read models are.
    eventually(within, async || {
        let orders = buyer.all("/v1/orders").await;
        let rests = |order: &Value| {
            let state = (order["order_status"].as_str(), order["payment_status"].as_str());
            matches!(state, (Some("awaiting_payment"), Some("pending")) | (Some("confirmed"), Some("paid")))
        };
        if let Some(order) = orders.iter().find(|order| !rests(order)) {
            return Err(format!("an order does not come to rest: {order}"));
        }
        let with = |status: &str| -> BTreeSet<&str> {
            let orders = orders.iter().filter(|order| order["order_status"] == status);
            orders.filter_map(|order| order["id"].as_str()).collect()
        };
        let (held, committed) = (with("awaiting_payment"), with("confirmed"));
        if let Some(missing) =
            told.placed.iter().find(|id| !held.contains(id.as_str()) && !committed.contains(id.as_str()))
        {
            return Err(format!("the acknowledged order {missing} is not shown"));
        }
        if let Some(unpaid) = told.paid.iter().find(|id| !committed.contains(id.as_str())) {
            return Err(format!("the acknowledged payment of {unpaid} is not shown"));
        }
        let count = |orders: &BTreeSet<&str>| i64::try_from(orders.len()).expect("they can be counted");
        let (held, committed, pieces) = (count(&held), count(&committed), i64::from(pieces));
        let expected = [pieces, pieces - held - committed, held, committed];
        let stock = shop::stock(admin, product).await;
        if stock == expected {
            Ok(orders.clone())
        } else {
            Err(format!("the stock is {stock:?}, not {expected:?}"))
        }
    })
    .await
}
