//! Putting products into carts.

use std::sync::Arc;

use hyper::header::HeaderValue;
use rand::Rng;
use uuid::Uuid;

use crate::connection::{Call, Connection};
use crate::error::Result;
use crate::pace::Visitor;
use crate::scenarios::unexpected;
use crate::tally::{Ending, Visit};

/// Different products in a cart that is full.
const LINES: usize = 5;
/// Pieces of each: what the mart allows in a line.
const PIECES: usize = 5;

/// Fills one cart, a piece at a time.
pub(crate) struct Shopper {
    token: HeaderValue,
    products: Arc<[Uuid]>,
    /// The bodies still to be sent, each a piece of a product.
    wanted: Vec<String>,
}

impl Shopper {
    pub(crate) fn new(token: HeaderValue, products: Arc<[Uuid]>) -> Self {
        Self { token, products, wanted: Vec::new() }
    }

    /// One piece of each product after the other, so that a cart is seen small and full.
    fn choose(&mut self) {
        let first = rand::rng().random_range(0..self.products.len());
        let chosen = self.products.iter().cycle().skip(first).take(LINES.min(self.products.len()));
        let bodies: Vec<String> =
            chosen.map(|product| format!(r#"{{"product_id":"{product}","quantity":1}}"#)).collect();
        self.wanted = bodies.iter().cycle().take(bodies.len() * PIECES).cloned().collect();
    }
}

impl Visitor for Shopper {
    /// Takes a new cart when this one is full, and at first: an earlier visitor may have left something in it.
    async fn prepare(&mut self, connection: &mut Connection) -> Result<()> {
        if !self.wanted.is_empty() {
            return Ok(());
        }
        connection.expect(Call::delete("/v1/carts/me").token(&self.token), 204).await?;
        self.choose();
        Ok(())
    }

    async fn visit(&mut self, connection: &mut Connection) -> Result<Visit> {
        let body = self.wanted.pop().unwrap_or_default();
        let call = Call::post("/v1/carts/me/items?merge=true", body).token(&self.token);
        let answer = connection.send(call).await?;
        Ok(Visit::ended(match answer.status {
            200 | 201 => Ending::Done,
            _ => unexpected(&answer, "add to the cart"),
        }))
    }
}
