//! Leases: held by one, given back by whoever leaves, and by nobody else.

use std::time::Duration;

use crate::account::log;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_group_late_takes_nothing_from_who_joined_it_since() {
    let (_database, log) = log().await;
    let mut first = log.leases().join("work", 4);
    let all = |slots: &event_store::lease::Slots| slots.len() == 4;
    tokio::time::timeout(PATIENCE, first.held().wait_for(all))
        .await
        .expect("in time")
        .expect("the group stands");
    let mut second = log.leases().join("work", 4);
    first.leave().await.expect("the database answers");
    tokio::time::timeout(PATIENCE, second.held().wait_for(all))
        .await
        .expect("in time")
        .expect("the group still stands");
    let owned: i64 =
        sqlx::query_scalar("select count(*) from event_store.leases where name not like '%/member/%'")
            .fetch_one(log.database())
            .await
            .expect("counted");
    assert_eq!(owned, 4);
}
