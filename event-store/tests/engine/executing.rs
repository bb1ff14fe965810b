//! The command bus: durable, dense, in order, idempotent.

use std::sync::Arc;
use std::time::Duration;

use embedded::postgres::database_url;
use event_store::append::CommandKey;
use event_store::{CommandBus, Context, ExecuteError, Target, feed};
use futures::future::{join, join_all};
use sqlx::{Connection, Executor, PgConnection, Row};
use uuid::Uuid;

use crate::account::{Account, AccountCommand, AccountError, bus, log, new_id, open};

fn key(command_id: Uuid, fingerprint: u8) -> CommandKey {
    CommandKey { command_id, principal: "tester".to_owned(), fingerprint: vec![fingerprint], derived: false }
}

fn with_key(key: CommandKey) -> Context<Account> {
    Context { key: Some(key), ..Context::default() }
}

pub(crate) async fn assert_dense(log: &event_store::Log) {
    let events = feed::read(log.database(), log.source(), 0, 1_000_000).await.expect("the log has no hole");
    let mut versions = std::collections::HashMap::new();
    for event in events {
        let version = versions.entry(event.aggregate_id.clone()).or_insert(0);
        *version += 1;
        assert_eq!(event.sequence, *version, "sequence of {}", event.aggregate_id);
        assert_eq!(event.partition, event_store::event::partition_of(&event.aggregate_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_command_is_in_the_log_and_a_refused_one_leaves_nothing() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    let opened = bus
        .execute(
            Target::New(id.clone()),
            AccountCommand::Open { owner: "ann".to_owned() },
            Context { with_state: true, ..Context::default() },
        )
        .await
        .expect("accepted");
    assert_eq!((opened.sequence, opened.position), (1, 1));
    assert_eq!(opened.aggregate.and_then(|account| account.owner), Some("ann".to_owned()));

    let refused = bus
        .execute(Target::Existing(id.clone()), AccountCommand::Withdraw { amount: 1 }, Context::default())
        .await;
    assert!(matches!(refused, Err(ExecuteError::Refused(AccountError::Overdrawn { balance: 0 }))));
    assert_eq!(feed::head(log.database()).await.expect("a head"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_on_one_aggregate_are_all_decided_in_order() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    bus.execute(Target::New(id.clone()), AccountCommand::Deposit { amount: 100 }, Context::default())
        .await
        .expect("accepted");
    let withdrawals = (0..300).map(|_| {
        bus.execute(Target::Existing(id.clone()), AccountCommand::Withdraw { amount: 1 }, Context::default())
    });
    let results = join_all(withdrawals).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    assert_eq!(bus.load(&id).await.expect("loads").aggregate.balance, 0);
    assert_dense(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_behind_a_caller_that_goes_away_is_served() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    let deposit = || {
        let command = AccountCommand::Deposit { amount: 1 };
        Box::pin(bus.execute(Target::Existing(id.clone()), command, Context::default()))
    };
    let (mut leaving, mut waiting) = (deposit(), deposit());
    assert!(futures::poll!(&mut leaving).is_pending(), "it waits for the database");
    assert!(futures::poll!(&mut waiting).is_pending(), "it waits for its turn");
    drop(leaving);
    let served = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("its turn comes");
    let version = served.expect("accepted").sequence;
    assert!((1..=2).contains(&version), "{version}: the one that left was carried out or not");
    // The aggregate is free again.
    assert_eq!(deposit().await.expect("accepted").sequence, version + 1);
    assert_dense(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_copies_of_a_command_happen_once() {
    let (database, first_log) = log().await;
    let second_log = open(&database).await;
    let buses = [bus(&first_log), bus(&second_log)];
    let id = new_id();
    buses[0]
        .execute(Target::New(id.clone()), AccountCommand::Deposit { amount: 1 }, Context::default())
        .await
        .expect("accepted");
    let command_id = Uuid::now_v7();
    let copies = (0..20).map(|copy| {
        buses[copy % 2].execute(
            Target::Existing(id.clone()),
            AccountCommand::Deposit { amount: 10 },
            with_key(key(command_id, 1)),
        )
    });
    let results = join_all(copies).await;
    let mut first = 0;
    for result in results {
        let committed = result.expect("all copies succeed");
        assert_eq!((committed.sequence, committed.position), (2, 2));
        first += usize::from(committed.replayed.is_none());
    }
    assert_eq!(first, 1);
    assert_eq!(buses[0].load(&id).await.expect("loads").aggregate.balance, 11);

    let reused = buses[0]
        .execute(Target::Existing(id), AccountCommand::Deposit { amount: 10 }, with_key(key(command_id, 2)))
        .await;
    assert!(matches!(reused, Err(ExecuteError::KeyReused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_creation_finds_the_first_aggregate() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let command_id = Uuid::now_v7();
    let copies = (0..20).map(|_| {
        bus.execute(
            Target::New(new_id()),
            AccountCommand::Open { owner: "bob".to_owned() },
            with_key(key(command_id, 1)),
        )
    });
    let mut ids: Vec<String> =
        join_all(copies).await.into_iter().map(|result| result.expect("all succeed").aggregate_id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(feed::head(log.database()).await.expect("a head"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_keeps_its_answer_for_copies() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    let command_id = Uuid::now_v7();
    let context = || Context {
        answer: Some(std::sync::Arc::new(|decision: &event_store::execute::Decision<'_, Account>| {
            match decision {
                event_store::execute::Decision::Refused(refusal) => {
                    Some(serde_json::json!(refusal.to_string()).to_string())
                }
                event_store::execute::Decision::Accepted { .. } => None,
            }
        })),
        ..with_key(key(command_id, 1))
    };
    let withdraw = AccountCommand::Withdraw { amount: 1 };
    let refused = bus.execute(Target::Existing(id.clone()), withdraw.clone(), context()).await;
    assert!(matches!(refused, Err(ExecuteError::Refused(AccountError::Overdrawn { .. }))));
    bus.execute(Target::Existing(id.clone()), AccountCommand::Deposit { amount: 5 }, Context::default())
        .await
        .expect("accepted");
    let copy =
        bus.execute(Target::Existing(id.clone()), withdraw, context()).await.expect("a replay is no refusal");
    let first = copy.replayed.expect("known");
    assert!(first.refused);
    assert_eq!(first.answer.as_deref(), Some("\"the account holds only 0\""));
    assert_eq!(bus.load(&id).await.expect("loads").aggregate.balance, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_has_one_owner_and_a_bad_command_never_spoils_the_batch() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let commands = (0..200).map(|n| {
        let owner = if n % 2 == 0 { format!("owner {n}") } else { "the same".to_owned() };
        bus.execute(Target::New(new_id()), AccountCommand::Open { owner }, Context::default())
    });
    let results = join_all(commands).await;
    let opened = results.iter().filter(|result| result.is_ok()).count();
    let taken = results
        .iter()
        .filter(|r| matches!(r, Err(ExecuteError::ClaimTaken { scope }) if scope == "owner"))
        .count();
    assert_eq!((opened, taken), (101, 99));
    assert_dense(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_version_that_moved_on_is_told_and_of_parallel_writers_one_wins() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    bus.execute(Target::New(id.clone()), AccountCommand::Deposit { amount: 1 }, Context::default())
        .await
        .expect("accepted");
    let writers = (0..10).map(|_| {
        bus.execute(
            Target::Existing(id.clone()),
            AccountCommand::Deposit { amount: 1 },
            Context { expected: Some(1), ..Context::default() },
        )
    });
    let results = join_all(writers).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    let late = results
        .iter()
        .filter(|result| matches!(result, Err(ExecuteError::VersionMismatch { current: 2 })))
        .count();
    assert_eq!((won, late), (1, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_its_tail_equal_the_full_replay() {
    let (database, log) = log().await;
    let writer = bus(&log);
    let id = new_id();
    writer
        .execute(
            Target::New(id.clone()),
            AccountCommand::Open { owner: "cleo".to_owned() },
            Context::default(),
        )
        .await
        .expect("accepted");
    for _ in 0..250 {
        writer
            .execute(Target::Existing(id.clone()), AccountCommand::Deposit { amount: 3 }, Context::default())
            .await
            .expect("accepted");
    }
    let stored = loop {
        let row = sqlx::query("select last_sequence, payload::text as payload from event_store.snapshots")
            .fetch_optional(log.database())
            .await
            .expect("readable");
        match row {
            Some(row) => break row,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(stored.get::<i64, _>("last_sequence") >= 100);
    assert!(
        !stored.get::<String, _>("payload").contains("cleo"),
        "a snapshot holds no personal data in clear"
    );
    let from_snapshot = bus(&open(&database).await).load(&id).await.expect("loads");
    assert!(from_snapshot.snapshot > 0);
    sqlx::query("delete from event_store.snapshots").execute(log.database()).await.expect("deleted");
    let replayed = bus(&open(&database).await).load(&id).await.expect("loads");
    assert_eq!((replayed.aggregate, replayed.version), (from_snapshot.aggregate, from_snapshot.version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_effect_holds_writes_nothing() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let kept = bus
        .execute(Target::Existing(new_id()), AccountCommand::Keep, Context::default())
        .await
        .expect("accepted");
    assert_eq!((kept.sequence, kept.position), (0, 0));
    assert_eq!(feed::head(log.database()).await.expect("a head"), 0);
}

// On one thread all of these are queued before the first is decided.
#[tokio::test]
async fn a_copy_of_a_command_for_a_version_finds_its_first_copy_although_that_moved_the_version() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    bus.execute(Target::New(id.clone()), AccountCommand::Deposit { amount: 1 }, Context::default())
        .await
        .expect("accepted");
    let command_id = Uuid::now_v7();
    let copies = (0..10).map(|_| {
        let context = Context { expected: Some(1), ..with_key(key(command_id, 1)) };
        bus.execute(Target::Existing(id.clone()), AccountCommand::Deposit { amount: 1 }, context)
    });
    for result in join_all(copies).await {
        assert_eq!(result.expect("the same answer for all").sequence, 2);
    }
}

// On one thread all of these are queued before the first is decided: they leave as one group.
#[tokio::test]
async fn a_command_behind_two_copies_of_a_refused_one_is_carried_out_once() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    let command_id = Uuid::now_v7();
    let copy = || {
        let context =
            Context { answer: Some(Arc::new(|_| Some("{}".to_owned()))), ..with_key(key(command_id, 1)) };
        bus.execute(Target::Existing(id.clone()), AccountCommand::Withdraw { amount: 5 }, context)
    };
    let behind =
        bus.execute(Target::Existing(id.clone()), AccountCommand::Deposit { amount: 1 }, Context::default());
    let (copies, behind) = join(join_all([copy(), copy()]), behind).await;
    assert!(matches!(copies[0], Err(ExecuteError::Refused(AccountError::Overdrawn { balance: 0 }))));
    let second = copies[1].as_ref().expect("what the first copy left");
    assert!(second.replayed.as_ref().is_some_and(|first| first.refused));
    assert_eq!(behind.expect("accepted").sequence, 1);
    assert_eq!(bus.load(&id).await.expect("loads").aggregate.deposits, 1);
    assert_dense(&log).await;
}

#[tokio::test]
async fn a_name_taken_and_given_up_by_commands_of_one_group_is_free() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    let open = |owner: &str| AccountCommand::Open { owner: owner.to_owned() };
    bus.execute(Target::New(id.clone()), open("ann"), Context::default()).await.expect("accepted");
    let hand_over = |owner: &str| {
        let command = AccountCommand::HandOver { owner: owner.to_owned() };
        bus.execute(Target::Existing(id.clone()), command, Context::default())
    };
    let results = join_all([hand_over("ben"), hand_over("cleo"), hand_over("ben"), hand_over("dora")]).await;
    let versions: Vec<i64> = results.into_iter().map(|result| result.expect("accepted").sequence).collect();
    assert_eq!(versions, [2, 3, 4, 5]);
    for owner in ["ann", "ben", "cleo"] {
        let opened = bus.execute(Target::New(new_id()), open(owner), Context::default()).await;
        opened.unwrap_or_else(|error| panic!("{owner} owns nothing: {error}"));
    }
    let dora = bus.execute(Target::New(new_id()), open("dora"), Context::default()).await;
    assert!(matches!(dora, Err(ExecuteError::ClaimTaken { .. })));
}

/// A command that was given after another is never carried out before it: who gave both will give both again.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_command_that_the_database_failed_fails_with_it() {
    let (database, log) = log().await;
    let (bus, id) = (bus(&log), new_id());
    let deposit = |amount| {
        bus.execute(Target::Existing(id.clone()), AccountCommand::Deposit { amount }, Context::default())
    };
    deposit(1).await.expect("accepted");
    let mut holder = PgConnection::connect(&database.url).await.expect("connected");
    holder.execute("select pg_advisory_lock(event_store.log_lock())").await.expect("locked");
    let mut first = Box::pin(deposit(2));
    let mut second = Box::pin(deposit(4));
    assert!(futures::poll!(&mut first).is_pending(), "it waits for the log");
    assert!(futures::poll!(&mut second).is_pending(), "it waits for the first");

    let mut server =
        PgConnection::connect(&database_url(&database.url, "postgres")).await.expect("connected");
    let closed = format!(
        "alter database \"{0}\" with allow_connections false; \
         select pg_terminate_backend(pid) from pg_stat_activity where datname = '{0}'",
        database.name
    );
    server.execute(closed.as_str()).await.expect("closed");
    let failed = first.await;
    assert!(matches!(failed, Err(ExecuteError::Engine(_))), "{failed:?}");
    let opened = format!("alter database \"{}\" with allow_connections true", database.name);
    server.execute(opened.as_str()).await.expect("opened");
    let behind = second.await;
    assert!(matches!(behind, Err(ExecuteError::Engine(_))), "{behind:?}");

    for amount in [2, 4] {
        deposit(amount).await.expect("accepted");
    }
    assert_eq!(bus.load(&id).await.expect("loaded").aggregate.balance, 7);
    // Not over the pool, some of whose connections are those that were closed.
    assert_dense(&open(&database).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_again_for_what_is_thought_to_be_new_is_known_by_its_id() {
    let (database, log) = log().await;
    let (id, command_id) = (new_id(), Uuid::now_v7());
    let given = async |bus: &CommandBus<Account>| {
        let deposit = AccountCommand::Deposit { amount: 7 };
        let done = bus.execute(Target::New(id.clone()), deposit, with_key(key(command_id, 1))).await;
        let done = done.expect("accepted");
        (done.sequence, done.replayed.is_some())
    };
    assert_eq!(given(&bus(&log)).await, (1, false));
    // A process that has nothing of it in memory.
    let again = open(&database).await;
    assert_eq!(given(&bus(&again)).await, (1, true));
    sqlx::query("delete from event_store.commands").execute(log.database()).await.expect("purged");
    let later = open(&database).await;
    assert_eq!(given(&bus(&later)).await, (2, false), "it is decided on what the log has");
    assert_dense(&log).await;
}
