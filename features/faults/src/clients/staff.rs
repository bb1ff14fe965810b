//! Staff: lists products, restocks, takes pieces out, changes prices, ships and delivers.

use std::collections::HashMap;

use anyhow::{Result, bail};
use features::shop::ADMIN_EMAIL;
use rand::Rng;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Ask, Caller, Shop, pause};
use crate::history::{Kind, Outcome};

/// The products of the shop: how many pieces there are of each. Most are soon sold out.
const OPENING_STOCK: [u32; 7] = [4, 6, 8, 12, 20, 2_000, 2_000];

#[derive(Debug)]
pub(super) struct Staff {
    caller: Caller,
    shop: Shop,
    products: Vec<String>,
    /// The last price that was set; none for ever after one whose fate is unknown, as it may still come about.
    prices: HashMap<String, Option<String>>,
}

impl Staff {
    /// Logs in and fills the shelf.
    pub(super) async fn open(shop: &Shop, random: StdRng) -> Result<Self> {
        let mut caller = Caller::new(shop, "staff", random);
        caller.log_in_soon(ADMIN_EMAIL).await?;
        let mut staff = Self { caller, shop: shop.clone(), products: Vec::new(), prices: HashMap::new() };
        for (number, pieces) in OPENING_STOCK.into_iter().enumerate() {
            let body =
                json!({"name": format!("Teapot number {number}"), "price": "12.50", "opening_stock": pieces});
            let told =
                staff.caller.ask(Ask::new(Kind::ListProduct, Method::POST, "/v1/products", body)).await;
            let Some(id) = told.answer["id"].as_str() else {
                bail!("no product can be listed: {}", told.answer)
            };
            staff.products.push(id.to_owned());
            shop.put_on_shelf(id.to_owned());
        }
        Ok(staff)
    }

    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.caller.random.random_range(0..100) {
                0..35 => self.restock().await,
                35..45 => self.reduce().await,
                45..60 => self.reprice().await,
                60..65 => self.read_product().await,
                _ => self.fulfil().await,
            }
            pause(&mut self.caller.random, 50..=250, stop).await;
        }
    }

    async fn restock(&mut self) {
        let body = json!({"quantity": self.caller.random.random_range(1..=3), "reason": "delivery"});
        let path = format!("/v1/inventory/{}/additions", self.some_product());
        self.caller.ask(Ask::new(Kind::Restock, Method::POST, path, body)).await;
    }

    async fn reduce(&mut self) {
        let body = json!({"quantity": 1, "reason": "broken"});
        let path = format!("/v1/inventory/{}/reductions", self.some_product());
        self.caller.ask(Ask::new(Kind::Reduce, Method::POST, path, body)).await;
    }

    async fn reprice(&mut self) {
        let product = self.some_product();
        let price = format!("{}.50", self.caller.random.random_range(5..=40));
        let path = format!("/v1/products/{product}");
        let ask = Ask::new(Kind::Reprice, Method::PATCH, path, json!({"price": price}));
        match self.caller.ask(ask).await.outcome {
            Outcome::Done => {
                if let Some(set) = self.prices.entry(product).or_insert_with(|| Some(String::new())) {
                    *set = price;
                }
            }
            Outcome::Refused => {}
            Outcome::Unknown => drop(self.prices.insert(product, None)),
        }
    }

    async fn read_product(&mut self) {
        let product = self.some_product();
        let told = self.caller.ask(Ask::read_after(format!("/v1/products/{product}"))).await;
        if let (Some(200), Some(Some(set))) = (told.status, self.prices.get(&product)) {
            let read = told.answer["price"].as_str().unwrap_or_default();
            if read != set {
                self.shop
                    .troubles
                    .complain(format!("the price of {product} was set to {set} and reads as {read}"));
            }
        }
    }

    /// Ships a confirmed order, or delivers a shipped one.
    async fn fulfil(&mut self) {
        let told = self.caller.ask(Ask::read("/v1/orders?limit=40")).await;
        let orders = told.answer["data"].as_array().cloned().unwrap_or_default();
        let wanted =
            |order: &&Value| ["confirmed", "shipped"].iter().any(|status| order["order_status"] == *status);
        let open: Vec<&Value> = orders.iter().filter(wanted).collect();
        if open.is_empty() {
            return;
        }
        let order = open[self.caller.random.random_range(0..open.len())];
        let id = order["id"].as_str().unwrap_or_default();
        let (kind, path) = if order["order_status"] == "confirmed" {
            (Kind::Ship, format!("/v1/orders/{id}/shipments"))
        } else {
            (Kind::Deliver, format!("/v1/orders/{id}/deliveries"))
        };
        self.caller.ask(Ask::new(kind, Method::POST, path, json!({}))).await;
    }

    fn some_product(&mut self) -> String {
        let count = self.products.len();
        self.products[self.caller.random.random_range(0..count)].clone()
    }
}
