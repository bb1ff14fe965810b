//! The append under interference: cut connections, foreign writers, a database that goes away.

use event_store::{Context, Target, feed};
use futures::future::join_all;
use sqlx::Connection;

use crate::account::{AccountCommand, bus, log, new_id};

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_dense_and_in_commit_order_whatever_is_cut() {
    let (database, log) = log().await;
    let bus = bus(&log);
    let stop = tokio_util::sync::CancellationToken::new();
    let killer = {
        let (url, stop) = (database.url.clone(), stop.clone());
        tokio::spawn(async move {
            let mut own = sqlx::PgConnection::connect(&url).await.expect("connects");
            let mut killed = 0_i64;
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(7));
            while !stop.is_cancelled() {
                pace.tick().await;
                killed += sqlx::query_scalar::<_, i64>(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where datname = current_database() and pid <> pg_backend_pid() and query like '%event_store.append(%'",
                )
                .fetch_one(&mut own)
                .await
                .expect("the killer's own connection lives");
            }
            killed
        })
    };
    let mut accepted = 0;
    for _ in 0..20 {
        let commands = (0..100).map(|_| {
            bus.execute(Target::New(new_id()), AccountCommand::Deposit { amount: 1 }, Context::default())
        });
        accepted += join_all(commands).await.into_iter().filter(Result::is_ok).count() as i64;
    }
    stop.cancel();
    let killed = killer.await.expect("the killer ends");
    let events = feed::read(log.database(), log.source(), 0, 1_000_000).await.expect("no hole");
    assert!(events.len() as i64 >= accepted, "{} events for {accepted} accepted commands", events.len());
    assert!(killed > 0, "a test that cut nothing shows nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partition_in_sql_is_the_partition_in_rust() {
    let (_database, log) = log().await;
    for _ in 0..200 {
        let id = new_id();
        let in_sql: i16 = sqlx::query_scalar("select event_store.partition_of($1)")
            .bind(&id)
            .fetch_one(log.database())
            .await
            .expect("computed");
        assert_eq!(in_sql, event_store::event::partition_of(&id));
    }
}
