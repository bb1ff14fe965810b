//! A mart that is used for one journey after the other, and started again whenever it has died.

use std::time::Duration;

use features::client::Call;
use features::mart::Setup;
use features::shop::{self, Person, customer};
use features::{Client, Reply, TestMart, eventually};
use serde_json::Value;

use crate::places::Place;

/// How long anything may take on a busy machine: a message that a dead process had in hand is taken up again after
/// 10 s.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// A mart, its customer, and what this customer must have got by mail.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) mart: TestMart,
    ann: Person,
    mails: Vec<&'static str>,
}

impl Lane {
    pub(crate) async fn start() -> Self {
        let mart = Setup::new().await.with_failpoints().start().await;
        let ann = customer(&mart).await;
        Self { mart, ann, mails: vec!["registration"] }
    }

    /// The customer, at the mart as it runs now.
    pub(crate) fn customer(&self) -> Client {
        self.mart.client().with_token(self.ann.token().unwrap_or_default())
    }

    /// The name of a place's failpoint in this mart.
    pub(crate) async fn point(&self, place: &Place) -> String {
        let Some(of) = place.point.strip_suffix('@') else { return place.point.clone() };
        let model = of.rsplit('/').next().unwrap_or_default();
        for service in ["orders", "inventory"] {
            let mut connection = self.mart.databases().connect(service).await;
            let live = "select version from event_store.read_models where name = $1 and status = 'live'";
            let version: Option<String> = sqlx::query_scalar(live)
                .bind(model)
                .fetch_optional(&mut connection)
                .await
                .expect("the database answers");
            if let Some(version) = version {
                return format!("{of}@{version}");
            }
        }
        panic!("there is no read model {model}")
    }

    /// Asks until there is an answer, whatever becomes of the mart meanwhile. Every request here is one that may
    /// be sent again.
    pub(crate) async fn ask(&mut self, call: impl Fn(&Client) -> Call) -> Reply {
        eventually(WITHIN, async || {
            let told = match call(&self.customer()).send().await {
                Ok(reply) if reply.status < 500 => return Ok(reply),
                Ok(reply) => reply.to_string(),
                Err(error) => error.to_string(),
            };
            self.mart.revive().await;
            Err(told)
        })
        .await
    }

    /// Looks until `look` is content with the answer; whatever it says instead is told at last.
    pub(crate) async fn until<T>(&mut self, path: &str, look: impl Fn(&Reply) -> Option<T>) -> T {
        eventually(WITHIN, async || {
            let reply = self.ask(|client| client.get(path)).await;
            look(&reply).ok_or_else(|| reply.to_string())
        })
        .await
    }

    /// Waits until an order has a status, and its payment one.
    pub(crate) async fn order_reads(&mut self, id: &str, status: &str, payment: &str) -> Value {
        self.until(&format!("/v1/orders/{id}"), |reply| {
            let order = &reply.body;
            let is_so = order["order_status"] == status && order["payment_status"] == payment;
            is_so.then(|| order.clone())
        })
        .await
    }

    /// One number out of a service's log: how many events of a type an aggregate has.
    pub(crate) async fn events(&self, service: &str, aggregate: &str, event: &str) -> i64 {
        let count = format!(
            "select count(*) from event_store.events where aggregate_id = '{aggregate}' and event_type = '{event}'"
        );
        self.mart.databases().number(service, &count).await
    }

    /// Exactly these further mails arrive, each once, and the mailboxes have no more.
    pub(crate) async fn mails_arrive(&mut self, further: &[&'static str]) {
        self.mails.extend(further);
        self.mails.sort_unstable();
        let mails = self.mails.clone();
        eventually(WITHIN, async || {
            let rows = self.customer().all("/v1/notifications").await;
            let mut sent: Vec<&str> = rows
                .iter()
                .filter(|row| row["status"] == "sent" && row["channel"] == "email")
                .filter_map(|row| row["template"].as_str())
                .collect();
            sent.sort_unstable();
            if sent == mails { Ok(()) } else { Err(format!("mails were {sent:?}")) }
        })
        .await;
        let folder = std::fs::read_dir(self.mart.setup().data_dir().join("mail")).expect("mail was written");
        let mailboxes = folder.map(|entry| entry.expect("the folder can be read").path());
        let mailboxes = mailboxes.map(|path| std::fs::read_to_string(path).expect("a mailbox can be read"));
        let written: usize = mailboxes.map(|mailbox| mailbox.matches("\nMessage-ID: <").count()).sum();
        // The demo's people and orders get theirs too, before the customer does.
        let sent = "select count(*) from event_store.events where event_type = 'NotificationSent'";
        let sent = self.mart.databases().number("notifications", sent).await;
        assert_eq!(i64::try_from(written).ok(), Some(sent), "a mail was written twice, or not at all");
    }

    /// Everything that was built live equals what is built anew.
    pub(crate) async fn end(mut self) {
        let verified = self.mart.run(&["verify"]).await;
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        let parked = self.mart.run(&["parked", "list"]).await;
        assert!(parked.status.success(), "{}", String::from_utf8_lossy(&parked.stderr));
        self.mart.stop().await;
    }

    /// A product that only one journey is about.
    pub(crate) async fn product(&self, pieces: u32) -> String {
        shop::product(&self.mart, "2.00", pieces).await
    }
}
