//! The steps that most tests begin with, in the words of the shop.

use std::ops::Deref;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::eventually::{PATIENCE, eventually};
use crate::mart::TestMart;

/// An admin of every new mart.
pub const ADMIN_EMAIL: &str = "admin1@email.com";
/// The password of everybody in these tests.
pub const PASSWORD: &str = "testPass123";
/// A card that is always approved.
pub const GOOD_CARD: &str = "4242424242424242";
/// A card that is always declined.
pub const DECLINED_CARD: &str = "4000000000000002";
/// A card whose gateway keeps silent, although the charge is made.
pub const SILENT_CARD: &str = "4000000000000119";
/// Where orders go.
pub const ADDRESS: &str = "Ada Lovelace\n12 St James's Square\nLondon";

/// A name that no other test has: letters only, as long digits could look like a card number.
pub fn unique(beginning: &str) -> String {
    let letters = Uuid::new_v4().simple().to_string();
    let letters = letters.bytes().take(16).map(|hex| char::from(b'a' + (hex % 16)));
    format!("{beginning}_{}", letters.collect::<String>())
}

/// Somebody who can log in.
#[derive(Debug, Clone)]
pub struct Person {
    /// Speaks as this person.
    pub client: Client,
    /// The user's id.
    pub id: String,
    /// The e-mail address.
    pub email: String,
    /// The username.
    pub username: String,
    /// The token that gets new tokens.
    pub refresh_token: String,
}

impl Deref for Person {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Logs in and gives the access token.
///
/// # Panics
/// When that is refused.
pub async fn log_in(client: &Client, name: &str, password: &str) -> String {
    let body = json!({"username": name, "password": password});
    client.post("/v1/auth/login").json(&body).await.is(200).text_of("access_token")
}

/// What a registration sends.
pub fn registration(username: &str) -> Value {
    json!({
        "email": format!("{username}@example.org"),
        "password": PASSWORD,
        "username": username,
        "first_name": "John",
        "last_name": "Doe",
    })
}

/// A new customer, logged in.
///
/// # Panics
/// When that is refused.
pub async fn customer(mart: &TestMart) -> Person {
    let client = mart.client();
    let username = unique("customer");
    let registered = client.post("/v1/users").json(&registration(&username)).await.is(201);
    let body = json!({"username": username, "password": PASSWORD});
    let tokens = client.post("/v1/auth/login").json(&body).await.is(200);
    Person {
        client: client.with_token(&tokens.text_of("access_token")),
        id: registered.text_of("id"),
        email: registered.text_of("email"),
        username,
        refresh_token: tokens.text_of("refresh_token"),
    }
}

/// A new product with stock; gives its id.
///
/// # Panics
/// When that is refused.
pub async fn product(mart: &TestMart, price: &str, pieces: u32) -> String {
    let admin = mart.admin().await;
    let mut body = json!({"name": unique("Product"), "price": price});
    if pieces > 0 {
        body["opening_stock"] = json!(pieces);
    }
    let id = admin.post("/v1/products").json(&body).await.is(201).text_of("id");
    // Stock-keeping hears of the product a moment later.
    eventually(PATIENCE, async || {
        let level = admin.get(&format!("/v1/inventory/{id}")).await;
        if level.status == 200 && level.body["on_hand"] == pieces { Ok(()) } else { Err(level.to_string()) }
    })
    .await;
    id
}

/// What an order of one product sends.
pub fn order_of(product: &str, quantity: i64) -> Value {
    json!({"items": [{"product_id": product, "quantity": quantity}], "shipping_address": ADDRESS})
}

/// Places an order of one product.
pub async fn order(buyer: &Client, product: &str, quantity: i64) -> Reply {
    buyer.post("/v1/orders").json(&order_of(product, quantity)).await
}

/// What a payment by card sends.
pub fn card(number: &str) -> Value {
    json!({"card": {"number": number, "exp_month": 12, "exp_year": 2099, "cvc": "042"}})
}

/// Pays an order.
pub async fn pay(buyer: &Client, order: &str, number: &str) -> Reply {
    buyer.post(&format!("/v1/orders/{order}/payments")).json(&card(number)).await
}

/// An order that was placed and paid, and knows it; gives its id.
///
/// # Panics
/// When something is refused.
pub async fn paid_order(buyer: &Client, product: &str, quantity: i64) -> String {
    let id = order(buyer, product, quantity).await.is(201).text_of("id");
    let payment = pay(buyer, &id, GOOD_CARD).await.is(200);
    assert_eq!(payment.body["status"], "captured", "{payment}");
    order_reads(buyer, &id, "confirmed", "paid").await;
    id
}

/// What an order is now.
///
/// # Panics
/// When it cannot be read.
pub async fn order_now(reader: &Client, id: &str) -> Value {
    reader.get(&format!("/v1/orders/{id}")).await.is(200).body
}

/// Waits until an order has a status, and its payment one.
///
/// # Panics
/// When they do not get them.
pub async fn order_reads(reader: &Client, id: &str, status: &str, payment: &str) -> Value {
    eventually(PATIENCE, async || {
        let order = order_now(reader, id).await;
        let is_so = order["order_status"] == status && order["payment_status"] == payment;
        if is_so { Ok(order) } else { Err(order.to_string()) }
    })
    .await
}

/// The stock of a product: on hand, available, reserved, committed.
pub type Stock = [i64; 4];

/// The stock of a product.
///
/// # Panics
/// When it cannot be read.
pub async fn stock(admin: &Client, product: &str) -> Stock {
    let level = admin.get(&format!("/v1/inventory/{product}")).await.is(200);
    ["on_hand", "available", "reserved", "committed"]
        .map(|figure| level.body[figure].as_i64().unwrap_or_else(|| panic!("{level} has no {figure}")))
}

/// Waits until the stock of a product is so.
///
/// # Panics
/// When it does not become so.
pub async fn stock_becomes(admin: &Client, product: &str, wanted: Stock) {
    eventually(PATIENCE, async || {
        let now = stock(admin, product).await;
        if now == wanted { Ok(()) } else { Err(format!("the stock is {now:?}, not {wanted:?}")) }
    })
    .await;
}

/// Waits until somebody has got exactly these messages, sent, in any order; gives all rows.
///
/// # Panics
/// When it does not become so.
pub async fn mails_become(reader: &Client, mut wanted: Vec<&str>) -> Vec<Value> {
    wanted.sort_unstable();
    eventually(PATIENCE, async || {
        let rows = reader.all("/v1/notifications").await;
        let sent = rows.iter().filter(|row| row["status"] == "sent" && row["channel"] == "email");
        let mut templates: Vec<&str> = sent.filter_map(|row| row["template"].as_str()).collect();
        templates.sort_unstable();
        if templates == wanted { Ok(rows.clone()) } else { Err(format!("mails were {rows:?}")) }
    })
    .await
}
