//! The rows of commands are kept for as long as copies may come, and no longer.

use event_store::commands;
use sqlx::PgPool;

use crate::account::log;

/// Rows of commands that were carried out so many hours ago, and were derived right before.
async fn insert(database: &PgPool, count: i64, derived: bool, hours_ago: f64) {
    insert_derived_before(database, count, derived, hours_ago, hours_ago).await;
}

/// Rows of commands that were carried out so many hours ago because of something that happened so many hours ago.
async fn insert_derived_before(
    database: &PgPool,
    count: i64,
    derived: bool,
    hours_ago: f64,
    cause_hours_ago: f64,
) {
    sqlx::query(
        "insert into event_store.commands \
         select case when $1 then overlay(gen_random_uuid()::text placing \
                     left(t.hex, 8) || '-' || right(t.hex, 4) from 1 for 13)::uuid else gen_random_uuid() end, \
                'somebody', '', 'account', 'a', 1, 1, false, null, $1, now() - make_interval(secs => $2 * 3600) \
         from generate_series(1, $3), \
              lpad(to_hex((extract(epoch from now() - make_interval(secs => $4 * 3600)) * 1000)::bigint), 12, '0') \
                  as t(hex)",
    )
    .bind(derived)
    .bind(hours_ago)
    .bind(count)
    .bind(cause_hours_ago)
    .execute(database)
    .await
    .expect("inserted");
}

/// How many rows are kept of requests and of derived commands.
async fn kept(database: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "select count(*) filter (where not derived), count(*) filter (where derived) \
                    from event_store.commands",
    )
    .fetch_one(database)
    .await
    .expect("counted")
}

#[tokio::test]
async fn requests_are_kept_for_two_days_and_derived_commands_for_thirty() {
    let (_database, log) = log().await;
    let database = log.database();
    for (derived, hours_ago) in [(false, 47.0), (false, 49.0), (true, 49.0), (true, 719.0), (true, 721.0)] {
        insert(database, 1, derived, hours_ago).await;
    }
    assert_eq!(commands::purge(database).await.expect("purged"), 2);
    assert_eq!(kept(database).await, (1, 2));
    assert_eq!(commands::purge(database).await.expect("purged"), 0);
}

#[tokio::test]
async fn one_purge_deletes_all_that_is_too_old() {
    let (_database, log) = log().await;
    insert(log.database(), 25_000, false, 49.0).await;
    assert_eq!(commands::purge(log.database()).await.expect("purged"), 25_000);
}

#[tokio::test]
async fn what_is_derived_from_something_old_is_kept_as_long_as_what_is_not() {
    let (_database, log) = log().await;
    insert_derived_before(log.database(), 1, true, 719.0, 2_000.0).await;
    assert_eq!(commands::purge(log.database()).await.expect("purged"), 0);
    insert_derived_before(log.database(), 25_000, true, 721.0, 2_000.0).await;
    assert_eq!(commands::purge(log.database()).await.expect("purged"), 25_000);
    assert_eq!(kept(log.database()).await, (0, 1));
}
