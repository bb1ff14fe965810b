//! Connections for what runs often: the same one again and again, unless something was left open on it.

use std::time::Duration;

use sqlx::Connection;

use crate::account::log;

async fn backend(log: &event_store::Log) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(log.connections()).await.expect("answered")
}

#[tokio::test]
async fn a_connection_is_used_again_and_one_with_something_under_way_by_nobody() {
    let (_database, log) = log().await;
    let first = backend(&log).await;
    assert_eq!(backend(&log).await, first);

    let slow = sqlx::query("select pg_sleep(30)").execute(log.connections());
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err(), "it is given up");
    let second = backend(&log).await;
    assert_ne!(second, first);

    let mut taken = log.connections().take().await.expect("free");
    let mut transaction = taken.begin().await.expect("begins");
    sqlx::query("create table never (id int)").execute(&mut *transaction).await.expect("made");
    drop(transaction);
    drop(taken);
    assert_ne!(backend(&log).await, second);
    let kept: bool = sqlx::query_scalar("select to_regclass('never') is not null")
        .fetch_one(log.connections())
        .await
        .expect("answered");
    assert!(!kept);
}

#[tokio::test]
async fn after_a_server_has_cut_a_connection_another_one_is_opened() {
    let (_database, log) = log().await;
    let first = backend(&log).await;
    sqlx::query("select pg_terminate_backend($1)").bind(first).execute(log.database()).await.expect("cut");
    let lost: sqlx::Result<i32> =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(log.connections()).await;
    assert!(lost.is_err());
    assert_ne!(backend(&log).await, first);
}
