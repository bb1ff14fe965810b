//! What clients asked for and were told: every operation twice, when it is invoked and when it ended, in a file
//! of JSON lines; and all of them in memory, for the checks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Register,
    LogIn,
    AddToCart,
    ChangeCart,
    RemoveFromCart,
    CheckOut,
    PlaceOrder,
    EditOrder,
    Pay,
    Cancel,
    ListProduct,
    Reprice,
    Restock,
    Reduce,
    Ship,
    Deliver,
    Read,
}

impl Kind {
    /// Whether it changes nothing that must be remembered: it is not asked for again.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::LogIn | Self::Read)
    }

    /// Whether it always writes an event when it is done.
    pub fn always_writes(self) -> bool {
        matches!(
            self,
            Self::Register
                | Self::AddToCart
                | Self::CheckOut
                | Self::PlaceOrder
                | Self::Pay
                | Self::ListProduct
                | Self::Restock
                | Self::Reduce
        )
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
    /// Nobody knows: no answer came, or one that only says that something broke.
    Unknown,
}

impl Outcome {
    /// What a status means.
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Done,
            // Too early, too many, and a request that took too long say nothing of what was done.
            408 | 425 | 429 => Self::Unknown,
            400..=499 => Self::Refused,
            _ => Self::Unknown,
        }
    }
}

/// An operation.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Who asked.
    pub client: String,
    /// For what.
    pub kind: Kind,
    /// With which method.
    pub method: &'static str,
    /// On which path.
    pub path: String,
    /// Under which key.
    pub key: Option<String>,
    /// As which user; nobody's id for nobody.
    pub user: Option<Uuid>,
    /// With what.
    pub body: Value,
    /// When it began.
    pub from: Duration,
    /// When it ended.
    pub to: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The status, when there was one.
    pub status: Option<u16>,
    /// What was answered.
    pub answer: Value,
    /// The version that was told.
    pub version: Option<i64>,
    /// The position that was told, such as `orders:17`.
    pub position: Option<String>,
}

impl Operation {
    /// The id that the mart gives to the command of a request with a key.
    pub fn command_id(&self) -> Option<Uuid> {
        let principal = self.user.map_or_else(|| "anonymous".to_owned(), |user| user.to_string());
        let path = self.path.split('?').next().unwrap_or_default();
        let name = format!("{principal}\n{} {path}\n{}", self.method, self.key.as_deref()?);
        Some(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()))
    }
}

/// The history of a run.
#[derive(Debug)]
pub struct History {
    file: Mutex<BufWriter<File>>,
    operations: Mutex<Vec<Operation>>,
}

impl History {
    /// Begins one, in a file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self { file: Mutex::new(BufWriter::new(file)), operations: Mutex::default() })
    }

    /// Writes down that an operation begins.
    pub fn invoked(&self, operation: &Operation) {
        let mut body = operation.body.clone();
        // Passwords and cards are in no file, not even those of tests.
        for secret in ["password", "card"] {
            if let Some(value) = body.get_mut(secret) {
                *value = json!("[hidden]");
            }
        }
        self.write(&json!({
            "at_ms": operation.from.as_millis(), "phase": "invoked", "client": operation.client,
            "kind": operation.kind, "method": operation.method, "path": operation.path,
            "key": operation.key, "command_id": operation.command_id(), "body": body,
        }));
    }

    /// Writes down how it ended.
    pub fn ended(&self, operation: Operation) {
        self.tell(&operation);
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Writes down what an operation, by its place in the history, turned out to be.
    pub fn resolved(&self, place: usize, told: Operation) {
        self.tell(&told);
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(operation) = operations.get_mut(place) {
            *operation = Operation { from: operation.from, ..told };
        }
    }

    /// All operations so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many ended how.
    pub fn counts(&self) -> BTreeMap<Kind, BTreeMap<Outcome, usize>> {
        let operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.iter().fold(BTreeMap::new(), |mut counts, operation| {
            let of_kind: &mut BTreeMap<Outcome, usize> = counts.entry(operation.kind).or_default();
            *of_kind.entry(operation.outcome).or_default() += 1;
            counts
        })
    }

    fn tell(&self, operation: &Operation) {
        self.write(&json!({
            "at_ms": operation.to.as_millis(), "phase": operation.outcome, "client": operation.client,
            "kind": operation.kind, "key": operation.key, "status": operation.status,
            "version": operation.version, "position": operation.position,
            "answer": brief(&operation.answer),
        }));
    }

    fn write(&self, line: &Value) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A disk that is full loses lines of a report, and no check.
        let _ = writeln!(file, "{line}").and_then(|()| file.flush());
    }
}

/// What is worth reading of an answer.
fn brief(answer: &Value) -> Value {
    let kept = ["id", "code", "detail", "order_id", "status", "order_status", "payment_status", "errors"];
    let fields = answer.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| kept.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
