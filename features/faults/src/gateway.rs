//! The payment gateway of a run: what docs/gateway.md asks for, with a journal of its own. It can do what it is
//! asked and not say so.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use features::shop::{DECLINED_CARD, GOOD_CARD, SILENT_CARD};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How long an answer is held back when the gateway is silent: longer than anybody waits for it.
const HELD_BACK: Duration = Duration::from_secs(15);

/// Something that was done with money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// What: `authorisations`, `captures`, `voids` or `refunds`.
    pub what: String,
    /// Under which key.
    pub key: String,
    /// The authorisation that it is about.
    pub authorisation: String,
    /// How much, in minor units; nothing for voids.
    pub amount: i64,
}

/// The gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    silent: AtomicBool,
    answers: AtomicU64,
    journal: Mutex<Journal>,
}

#[derive(Debug, Default)]
struct Journal {
    /// The answers by their keys: the same key is the same movement.
    answered: HashMap<String, Value>,
    movements: Vec<Movement>,
}

impl Gateway {
    /// Starts it.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let gateway = Self { address: listener.local_addr()?, inner: Arc::default() };
        let routes = Router::new()
            .route("/tokens", post(tokenise))
            .route("/tokens/{token}", get(describe))
            .route("/{what}", post(move_money))
            .with_state(Arc::clone(&gateway.inner));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(gateway)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says nothing of what it does, or says it again.
    pub fn set_silent(&self, silent: bool) {
        self.inner.silent.store(silent, Ordering::SeqCst);
    }

    /// All that was done, in its order.
    pub fn journal(&self) -> Vec<Movement> {
        self.inner.journal.lock().unwrap_or_else(PoisonError::into_inner).movements.clone()
    }
}

impl Inner {
    /// What a request comes to; and whether this key is new.
    fn carry_out(&self, what: &str, key: &str, asked: &Value) -> (Value, bool) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = journal.answered.get(key) {
            return (answer.clone(), false);
        }
        let token = asked["token"].as_str().unwrap_or_default();
        let answer = if what == "authorisations" && token.starts_with("tok_declined") {
            json!({"outcome": "declined", "reason": "card_declined"})
        } else {
            let number = journal.movements.len() + 1;
            let reference = format!("{what}-{number}");
            let authorisation = asked["reference"].as_str().unwrap_or(&reference).to_owned();
            journal.movements.push(Movement {
                what: what.to_owned(),
                key: key.to_owned(),
                authorisation,
                amount: asked["amount_minor"].as_i64().unwrap_or(0),
            });
            json!({"outcome": "approved", "reference": reference})
        };
        journal.answered.insert(key.to_owned(), answer.clone());
        (answer, true)
    }
}

async fn tokenise(Json(card): Json<Value>) -> (StatusCode, Json<Value>) {
    let number = card["number"].as_str().unwrap_or_default();
    let kind = match number {
        GOOD_CARD => "good",
        DECLINED_CARD => "declined",
        SILENT_CARD => "silent",
        _ => return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({}))),
    };
    (StatusCode::OK, Json(token(&format!("tok_{kind}"))))
}

async fn describe(Path(named): Path<String>) -> Json<Value> {
    Json(token(&named))
}

fn token(token: &str) -> Value {
    json!({"token": token, "brand": "visa", "last4": "4242"})
}

async fn move_money(
    State(inner): State<Arc<Inner>>,
    Path(what): Path<String>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    if key.is_empty() || !["authorisations", "captures", "voids", "refunds"].contains(&what.as_str()) {
        return (StatusCode::BAD_REQUEST, Json(json!({})));
    }
    let (answer, fresh) = inner.carry_out(&what, key, &asked);
    let silent_card = fresh && asked["token"] == "tok_silent";
    if inner.silent.load(Ordering::SeqCst) {
        // Every second time nothing comes at all, else something that says nothing.
        if inner.answers.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            tokio::time::sleep(HELD_BACK).await;
        }
        return (StatusCode::BAD_GATEWAY, Json(json!({})));
    }
    if silent_card {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({})))
    } else {
        (StatusCode::OK, Json(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_moves_money_once() {
        let inner = Inner::default();
        let asked = json!({"token": "tok_good", "amount_minor": 100, "currency": "USD"});
        let (first, fresh) = inner.carry_out("authorisations", "pay:1:1", &asked);
        assert!(fresh);
        assert_eq!(inner.carry_out("authorisations", "pay:1:1", &asked), (first.clone(), false));
        let (other, fresh) = inner.carry_out("authorisations", "pay:1:2", &asked);
        assert!(fresh && other != first);
        assert_eq!(inner.journal.lock().expect("it is sound").movements.len(), 2);
    }
}
