//! A customer: fills a cart, orders, pays, changes its mind, and looks whether all of it is there.

use std::collections::HashMap;

use anyhow::Result;
use features::shop::{ADDRESS, DECLINED_CARD, GOOD_CARD, SILENT_CARD, card};
use rand::Rng;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Ask, Caller, Shop, pause};
use crate::history::{Kind, Operation, Outcome};

/// After how many things a customer leaves and another one comes.
const VISIT: std::ops::RangeInclusive<u32> = 60..=120;
/// How many of its latest orders a customer still cares for.
const ORDERS_IN_MIND: usize = 6;

struct Customer {
    caller: Caller,
    shop: Shop,
    /// The latest orders.
    orders: Vec<String>,
    /// The items of the cart, as last seen.
    items: Vec<String>,
    /// The latest version that was told of each path.
    versions: HashMap<String, i64>,
    /// The latest version that was read of each path: whoever reads again sees no older one, even if they do not say
    /// what they know.
    seen: HashMap<String, i64>,
}

/// Customers, one after the other.
#[derive(Debug)]
pub(super) struct Visits {
    caller: Caller,
    shop: Shop,
    name: String,
    count: u32,
}

impl Visits {
    /// The first one registers.
    pub(super) async fn begin(shop: &Shop, name: &str, random: StdRng) -> Result<Self> {
        let caller = Caller::new(shop, name, random);
        let mut visits =
            Self { caller, shop: shop.clone(), name: name.replace("customer", "buyer"), count: 0 };
        if !visits.somebody_comes().await {
            visits.caller.log_in_soon(&visits.username()).await?;
        }
        Ok(visits)
    }

    /// Whether somebody new has registered and logged in. Perhaps a registration is known and only its answer
    /// was lost.
    async fn somebody_comes(&mut self) -> bool {
        self.count += 1;
        let username = self.username();
        self.caller.register(&username).await || self.caller.log_in(&username).await
    }

    fn username(&self) -> String {
        format!("{}-{}", self.name, self.count)
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let mut customer = Customer {
                caller: self.caller,
                shop: self.shop.clone(),
                orders: Vec::new(),
                items: Vec::new(),
                versions: HashMap::new(),
                seen: HashMap::new(),
            };
            let things = customer.caller.random.random_range(VISIT);
            for _ in 0..things {
                if stop.is_cancelled() {
                    return;
                }
                customer.do_something().await;
                pause(&mut customer.caller.random, 5..=120, &stop).await;
            }
            self.caller = customer.caller;
            while !stop.is_cancelled() && !self.somebody_comes().await {
                pause(&mut self.caller.random, 200..=800, &stop).await;
            }
        }
    }
}

impl Customer {
    async fn do_something(&mut self) {
        match self.caller.random.random_range(0..100) {
            0..16 => self.add_to_cart().await,
            16..21 => self.change_cart().await,
            21..24 => self.remove_from_cart().await,
            24..34 => self.check_out().await,
            34..52 => self.place_order().await,
            52..74 => self.pay().await,
            74..80 => self.cancel().await,
            80..88 => self.edit().await,
            88..94 => self.read_cart().await,
            _ => self.read_order().await,
        }
    }

    async fn add_to_cart(&mut self) {
        let Some(product) = self.shop.product(&mut self.caller.random) else { return };
        let quantity = self.caller.random.random_range(1..=2);
        let body = json!({"product_id": product, "quantity": quantity});
        let told = self.caller.ask(Ask::new(Kind::AddToCart, Method::POST, self.cart("/items"), body)).await;
        self.saw_cart(&told).await;
    }

    async fn change_cart(&mut self) {
        let Some(item) = self.some_item() else { return };
        let body = json!({"quantity": self.caller.random.random_range(1..=3)});
        let path = self.cart(&format!("/items/{item}"));
        let told = self.caller.ask(Ask::new(Kind::ChangeCart, Method::PATCH, path, body)).await;
        self.saw_cart(&told).await;
    }

    async fn remove_from_cart(&mut self) {
        let Some(item) = self.some_item() else { return };
        let path = self.cart(&format!("/items/{item}"));
        let told = self.caller.ask(Ask::new(Kind::RemoveFromCart, Method::DELETE, path, Value::Null)).await;
        if told.outcome == Outcome::Done {
            self.items.retain(|kept| *kept != item);
        }
    }

    async fn check_out(&mut self) {
        let body = json!({"shipping_address": ADDRESS});
        let told =
            self.caller.ask(Ask::new(Kind::CheckOut, Method::POST, self.cart("/checkout"), body)).await;
        self.items.clear();
        self.ordered(&told).await;
    }

    async fn place_order(&mut self) {
        let Some(product) = self.shop.product(&mut self.caller.random) else { return };
        let mut items =
            vec![json!({"product_id": product, "quantity": self.caller.random.random_range(1..=3)})];
        if self.caller.random.random_bool(0.3)
            && let Some(other) = self.shop.product(&mut self.caller.random)
            && other != product
        {
            items.push(json!({"product_id": other, "quantity": 1}));
        }
        let body = json!({"items": items, "shipping_address": ADDRESS, "customer_notes": "ring twice"});
        let told = self.caller.ask(Ask::new(Kind::PlaceOrder, Method::POST, "/v1/orders", body)).await;
        self.ordered(&told).await;
    }

    async fn pay(&mut self) {
        let Some(order) = self.some_order() else { return };
        let number = match self.caller.random.random_range(0..100) {
            0..78 => GOOD_CARD,
            78..90 => DECLINED_CARD,
            _ => SILENT_CARD,
        };
        let path = format!("/v1/orders/{order}/payments");
        self.caller.ask(Ask::new(Kind::Pay, Method::POST, path, card(number))).await;
    }

    async fn cancel(&mut self) {
        let Some(order) = self.some_order() else { return };
        let path = format!("/v1/orders/{order}/cancel");
        let told = self.caller.ask(Ask::new(Kind::Cancel, Method::POST, path, json!({}))).await;
        self.saw_order(&order, &told).await;
    }

    async fn edit(&mut self) {
        let (Some(order), Some(product)) = (self.some_order(), self.shop.product(&mut self.caller.random))
        else {
            return;
        };
        let body = if self.caller.random.random_bool(0.7) {
            json!({"items": [{"product_id": product, "quantity": self.caller.random.random_range(1..=4)}]})
        } else {
            json!({"shipping_address": format!("{ADDRESS}\nback door")})
        };
        let path = format!("/v1/orders/{order}");
        let told = self.caller.ask(Ask::new(Kind::EditOrder, Method::PATCH, path, body)).await;
        self.saw_order(&order, &told).await;
    }

    async fn read_cart(&mut self) {
        self.reads(self.cart("")).await;
    }

    async fn read_order(&mut self) {
        let Some(order) = self.some_order() else { return };
        self.reads(format!("/v1/orders/{order}")).await;
    }

    async fn ordered(&mut self, told: &Operation) {
        if told.outcome != Outcome::Done {
            return;
        }
        if let Some(id) = told.answer["id"].as_str() {
            let id = id.to_owned();
            if self.orders.len() == ORDERS_IN_MIND {
                self.orders.remove(0);
            }
            self.orders.push(id.clone());
            self.saw_order(&id, told).await;
        }
    }

    async fn saw_order(&mut self, order: &str, told: &Operation) {
        self.saw(format!("/v1/orders/{order}"), told).await;
    }

    async fn saw_cart(&mut self, told: &Operation) {
        self.sees_items(told);
        self.saw(self.cart(""), told).await;
    }

    fn sees_items(&mut self, told: &Operation) {
        if let (Outcome::Done, Some(items)) = (told.outcome, told.answer["items"].as_array()) {
            self.items = items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect();
        }
    }

    /// Remembers the version that a write was answered with; it is often read back at once.
    async fn saw(&mut self, path: String, told: &Operation) {
        let Some(version) = told.version.filter(|_| told.outcome == Outcome::Done) else { return };
        let known = self.versions.get(&path).copied();
        self.is_not_older(&path, version, known);
        raise(&mut self.versions, &path, version);
        if self.caller.random.random_bool(0.4) {
            self.reads(path).await;
        }
    }

    /// Reads, and says what is known already, or not. Who says it sees all that was told; who does not, at least all
    /// that was read before.
    async fn reads(&mut self, path: String) {
        let after = self.caller.random.random_bool(0.5);
        let known = if after { self.versions.get(&path) } else { self.seen.get(&path) }.copied();
        let ask = if after { Ask::read_after(path.clone()) } else { Ask::read(path.clone()) };
        let told = self.caller.ask(ask).await;
        match (told.status, told.answer["version"].as_i64()) {
            (Some(200), Some(version)) => {
                self.is_not_older(&path, version, known);
                raise(&mut self.versions, &path, version);
                raise(&mut self.seen, &path, version);
            }
            (Some(404), _) if known.is_some() => {
                self.shop.troubles.complain(format!("{path} was written and reads as missing"));
            }
            _ => {}
        }
        if path == self.cart("") {
            self.sees_items(&told);
        }
    }

    fn is_not_older(&self, path: &str, version: i64, known: Option<i64>) {
        if let Some(known) = known.filter(|known| version < *known) {
            self.shop
                .troubles
                .complain(format!("{path} reads as version {version} after version {known} was told"));
        }
    }

    fn cart(&self, rest: &str) -> String {
        let id = self.caller.person.as_ref().map(|person| person.id).unwrap_or_default();
        format!("/v1/carts/{id}{rest}")
    }

    fn some_item(&mut self) -> Option<String> {
        let count = self.items.len();
        (count > 0).then(|| self.items[self.caller.random.random_range(0..count)].clone())
    }

    fn some_order(&mut self) -> Option<String> {
        let count = self.orders.len();
        (count > 0).then(|| self.orders[self.caller.random.random_range(0..count)].clone())
    }
}

fn raise(versions: &mut HashMap<String, i64>, path: &str, version: i64) {
    let known = versions.entry(path.to_owned()).or_default();
    *known = version.max(*known);
}
