//! The aggregate these tests speak of: an account with an owner and a balance.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use embedded::testing::{self, TestDatabase};
use event_store::execute::ClaimChange;
use event_store::{Behaviour, CommandBus, Log};
use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use uuid::Uuid;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) balance: i64,
    pub(crate) owner: Option<String>,
    pub(crate) deposits: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum AccountCommand {
    Open { owner: String },
    HandOver { owner: String },
    Deposit { amount: i64 },
    Withdraw { amount: i64 },
    Keep,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    AccountOpened { owner: Option<serde_json::Value> },
    AccountHandedOver { owner: String },
    MoneyDeposited { amount: i64 },
    MoneyWithdrawn { amount: i64 },
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("the account holds only {balance}")]
    Overdrawn { balance: i64 },
    #[error("the account is open already")]
    AlreadyOpen,
}

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> String {
        match self {
            Self::AccountOpened { .. } => "AccountOpened",
            Self::AccountHandedOver { .. } => "AccountHandedOver",
            Self::MoneyDeposited { .. } => "MoneyDeposited",
            Self::MoneyWithdrawn { .. } => "MoneyWithdrawn",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = AccountError;
    type Services = ();

    async fn handle(
        &mut self,
        command: AccountCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), AccountError> {
        match command {
            AccountCommand::Open { .. } if self.owner.is_some() => return Err(AccountError::AlreadyOpen),
            AccountCommand::Open { owner } => {
                sink.write(AccountEvent::AccountOpened { owner: Some(owner.into()) }, self).await;
            }
            AccountCommand::HandOver { owner } => {
                sink.write(AccountEvent::AccountHandedOver { owner }, self).await;
            }
            AccountCommand::Deposit { amount } => {
                sink.write(AccountEvent::MoneyDeposited { amount }, self).await
            }
            AccountCommand::Withdraw { amount } if amount > self.balance => {
                return Err(AccountError::Overdrawn { balance: self.balance });
            }
            AccountCommand::Withdraw { amount } => {
                sink.write(AccountEvent::MoneyWithdrawn { amount }, self).await
            }
            AccountCommand::Keep => {}
        }
        Ok(())
    }

    fn apply(&mut self, event: AccountEvent) {
        match event {
            AccountEvent::AccountOpened { owner } => {
                self.owner = owner.and_then(|owner| owner.as_str().map(str::to_owned));
            }
            AccountEvent::AccountHandedOver { owner } => self.owner = Some(owner),
            AccountEvent::MoneyDeposited { amount } => {
                self.balance += amount;
                self.deposits += 1;
            }
            AccountEvent::MoneyWithdrawn { amount } => self.balance -= amount,
        }
    }
}

fn owner_claim(name: &str, take: bool) -> ClaimChange {
    ClaimChange { scope: "owner", name: name.to_owned(), take }
}

pub(crate) fn behaviour() -> Behaviour<Account> {
    Behaviour {
        claims: Some(|before, event| match event {
            AccountEvent::AccountOpened { owner: Some(owner) } => {
                vec![owner_claim(owner.as_str().unwrap_or_default(), true)]
            }
            AccountEvent::AccountHandedOver { owner } => vec![
                owner_claim(before.owner.as_deref().unwrap_or_default(), false),
                owner_claim(owner, true),
            ],
            AccountEvent::AccountOpened { owner: None }
            | AccountEvent::MoneyDeposited { .. }
            | AccountEvent::MoneyWithdrawn { .. } => vec![],
        }),
        personal_fields: |event_type| if event_type == "AccountOpened" { &["owner"] } else { &[] },
        person_of: |id, _| Uuid::parse_str(id).ok(),
        person_of_state: |id, _| Uuid::parse_str(id).ok(),
        ..Behaviour::default()
    }
}

/// A migrated log in a database of its own.
pub(crate) async fn log() -> (TestDatabase, Log) {
    let database = testing::database("engine").await;
    let log = open(&database).await;
    (database, log)
}

/// Another process's view of the same log.
pub(crate) async fn open(database: &TestDatabase) -> Log {
    let log = Log::open("accounts", &database.url, [7; 32]).expect("the URL is good");
    log.migrate().await.expect("the migrations apply");
    log
}

/// The same, of a log that is open.
pub(crate) fn apart(log: &Log) -> Log {
    let url = log.connect_options().to_url_lossy();
    Log::open(log.source(), url.as_str(), [7; 32]).expect("the URL is good")
}

pub(crate) fn bus(log: &Log) -> CommandBus<Account> {
    CommandBus::new(log.clone(), (), behaviour(), 1_000)
}

pub(crate) fn new_id() -> String {
    Uuid::now_v7().to_string()
}
