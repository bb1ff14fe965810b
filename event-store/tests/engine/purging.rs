//! The rows of commands are kept for as long as copies may come, and no longer.

use event_store::commands;
use sqlx::PgPool;

use crate::account::log;

/// Rows of commands that were carried out so many hours ago.
async fn insert(database: &PgPool, count: i64, derived: bool, hours_ago: f64) {
    sqlx::query(
        "insert into event_store.commands select gen_random_uuid(), 'somebody', '', 'account', 'a', 1, 1, false, null, \
         $1, now() - make_interval(secs => $2 * 3600) from generate_series(1, $3)",
    )
    .bind(derived)
    .bind(hours_ago)
    .bind(count)
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
