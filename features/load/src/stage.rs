//! What scenarios need beforehand: an admin, products with stock, and buyers who are logged in.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use rand::Rng;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::connection::{Call, Connection, Server};
use crate::error::{LoadError, Result};

/// What the names of the products begin with.
const PRODUCT_NAME: &str = "Load test product";
/// Pieces of each product: more than any run sells.
const PLENTY: u32 = 100_000_000;
/// The most rows of a page.
const PAGE: usize = 100;
/// How many preparations go on at once: each costs the mart a password hash or a few commits.
const AT_ONCE: usize = 16;
/// How long to wait for what another service of the mart has to hear.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
/// How often to look for it.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// The password of all buyers.
const BUYER_PASSWORD: &str = "load-test-password";

/// Who may prepare a mart.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Name or e-mail address of an admin.
    pub name: String,
    /// The password.
    pub password: String,
}

/// A mart with the curtain still down.
#[derive(Debug)]
pub struct Stage {
    /// Where it is.
    pub server: Server,
    /// Speaks as an admin.
    pub admin: HeaderValue,
    /// Products that there is plenty of.
    pub products: Arc<[Uuid]>,
    /// Buyers who are logged in.
    pub buyers: Vec<HeaderValue>,
}

/// The stock of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Stock {
    /// What lies there.
    pub on_hand: u64,
    /// What can still be promised.
    pub available: u64,
    /// What is promised and not paid.
    pub reserved: u64,
    /// What is promised and paid.
    pub committed: u64,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
}

#[derive(Deserialize)]
struct Identified {
    id: Uuid,
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<Identified>,
    next_cursor: Option<String>,
}

impl Stage {
    /// Logs the admin in, and sees to it that there are so many products and buyers. Products of earlier runs are
    /// taken again, buyers are new.
    ///
    /// # Errors
    /// When the mart refuses something, or does not answer.
    pub async fn prepare(
        server: &Server,
        credentials: &Credentials,
        products: usize,
        buyers: usize,
    ) -> Result<Self> {
        let mut connection = Connection::open(server).await?;
        let admin = log_in(&mut connection, &credentials.name, &credentials.password).await?;
        let mut known = listed(&mut connection, products).await?;
        let missing = products.saturating_sub(known.len());
        known.extend(
            side_by_side(server, missing, {
                let admin = admin.clone();
                move |mut connection, number| {
                    let admin = admin.clone();
                    async move {
                        product(
                            &mut connection,
                            &admin,
                            &format!("{PRODUCT_NAME} {}", spelled(number)),
                            PLENTY,
                        )
                        .await
                    }
                }
            })
            .await?,
        );
        let run = spelled(rand::rng().random_range(0..usize::MAX));
        let buyers = side_by_side(server, buyers, move |mut connection, number| {
            let name = format!("load_{run}_{}", spelled(number));
            async move { buyer(&mut connection, &name).await }
        })
        .await?;
        Ok(Self { server: server.clone(), admin, products: known.into(), buyers })
    }

    /// A new product with so many pieces.
    ///
    /// # Errors
    /// When the mart refuses it.
    pub async fn product(&self, pieces: u32) -> Result<Uuid> {
        let mut connection = Connection::open(&self.server).await?;
        // Each sale has a product of its own, and no two of a mart have the same name.
        let name = format!("Load test bestseller {}", spelled(rand::rng().random_range(0..usize::MAX)));
        product(&mut connection, &self.admin, &name, pieces).await
    }

    /// The stock of a product.
    ///
    /// # Errors
    /// When the mart does not tell.
    pub async fn stock(&self, product: Uuid) -> Result<Stock> {
        let mut connection = Connection::open(&self.server).await?;
        let path = format!("/v1/inventory/{product}");
        connection.expect(Call::get(&path).token(&self.admin), 200).await?.json()
    }
}

/// Does something so many times, a few at once, each on a connection of its own.
async fn side_by_side<T, F>(
    server: &Server,
    times: usize,
    work: impl Fn(Connection, usize) -> F,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (mut results, mut working) = (Vec::with_capacity(times), JoinSet::new());
    for number in 0..times {
        if working.len() == AT_ONCE {
            results.extend(next(&mut working).await?);
        }
        working.spawn(work(Connection::open(server).await?, number));
    }
    while let Some(result) = next(&mut working).await? {
        results.push(result);
    }
    Ok(results)
}

async fn next<T: 'static>(working: &mut JoinSet<Result<T>>) -> Result<Option<T>> {
    working.join_next().await.map(|ended| ended.map_err(|_| LoadError::Lost)?).transpose()
}

async fn log_in(connection: &mut Connection, name: &str, password: &str) -> Result<HeaderValue> {
    let body = json!({"username": name, "password": password}).to_string();
    let tokens: Tokens = connection.expect(Call::post("/v1/auth/login", body), 200).await?.json()?;
    let mut header = HeaderValue::from_str(&format!("Bearer {}", tokens.access_token))
        .map_err(|_| LoadError::Waiting(Duration::ZERO, "the token cannot be sent".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

async fn buyer(connection: &mut Connection, name: &str) -> Result<HeaderValue> {
    let body = json!({"email": format!("{name}@example.org"), "password": BUYER_PASSWORD}).to_string();
    connection.expect(Call::post("/v1/users", body), 201).await?;
    log_in(connection, &format!("{name}@example.org"), BUYER_PASSWORD).await
}

/// The products that an earlier run has made, up to so many.
async fn listed(connection: &mut Connection, wanted: usize) -> Result<Vec<Uuid>> {
    let first = format!("/v1/products?search={}&limit={PAGE}", PRODUCT_NAME.replace(' ', "%20"));
    let (mut found, mut path) = (Vec::new(), first.clone());
    while found.len() < wanted {
        let page: Listed = connection.expect(Call::get(&path), 200).await?.json()?;
        found.extend(page.data.into_iter().map(|product| product.id));
        match page.next_cursor {
            Some(cursor) => path = format!("{first}&cursor={cursor}"),
            None => break,
        }
    }
    found.truncate(wanted);
    Ok(found)
}

/// Lists a product and waits until stock-keeping has heard of it.
async fn product(connection: &mut Connection, admin: &HeaderValue, name: &str, pieces: u32) -> Result<Uuid> {
    let body = json!({
        "name": name,
        "description": "Made by the load generator.",
        "price": "19.99",
        "opening_stock": pieces,
    });
    let made = connection.expect(Call::post("/v1/products", body.to_string()).token(admin), 201).await?;
    let Identified { id } = made.json()?;
    let path = format!("/v1/inventory/{id}");
    let deadline = Instant::now() + HEARD_WITHIN;
    loop {
        let answer = connection.send(Call::get(&path).token(admin)).await?;
        if answer.status == 200 && answer.json::<Stock>()?.on_hand == u64::from(pieces) {
            return Ok(id);
        }
        if Instant::now() >= deadline {
            return Err(LoadError::Waiting(HEARD_WITHIN, answer.told()));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// A number in letters: long digits in a text could be taken for a card number.
fn spelled(mut number: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'a' + u8::try_from(number % 26).unwrap_or_default());
        number /= 26;
        if number == 0 {
            return letters.into_iter().rev().map(char::from).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_numbers_are_spelled_differently() {
        assert_eq!([0, 25, 26, 27 * 26].map(spelled), ["a", "z", "ba", "bba"]);
        let all: std::collections::BTreeSet<String> = (0..10_000).map(spelled).collect();
        assert_eq!(all.len(), 10_000);
    }
}
