//! Rows that are written by the statement that moves their checkpoints, from what their subscriber remembers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use event_store::event::partition_of;
use event_store::subscription::{
    ApplyError, Delivered, Effects, RowChanges, Subscriber, Subscription, retry_parked,
};
use event_store::{Context, Log, Target, parked};
use serde_json::json;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::account::{AccountCommand, bus, log, new_id};
use crate::following::{PATIENCE, caught_up, subscription};

/// Counts the events of each account, reads a count only if it does not remember it, and forgets an account that is
/// handed over.
struct Counts {
    log: Log,
    remembered: Mutex<HashMap<String, i64>>,
    staged: Mutex<HashMap<String, Option<i64>>>,
    /// How many counts it has read.
    read: AtomicUsize,
}

impl Counts {
    fn of(log: &Log) -> Arc<Self> {
        Arc::new(Self {
            log: log.clone(),
            remembered: Mutex::default(),
            staged: Mutex::default(),
            read: AtomicUsize::new(0),
        })
    }

    async fn counted(&self, batch: &[Delivered]) -> Result<HashMap<String, Option<i64>>, ApplyError> {
        let mut counts: HashMap<String, Option<i64>> = HashMap::new();
        for event in batch {
            let id = &event.aggregate_id;
            let known = counts.get(id).copied().flatten();
            let known = known.or_else(|| self.remembered.lock().expect("whole").get(id).copied());
            let count = match known {
                Some(count) => count,
                None => {
                    self.read.fetch_add(1, Ordering::Relaxed);
                    let count = sqlx::query_scalar("select n from counts where account = $1")
                        .bind(id)
                        .fetch_optional(self.log.database())
                        .await?;
                    count.unwrap_or(0)
                }
            };
            let is_over = event.event_type == "AccountHandedOver";
            counts.insert(id.clone(), (!is_over).then_some(count + 1));
        }
        Ok(counts)
    }
}

fn changes(counts: &HashMap<String, Option<i64>>) -> RowChanges {
    let rows: Vec<_> =
        counts.iter().filter_map(|(account, n)| Some(json!({ "account": account, "n": (*n)? }))).collect();
    let removed = counts.iter().filter(|(_, n)| n.is_none()).map(|(account, _)| account.clone());
    RowChanges {
        upsert: "insert into counts select * from json_populate_recordset(null::counts, $1::json) \
                 on conflict (account) do update set n = excluded.n"
            .to_owned(),
        rows: json!(rows).to_string(),
        delete: "delete from counts where account = any($2)".to_owned(),
        removed: removed.collect(),
    }
}

#[async_trait]
impl Subscriber for Counts {
    async fn prepare(&self, batch: &[Delivered]) -> Result<Effects, ApplyError> {
        let counts = self.counted(batch).await?;
        let changes = changes(&counts);
        *self.staged.lock().expect("whole") = counts;
        Ok(Effects::Changes(changes))
    }

    fn committed(&self) {
        let mut remembered = self.remembered.lock().expect("whole");
        for (account, n) in self.staged.lock().expect("whole").drain() {
            match n {
                Some(n) => remembered.insert(account, n),
                None => remembered.remove(&account),
            };
        }
    }

    fn forget(&self) {
        self.remembered.lock().expect("whole").clear();
        self.staged.lock().expect("whole").clear();
    }

    async fn write(&self, batch: &[Delivered], transaction: &mut PgConnection) -> Result<(), ApplyError> {
        let changes = changes(&self.counted(batch).await?);
        sqlx::query(&changes.upsert).bind(changes.rows).execute(transaction).await?;
        Ok(())
    }
}

/// A log with the table of the counts, none of which may be a forbidden number.
async fn counting(forbidden: i64) -> (embedded::testing::TestDatabase, Log) {
    let (database, log) = log().await;
    let table = format!("create table counts (account text primary key, n bigint check (n <> {forbidden}))");
    sqlx::raw_sql(&table).execute(log.database()).await.expect("a table");
    (database, log)
}

fn follow(log: &Log, counts: &Arc<Counts>, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let subscriber: Arc<dyn Subscriber> = Arc::<Counts>::clone(counts);
    tokio::spawn(Subscription { subscriber, ..subscription(log, None) }.run(stop.clone()))
}

async fn deposit(log: &Log, id: &str) -> i64 {
    let command = AccountCommand::Deposit { amount: 2 };
    let done = bus(log).execute(Target::Existing(id.to_owned()), command, Context::default()).await;
    done.expect("accepted").position
}

async fn count(log: &Log, id: &str) -> Option<i64> {
    let found = sqlx::query_scalar("select n from counts where account = $1").bind(id);
    found.fetch_optional(log.database()).await.expect("answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_its_checkpoint_moved_writes_nothing_and_remembers_nothing() {
    let (_database, log) = counting(0).await;
    let (stop, counts, id) = (CancellationToken::new(), Counts::of(&log), new_id());
    let following = follow(&log, &counts, &stop);
    for _ in 0..3 {
        deposit(&log, &id).await;
        caught_up(&log).await;
    }
    assert_eq!(count(&log, &id).await, Some(3));
    assert_eq!(counts.read.load(Ordering::Relaxed), 1, "only the first count was read");

    // Another owner of the partition has applied the next event, and written what it knows.
    let mut other = log.database().begin().await.expect("begins");
    sqlx::query("update event_store.checkpoints set position = position + 1 where partition = $1")
        .bind(partition_of(&id))
        .execute(&mut *other)
        .await
        .expect("moves");
    sqlx::query("update counts set n = 100").execute(&mut *other).await.expect("writes");
    other.commit().await.expect("commits");

    deposit(&log, &id).await;
    deposit(&log, &id).await;
    caught_up(&log).await;
    assert_eq!(count(&log, &id).await, Some(101), "the fourth event was the other's, the fifth is new");
    stop.cancel();
    following.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_are_removed_and_may_come_again() {
    let (_database, log) = counting(0).await;
    let (stop, counts, id) = (CancellationToken::new(), Counts::of(&log), new_id());
    let following = follow(&log, &counts, &stop);
    deposit(&log, &id).await;
    caught_up(&log).await;
    let handed_over = AccountCommand::HandOver { owner: "Ada".to_owned() };
    let done = bus(&log).execute(Target::Existing(id.clone()), handed_over, Context::default()).await;
    done.expect("accepted");
    caught_up(&log).await;
    assert_eq!(count(&log, &id).await, None);
    deposit(&log, &id).await;
    caught_up(&log).await;
    assert_eq!(count(&log, &id).await, Some(1));
    stop.cancel();
    following.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_parks_its_stream_and_goes_on_from_what_the_retry_wrote() {
    let (_database, log) = counting(2).await;
    let (stop, counts) = (CancellationToken::new(), Counts::of(&log));
    let (refused, other) = (new_id(), new_id());
    let following = follow(&log, &counts, &stop);
    for id in [&refused, &refused, &other, &refused] {
        // Apart, or the forbidden count would be passed over within a batch.
        deposit(&log, id).await;
        caught_up(&log).await;
    }
    assert_eq!((count(&log, &refused).await, count(&log, &other).await), (Some(1), Some(1)));
    assert_eq!(parked::count(log.database(), "balances").await.expect("answers"), 2);

    sqlx::raw_sql("alter table counts drop constraint counts_n_check")
        .execute(log.database())
        .await
        .expect("cured");
    let sources = subscription(&log, None).sources;
    let retried = retry_parked(&log, "balances", &sources, Counts::of(&log).as_ref()).await;
    assert_eq!(retried.expect("answers").applied, 2);
    deposit(&log, &refused).await;
    caught_up(&log).await;
    assert_eq!(count(&log, &refused).await, Some(4));
    stop.cancel();
    following.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_yet_is_waited_for_and_blames_no_event() {
    let (_database, log) = log().await;
    let (stop, counts, id) = (CancellationToken::new(), Counts::of(&log), new_id());
    let following = follow(&log, &counts, &stop);
    deposit(&log, &id).await;
    let tried = async {
        // More often than an event is tried that is to blame, before it is parked.
        while counts.read.load(Ordering::Relaxed) < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.expect("it is tried again");
    assert_eq!(parked::count(log.database(), "balances").await.expect("answers"), 0);

    sqlx::raw_sql("create table counts (account text primary key, n bigint)")
        .execute(log.database())
        .await
        .expect("a table");
    caught_up(&log).await;
    assert_eq!(count(&log, &id).await, Some(1));
    stop.cancel();
    following.await.expect("ends");
}
