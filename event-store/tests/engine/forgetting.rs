//! What a process has in memory counts as long as the log holds what it was made from.

use std::time::Duration;

use embedded::testing::TestDatabase;
use event_store::event::partition_of;
use event_store::{CommandBus, Context, Log, Target};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::account::{Account, AccountCommand, apart, bus, log, new_id, open};
use crate::failing::until;
use crate::following::{balances, caught_up, subscription, tables};

async fn deposit(bus: &CommandBus<Account>, id: &str, amount: i64, times: usize) {
    for _ in 0..times {
        bus.execute(Target::Existing(id.to_owned()), AccountCommand::Deposit { amount }, Context::default())
            .await
            .expect("accepted");
    }
}

/// Does what restoring a backup of when there were two events does, and `more`.
async fn take_back(log: &Log, more: &str) {
    let statements = format!(
        "begin; alter table event_store.events disable trigger events_are_only_added; \
         delete from event_store.events where position > 2; \
         alter table event_store.events enable trigger events_are_only_added; {more} commit"
    );
    sqlx::raw_sql(&statements).execute(log.database()).await.expect("taken back");
}

/// A log with an account of five deposits in memory, taken back to where there were two.
async fn taken_back() -> (TestDatabase, Log, CommandBus<Account>, String) {
    let (database, log) = log().await;
    let (bus, id) = (bus(&log), new_id());
    deposit(&bus, &id, 10, 5).await;
    take_back(&log, "").await;
    (database, log, bus, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_after_the_log_lost_its_tail_is_decided_on_what_is_left() {
    let (_database, log, bus, id) = taken_back().await;
    let context = Context { with_state: true, ..Context::default() };
    let committed = bus
        .execute(Target::Existing(id.clone()), AccountCommand::Deposit { amount: 1 }, context)
        .await
        .expect("accepted");
    assert_eq!((committed.sequence, committed.position), (3, 3));
    assert_eq!(committed.aggregate.map(|account| account.balance), Some(21));
    deposit(&bus, &id, 1, 1).await;
    let sequences: Vec<i64> =
        sqlx::query_scalar("select sequence from event_store.events order by position limit 100")
            .fetch_all(log.database())
            .await
            .expect("listed");
    assert_eq!(sequences, [1, 2, 3, 4], "the stream has no hole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_another_process_has_written_anew_is_noticed() {
    let (database, _log, bus, id) = taken_back().await;
    let other = crate::account::bus(&open(&database).await);
    // The version is again the one that is in memory here, and the balance is not.
    deposit(&other, &id, 100, 3).await;
    let context = Context { with_state: true, ..Context::default() };
    let committed = bus
        .execute(Target::Existing(id), AccountCommand::Withdraw { amount: 300 }, context)
        .await
        .expect("there is enough");
    assert_eq!((committed.sequence, committed.aggregate.map(|account| account.balance)), (6, Some(20)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_is_what_the_log_has_whatever_is_remembered() {
    let (database, log, bus, id) = taken_back().await;
    let balance = async |bus: &CommandBus<Account>| {
        let loaded = bus.load(&id).await.expect("loaded");
        (loaded.version, loaded.aggregate.balance)
    };
    assert_eq!(balance(&bus).await, (2, 20));
    let other = crate::account::bus(&open(&database).await);
    deposit(&other, &id, 100, 3).await;
    assert_eq!(balance(&bus).await, (5, 320), "what others wrote since");
    take_back(&log, "").await;
    let third = crate::account::bus(&open(&database).await);
    deposit(&third, &id, 7, 3).await;
    assert_eq!(balance(&bus).await, (5, 41), "another event stands where the last one stood");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_fails_its_aggregate_and_no_other() {
    let (_database, log) = log().await;
    let writing = bus(&log);
    let ids: Vec<String> = (0..20).map(|_| new_id()).collect();
    for id in &ids {
        deposit(&writing, id, 1, 1).await;
    }
    sqlx::query(
        "insert into event_store.events \
         (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata) \
         values ('account', $1, 2, 'MoneyDeposited', '1.0', '{\"MoneyDeposited\":{\"amount\":1}}', '{\"person\":5}')",
    )
    .bind(&ids[10])
    .execute(log.database())
    .await
    .expect("written");
    let reading = bus(&log);
    let loaded = join_all(ids.iter().map(|id| reading.load(id))).await;
    for (index, loaded) in loaded.into_iter().enumerate() {
        if index == 10 {
            let error = loaded.expect_err("it cannot be read").to_string();
            assert!(error.contains("metadata at position 21"), "{error}");
        } else {
            assert_eq!(loaded.expect("it can be read").version, 1);
        }
    }
}

/// Waits until a subscription has added up this much for an account.
async fn balance_becomes(log: &Log, id: &str, wanted: i64) {
    until("the subscription comes so far", async || balances(log).await.get(id) == Some(&wanted)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_follows_what_is_written_where_the_log_lost_its_tail() {
    let (_database, log) = log().await;
    tables(&log).await;
    let (bus, id) = (bus(&log), new_id());
    deposit(&bus, &id, 10, 5).await;
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&log, None).run(stop.clone()));
    caught_up(&log).await;
    // A backup of when there were two deposits is restored, with the checkpoint and the rows of then.
    take_back(
        &log,
        "update event_store.checkpoints set position = 2; update balances set amount = 20, trail = '{1,2}';",
    )
    .await;
    deposit(&bus, &id, 1, 3).await;
    balance_becomes(&log, &id, 23).await;
    stop.cancel();
    follower.await.expect("the subscription ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_ahead_of_its_log_waits_until_both_fit() {
    let (_database, log) = log().await;
    tables(&log).await;
    let (bus, id) = (bus(&log), new_id());
    deposit(&bus, &id, 10, 2).await;
    let point = "insert into event_store.checkpoints values ('balances', $1, $2, $3) \
                 on conflict (subscription, source, partition) do update set position = $3";
    let points_to = async |position: i64| {
        let partition = partition_of(&id);
        let statement = sqlx::query(point).bind(log.source()).bind(partition).bind(position);
        statement.execute(log.database()).await.expect("written");
    };
    points_to(4).await;
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&apart(&log), None).run(stop.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // These are not those that it has dealt with.
    deposit(&bus, &id, 10, 1).await;
    points_to(0).await;
    balance_becomes(&log, &id, 30).await;
    stop.cancel();
    follower.await.expect("the subscription ends");
}

#[tokio::test]
async fn what_has_happened_is_not_changed_by_hand() {
    let (_database, log) = log().await;
    deposit(&bus(&log), &new_id(), 10, 1).await;
    for statement in [
        "update event_store.events set payload = '{}'",
        "delete from event_store.events",
        "truncate event_store.events",
    ] {
        let refused = sqlx::query(statement).execute(log.database()).await.expect_err(statement);
        assert!(refused.to_string().contains("events are only ever added"), "{refused}");
    }
}
