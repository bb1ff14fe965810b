//! Where streams end, asked for by many at once.

use event_store::{Context, Target};
use futures::future::join_all;

use crate::account::{AccountCommand, bus, log, new_id};

#[tokio::test]
async fn each_who_asks_is_told_the_end_of_its_own_stream() {
    let (_database, log) = log().await;
    let accounts = bus(&log);
    let mut wanted = Vec::new();
    for deposits in 1..=3 {
        let id = new_id();
        let mut position = None;
        for _ in 0..deposits {
            let deposit = AccountCommand::Deposit { amount: 1 };
            let target = Target::Existing(id.clone());
            let done = accounts.execute(target, deposit, Context::default()).await.expect("accepted");
            position = Some(done.position);
        }
        wanted.push(("account", id.clone(), position));
        // Nothing of this type ever happened under that id, nor anything under this one.
        wanted.push(("ledger", id, None));
        wanted.push(("account", new_id(), None));
    }
    assert_eq!(wanted[6].2, Some(6));

    let asked = wanted.iter().cycle().take(90);
    let told = join_all(asked.clone().map(|(kind, id, _)| log.last_of_stream(kind, id))).await;
    for ((kind, id, position), told) in asked.zip(told) {
        assert_eq!(told.expect("the database answers"), *position, "{kind} {id}");
    }
}

#[tokio::test]
async fn a_lookup_that_fails_tells_all_who_asked_and_no_later_one() {
    let (_database, log) = log().await;
    let id = new_id();
    let deposit = AccountCommand::Deposit { amount: 1 };
    let target = Target::New(id.clone());
    bus(&log).execute(target, deposit, Context::default()).await.expect("accepted");

    let rename = |from: &str, to: &str| format!("alter table event_store.{from} rename to {to}");
    sqlx::raw_sql(&rename("events", "gone")).execute(log.database()).await.expect("renamed");
    let told = join_all((0..10).map(|_| log.last_of_stream("account", &id))).await;
    assert!(told.iter().all(Result::is_err), "{told:?}");
    sqlx::raw_sql(&rename("gone", "events")).execute(log.database()).await.expect("renamed");
    assert_eq!(log.last_of_stream("account", &id).await.expect("the database answers"), Some(1));
}
