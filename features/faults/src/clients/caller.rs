//! One client: sends a request to some process that serves, writes down what was asked and answered, and repeats
//! what was not answered.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, bail};
use features::client::{Call, Client};
use features::shop::PASSWORD;
use rand::Rng;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Shop;
use crate::history::{Kind, Operation, Outcome};

/// How long a client waits for an answer: longer than the mart lets any request take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(35);
/// How long a client waits for any process to serve.
const SERVED_WITHIN: Duration = Duration::from_secs(90);
/// How long somebody who is known may stay unknown to who lets people in, when nothing is broken.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// How often an unanswered request is repeated at once.
const REPEATS: usize = 3;
/// The pause between two looks for a process that serves.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Somebody who is known to the shop.
#[derive(Debug, Clone)]
pub struct Person {
    /// The user.
    pub id: Uuid,
    /// What to log in with.
    pub name: String,
    /// The access token, as it is now.
    pub token: String,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// For what.
    pub kind: Kind,
    /// How.
    pub method: Method,
    /// Where.
    pub path: String,
    /// With what.
    pub body: Value,
    /// Whether the answer must have seen what the client was told before.
    after: bool,
}

impl Ask {
    /// A request that changes something.
    pub fn new(kind: Kind, method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { kind, method, path: path.into(), body, after: false }
    }

    /// A request that reads.
    pub fn read(path: impl Into<String>) -> Self {
        Self::new(Kind::Read, Method::GET, path, Value::Null)
    }

    /// A request that reads and says what its answer must have seen.
    pub fn read_after(path: impl Into<String>) -> Self {
        Self { after: true, ..Self::read(path) }
    }
}

/// A client.
#[derive(Debug)]
pub struct Caller {
    shop: Shop,
    name: String,
    http: Client,
    /// Who it is.
    pub person: Option<Person>,
    /// Its chance.
    pub random: StdRng,
    /// The last position of each service that it was told.
    positions: HashMap<String, i64>,
    keys: u64,
}

impl Caller {
    /// A client that nobody knows yet.
    pub fn new(shop: &Shop, name: &str, random: StdRng) -> Self {
        Self {
            shop: shop.clone(),
            name: name.to_owned(),
            http: Client::new(""),
            person: None,
            random,
            positions: HashMap::new(),
            keys: 0,
        }
    }

    /// Asks, and repeats it under the same key while nobody knows what became of it; at some point it gives up.
    pub async fn ask(&mut self, ask: Ask) -> Operation {
        self.keys += 1;
        let key = (ask.kind != Kind::Read).then(|| format!("{}-{}", self.name, self.keys));
        let mut told = self.send(&ask, key.as_deref()).await;
        let mut repeats = self.random.random_range(0..=REPEATS);
        while told.outcome == Outcome::Unknown && repeats > 0 && !ask.kind.is_passing() {
            repeats -= 1;
            let pause = Duration::from_millis(self.random.random_range(20..600));
            tokio::time::sleep(pause).await;
            told = self.send(&ask, key.as_deref()).await;
        }
        self.shop.history.ended(told.clone());
        told
    }

    /// Asks again for something whose outcome is unknown, until it is known.
    ///
    /// # Errors
    /// When it does not become known.
    pub async fn resolve(&mut self, operation: &Operation) -> Result<Operation> {
        let method = Method::from_bytes(operation.method.as_bytes())?;
        let ask = Ask::new(operation.kind, method, &operation.path, operation.body.clone());
        for _ in 0..10 {
            let told = self.send(&ask, operation.key.as_deref()).await;
            if told.outcome != Outcome::Unknown {
                return Ok(told);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        bail!("{:?} of {} is not answered although everything works", operation.kind, operation.client)
    }

    /// Registers, and logs in as the new user.
    pub async fn register(&mut self, username: &str) -> bool {
        let body = json!({"email": format!("{username}@example.org"), "password": PASSWORD,
            "username": username, "first_name": "Ada", "last_name": "Byron"});
        self.person = None;
        let told = self.ask(Ask::new(Kind::Register, Method::POST, "/v1/users", body)).await;
        told.outcome == Outcome::Done && self.log_in(username).await
    }

    /// Logs in.
    pub async fn log_in(&mut self, name: &str) -> bool {
        let body = json!({"username": name, "password": PASSWORD});
        let ask = Ask::new(Kind::LogIn, Method::POST, "/v1/auth/login", body);
        let told = self.send_as(&ask, None, None).await;
        let token = told.answer["access_token"].as_str().map(str::to_owned);
        let id = told.answer["user"]["id"].as_str().and_then(|id| id.parse().ok());
        self.shop.history.ended(told);
        if let (Some(token), Some(id)) = (token, id) {
            let person = Person { id, name: name.to_owned(), token };
            self.shop.knows(&person);
            self.person = Some(person);
            return true;
        }
        false
    }

    /// Logs in as somebody of whom the mart may be just hearing.
    ///
    /// # Errors
    /// When that person stays unknown.
    pub async fn log_in_soon(&mut self, name: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + KNOWN_WITHIN;
        while !self.log_in(name).await {
            if tokio::time::Instant::now() > deadline {
                bail!("{name} cannot log in although everything works");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Sends once; a token that is not taken, as the clocks of processes may differ, is replaced first.
    async fn send(&mut self, ask: &Ask, key: Option<&str>) -> Operation {
        let told = self.send_as(ask, key, self.person.clone()).await;
        let Some(person) = self.person.clone().filter(|_| told.status == Some(401)) else { return told };
        if self.log_in(&person.name).await { self.send_as(ask, key, self.person.clone()).await } else { told }
    }

    async fn send_as(&mut self, ask: &Ask, key: Option<&str>, person: Option<Person>) -> Operation {
        let troubles = self.shop.troubles.clone();
        let base = self.somebody_who_serves().await;
        let mut operation = Operation {
            client: self.name.clone(),
            kind: ask.kind,
            method: method_name(&ask.method),
            path: ask.path.clone(),
            key: key.map(str::to_owned),
            user: person.as_ref().map(|person| person.id),
            body: ask.body.clone(),
            from: troubles.now(),
            to: Duration::ZERO,
            outcome: Outcome::Unknown,
            status: None,
            answer: Value::Null,
            version: None,
            position: None,
        };
        self.shop.history.invoked(&operation);
        let Some(base) = base else {
            troubles.complain(format!("nobody serves {} for {SERVED_WITHIN:?}", self.name));
            operation.to = troubles.now();
            return operation;
        };
        let mut client = self.http.at(&base);
        if let Some(person) = &person {
            client = client.with_token(&person.token);
        }
        let call = self.headers(client.call(ask.method.clone(), &ask.path), ask, key);
        let call = if ask.body.is_null() { call } else { call.json(&ask.body) };
        let answered = tokio::time::timeout(ANSWERED_WITHIN, call.send()).await;
        operation.to = troubles.now();
        if let Ok(Ok(reply)) = answered {
            operation.status = Some(reply.status);
            operation.outcome = Outcome::of(reply.status);
            operation.version = reply.header("etag").and_then(|tag| tag.trim_matches('"').parse().ok());
            operation.position = reply.header("mart-position").map(str::to_owned);
            operation.answer = reply.body;
        }
        self.judge(&operation);
        operation
    }

    fn headers(&self, call: Call, ask: &Ask, key: Option<&str>) -> Call {
        let call = match key {
            Some(key) => call.header("idempotency-key", key),
            None => call,
        };
        let service = if ask.path.starts_with("/v1/products") { "catalog" } else { "orders" };
        match self.positions.get(service).filter(|_| ask.after) {
            Some(position) => call.header("mart-min-position", &format!("{service}:{position}")),
            None => call,
        }
    }

    /// An answer that says only that something broke needs something that broke.
    fn judge(&mut self, operation: &Operation) {
        if let Some((service, position)) = operation.position.as_deref().and_then(|told| told.split_once(':'))
        {
            let known = self.positions.entry(service.to_owned()).or_default();
            *known = (*known).max(position.parse().unwrap_or(0));
        }
        if operation.outcome == Outcome::Unknown && !self.shop.troubles.excuse(operation.from, operation.to) {
            let status = operation.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            self.shop.troubles.complain(format!(
                "{} {} of {} got {status} {} after {:.1} s while nothing was broken",
                operation.method,
                operation.path,
                operation.client,
                operation.answer,
                (operation.to - operation.from).as_secs_f64(),
            ));
        }
    }

    async fn somebody_who_serves(&mut self) -> Option<String> {
        let deadline = tokio::time::Instant::now() + SERVED_WITHIN;
        let first = self.random.random_range(0..self.shop.serving.len().max(1));
        while tokio::time::Instant::now() < deadline {
            let (before, after) = self.shop.serving.split_at(first);
            let served = after.iter().chain(before).find_map(|mart| mart.base());
            if served.is_some() {
                return served;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }
}

fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "POST",
    }
}
