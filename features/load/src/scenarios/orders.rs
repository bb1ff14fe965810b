//! Buying: an order is placed, paid and confirmed.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use rand::Rng;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::connection::{Call, Connection};
use crate::error::Result;
use crate::pace::Visitor;
use crate::scenarios::{ready, unexpected};
use crate::tally::{Ending, Visit};

/// Different products in an order.
const LINES: usize = 2;
/// A card that the simulated gateway always approves.
const CARD: &str = r#"{"card":{"number":"4242424242424242","exp_month":12,"exp_year":2099,"cvc":"042"}}"#;
/// How long a paid order may take to be confirmed.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(20);
/// How long to wait before looking at an order again, at first; it doubles.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// The longest wait between two looks.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(16);

/// Buys again and again.
pub(crate) struct Buyer {
    token: HeaderValue,
    products: Arc<[Uuid]>,
}

/// As much of an order as matters here.
#[derive(Deserialize)]
pub(super) struct Order {
    pub(super) id: Uuid,
    pub(super) order_status: String,
}

/// The body of an order: so many products, a piece of each.
pub(super) fn placement(products: &[Uuid]) -> String {
    let items: Vec<_> =
        products.iter().map(|product| json!({"product_id": product, "quantity": 1})).collect();
    json!({"items": items, "shipping_address": "12 St James's Square, London"}).to_string()
}

impl Buyer {
    pub(crate) fn new(token: HeaderValue, products: Arc<[Uuid]>) -> Self {
        Self { token, products }
    }

    fn choose(&self) -> Vec<Uuid> {
        let first = rand::rng().random_range(0..self.products.len());
        self.products.iter().cycle().skip(first).take(LINES.min(self.products.len())).copied().collect()
    }

    /// Looks at an order until it is confirmed.
    async fn confirmed(&self, connection: &mut Connection, path: &str) -> Result<Ending> {
        let deadline = Instant::now() + CONFIRMED_WITHIN;
        let mut pause = LOOK_AGAIN;
        loop {
            let answer = connection.send(Call::get(path).token(&self.token)).await?;
            if answer.status != 200 {
                return Ok(unexpected(&answer, "look at the order"));
            }
            let order: Order = answer.json()?;
            if order.order_status == "confirmed" {
                return Ok(Ending::Done);
            }
            if Instant::now() >= deadline {
                return Ok(Ending::Failed(format!("an order that is paid stays {}", order.order_status)));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
        }
    }
}

impl Visitor for Buyer {
    async fn prepare(&mut self, connection: &mut Connection) -> Result<()> {
        ready(connection).await
    }

    async fn visit(&mut self, connection: &mut Connection) -> Result<Visit> {
        let started = Instant::now();
        let call = Call::post("/v1/orders", placement(&self.choose())).token(&self.token);
        let answer = connection.send(call).await?;
        if answer.status != 201 {
            return Ok(Visit::ended(unexpected(&answer, "place the order")));
        }
        let order: Order = answer.json()?;
        let placed = Instant::now();
        let path = format!("/v1/orders/{}", order.id);
        let call = Call::post("", CARD).token(&self.token);
        let answer = connection.send(Call { path: &format!("{path}/payments"), ..call }).await?;
        if answer.status != 200 {
            return Ok(Visit::ended(unexpected(&answer, "pay the order")));
        }
        let paid = Instant::now();
        let ending = self.confirmed(connection, &path).await?;
        let parts =
            vec![("place", placed - started), ("pay", paid - placed), ("confirm", Instant::now() - paid)];
        Ok(Visit { ending, parts })
    }
}
