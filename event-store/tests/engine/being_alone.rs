//! A process that has a database to itself, until others come.

use std::time::Duration;

use embedded::testing::TestDatabase;
use event_store::{Context, ExecuteError, Log, Target, feed};
use sqlx::postgres::PgListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::account::{AccountCommand, bus, log, new_id, open};
use crate::following::{PATIENCE, caught_up, subscription, tables};

/// Far longer than a notification takes.
const SILENCE: Duration = Duration::from_millis(500);
/// Somewhat longer than a process listens before it may believe that it is alone.
const BELIEVED_BY: Duration = Duration::from_secs(4);

/// What is notified on a channel.
struct Told(PgListener);

impl Told {
    async fn on(database: &TestDatabase, channel: &str) -> Self {
        let mut listener = PgListener::connect(&database.url).await.expect("connects");
        listener.listen(channel).await.expect("listens");
        Self(listener)
    }

    async fn next(&mut self) -> String {
        let told = timeout(PATIENCE, self.0.recv()).await.expect("somebody tells").expect("connected");
        told.payload().to_owned()
    }

    async fn head(&mut self) -> i64 {
        self.next().await.parse().expect("a position")
    }

    /// Listens until nothing more comes; says whether anything did.
    async fn is_silent(&mut self) -> bool {
        let mut is_silent = true;
        while timeout(SILENCE, self.0.recv()).await.is_ok() {
            is_silent = false;
        }
        is_silent
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_what_a_process_writes_until_another_one_comes() {
    let (database, log) = log().await;
    tables(&log).await;
    let mut heads = Told::on(&database, "mart_log").await;
    let mut progress = Told::on(&database, "mart_progress").await;
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&log, None).run(stop.clone()));
    let begun = Instant::now();
    let mut unheard = 0;
    while unheard < 3 {
        deposit_by(&log).await;
        let is_silent = [heads.is_silent().await, progress.is_silent().await];
        unheard = if is_silent == [true, true] { unheard + 1 } else { 0 };
        assert!(begun.elapsed() < PATIENCE, "it does not find out that it is alone");
    }
    caught_up(&log).await;

    let another = open(&database).await;
    let head = feed::head(log.database()).await.expect("a head");
    assert_eq!(heads.head().await, head, "what was written before is told");
    deposit_by(&log).await;
    assert_eq!(heads.head().await, head + 1);
    assert!(progress.next().await.starts_with("balances accounts "));
    deposit_by(&another).await;
    assert_eq!(heads.head().await, head + 2);

    // Those who are there know each other; a third knows nobody.
    let third = open(&database).await;
    let come = Instant::now();
    let mut head = head + 2;
    while come.elapsed() < BELIEVED_BY {
        deposit_by(&third).await;
        head += 1;
        assert_eq!(heads.head().await, head, "after {:?} it believes that it is alone", come.elapsed());
    }
    stop.cancel();
    follower.await.expect("the subscription ends");
}

async fn deposit_by(log: &Log) {
    let command = AccountCommand::Deposit { amount: 2 };
    bus(log).execute(Target::Existing(new_id()), command, Context::default()).await.expect("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_left_is_current_until_another_process_comes() {
    let (database, log) = log().await;
    let (bus, id, other_id) = (bus(&log), new_id(), new_id());
    let deposit = |id: &str| {
        let (bus, target) = (bus.clone(), Target::Existing(id.to_owned()));
        async move {
            let deposit = AccountCommand::Deposit { amount: 2 };
            bus.execute(target, deposit, Context::default()).await.expect("accepted");
        }
    };
    deposit(&id).await;
    let begun = Instant::now();
    while !log.signal().is_alone() {
        assert!(begun.elapsed() < PATIENCE, "it does not find out that it is alone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bus.current(&id), None, "others may have been there since");
    deposit(&id).await;
    let known = |id: &str| bus.current(id).map(|known| (known.version, known.position()));
    assert_eq!(known(&id), Some((2, Some(2))));

    // What was only read may have been overtaken by an append that is on its way.
    let first = AccountCommand::Deposit { amount: 2 };
    let target = Target::Existing(other_id.clone());
    crate::account::bus(&log).execute(target, first, Context::default()).await.expect("accepted");
    let refuse = || async {
        let (target, too_much) =
            (Target::Existing(other_id.clone()), AccountCommand::Withdraw { amount: 50 });
        let refused = bus.execute(target, too_much, Context::default()).await;
        assert!(matches!(refused, Err(ExecuteError::Refused(_))), "{refused:?}");
    };
    refuse().await;
    assert_eq!(known(&other_id), None, "it was decided on what was just read");
    assert_eq!(bus.load(&other_id).await.expect("loads").version, 1);
    assert_eq!(known(&other_id), None);
    refuse().await;
    assert_eq!(known(&other_id), None, "nothing was appended that would keep another append out");
    deposit(&other_id).await;
    assert_eq!(known(&other_id), Some((2, Some(4))));

    let another = open(&database).await;
    let come = Instant::now();
    while bus.current(&id).is_some() {
        assert!(come.elapsed() < PATIENCE, "it does not hear the other");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(another);
}
