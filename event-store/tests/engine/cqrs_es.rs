//! cqrs-es and postgres-es work on the same table; and why their snapshot store is not for us.

use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{AggregateContext, CqrsFramework, EventStore};
use event_store::{Context, Target, cqrs, feed};
use postgres_es::PostgresEventRepository;

use crate::account::{Account, AccountCommand, bus, log, new_id};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_es_reads_what_we_write_and_we_read_what_it_writes() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let id = new_id();
    let deposit = || AccountCommand::Deposit { amount: 10 };
    bus.execute(Target::New(id.clone()), deposit(), Context::default()).await.expect("accepted");

    let stock = CqrsFramework::new(cqrs::stock_store::<Account>(&log), vec![], ());
    stock.execute(&id, deposit()).await.expect("the stock framework appends");
    let mut loaded = cqrs::stock_store::<Account>(&log).load_aggregate(&id).await.expect("and loads");
    assert_eq!(loaded.aggregate().balance, 20);

    // Our cached state is one event behind now: the append notices.
    let third =
        bus.execute(Target::Existing(id.clone()), deposit(), Context::default()).await.expect("accepted");
    assert_eq!((third.sequence, third.position), (3, 3));
    let events = feed::read(log.database(), "accounts", 0, 10).await.expect("dense");
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(events.iter().all(|event| event.partition == event_store::event::partition_of(&id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_writers_and_ours_race_without_a_hole() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let ours = async {
        for _ in 0..50 {
            bus.execute(Target::New(new_id()), AccountCommand::Deposit { amount: 1 }, Context::default())
                .await
                .expect("accepted");
        }
    };
    let theirs = async {
        let stock = CqrsFramework::new(cqrs::stock_store::<Account>(&log), vec![], ());
        for _ in 0..50 {
            stock.execute(&new_id(), AccountCommand::Deposit { amount: 1 }).await.expect("accepted");
        }
    };
    tokio::join!(ours, theirs);
    assert_eq!(feed::read(log.database(), "accounts", 0, 1_000).await.expect("dense").len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cqrs_framework_runs_on_our_log() {
    let (_database, log) = log().await;
    let bus = bus(&log);
    let framework = CqrsFramework::new(bus.clone(), vec![], ());
    let id = new_id();
    framework.execute(&id, AccountCommand::Open { owner: "eve".to_owned() }).await.expect("accepted");
    framework.execute(&id, AccountCommand::Deposit { amount: 7 }).await.expect("accepted");
    let refused = framework.execute(&id, AccountCommand::Withdraw { amount: 8 }).await;
    assert!(matches!(refused, Err(cqrs_es::AggregateError::UserError(_))));
    let loaded = bus.load(&id).await.expect("loads");
    assert_eq!((loaded.aggregate.balance, loaded.version), (7, 2));
    assert_eq!(bus.load_events(&id).await.expect("events").len(), 2);
}

/// The reason why snapshots are our own: cqrs-es's store applies an event when the sink writes it, and once
/// more when it commits, so a snapshot holds every event twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_stock_snapshot_store_applies_events_twice() {
    let (_database, log) = log().await;
    let repository: PostgresEventRepository = cqrs::stock_repository(&log);
    let store = PersistedEventStore::<_, Account>::new_snapshot_store(repository, 1);
    let framework = CqrsFramework::new(store, vec![], ());
    let id = new_id();
    framework.execute(&id, AccountCommand::Deposit { amount: 10 }).await.expect("accepted");
    let snapshot: serde_json::Value = sqlx::query_scalar("select payload from event_store.snapshots")
        .fetch_one(log.database())
        .await
        .expect("a snapshot");
    assert_eq!(snapshot["balance"], 20, "one deposit of 10, applied twice");
}
