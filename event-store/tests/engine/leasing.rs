//! Leases: held by one, given back by whoever leaves, and by nobody else.

use std::time::{Duration, Instant};

use event_store::checkpoints::{self, Moving, Step};

use crate::account::{log, open};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a lease holds.
const LEASE: Duration = Duration::from_secs(6);
/// A lease holds for 6 s and is renewed every 2 s: who waited for its end would have to wait for 4 s at least.
const BEFORE_ANY_LEASE_ENDS: Duration = Duration::from_millis(3_500);

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

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_process_that_died_are_free_before_its_leases_end() {
    let (database, living) = log().await;
    let all = |slots: &event_store::lease::Slots| slots.len() == 4;
    let dying = open(&database).await;
    let mut lost = dying.leases().join("work", 4);
    tokio::time::timeout(PATIENCE, lost.held().wait_for(all))
        .await
        .expect("in time")
        .expect("the group stands");
    // Nothing is given back: as after kill -9, the database finds the session gone, and that is all.
    let died = Instant::now();
    drop((lost, dying));
    let mut heir = living.leases().join("work", 4);
    tokio::time::timeout(PATIENCE, heir.held().wait_for(all))
        .await
        .expect("in time")
        .expect("the group stands");
    assert!(died.elapsed() < BEFORE_ANY_LEASE_ENDS, "it took {:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_change_hands_when_whoever_uses_them_lets_go() {
    let (database, log) = log().await;
    let mut first = log.leases().join("work", 4);
    let so_many = |count: usize| move |slots: &event_store::lease::Slots| slots.len() == count;
    tokio::time::timeout(PATIENCE, first.held().wait_for(so_many(4)))
        .await
        .expect("in time")
        .expect("it stands");
    let (used, in_use) = first.take_up();
    assert_eq!(used.len(), 4);
    let other = open(&database).await;
    let mut second = other.leases().join("work", 4);
    // It is told to let go of two.
    tokio::time::timeout(PATIENCE, first.held().wait_for(so_many(2)))
        .await
        .expect("in time")
        .expect("it stands");
    // Longer than it takes to share out, and shorter than it may hang.
    let early = tokio::time::timeout(BEFORE_ANY_LEASE_ENDS, second.held().wait_for(so_many(2))).await.is_ok();
    assert!(!early, "they are in use");
    drop(in_use);
    let let_go = Instant::now();
    tokio::time::timeout(PATIENCE, second.held().wait_for(so_many(2)))
        .await
        .expect("in time")
        .expect("it stands");
    assert!(let_go.elapsed() < LEASE, "it took {:?}", let_go.elapsed());
    let (kept, _in_use) = first.take_up();
    assert!(kept.len() == 2 && kept.is_disjoint(&second.held().borrow()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_let_go_of_slots_loses_them() {
    let (database, log) = log().await;
    let mut first = log.leases().join("work", 4);
    let so_many = |count: usize| move |slots: &event_store::lease::Slots| slots.len() == count;
    tokio::time::timeout(PATIENCE, first.held().wait_for(so_many(4)))
        .await
        .expect("in time")
        .expect("it stands");
    let (_used, _in_use) = first.take_up();
    let other = open(&database).await;
    let mut second = other.leases().join("work", 4);
    tokio::time::timeout(PATIENCE, second.held().wait_for(so_many(2)))
        .await
        .expect("in time")
        .expect("it stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_freezes_in_a_transaction_lets_go_of_its_checkpoints_before_its_leases_end() {
    let (database, frozen) = log().await;
    let heir = open(&database).await;
    checkpoints::load(frozen.database(), "balances", "accounts", 0).await.expect("made");
    let mut interrupted = frozen.database().begin().await.expect("begins");
    let step = |to| [Step { partition: 3, from: 0, to }];
    let (to_freeze, to_go_on) = (step(5), step(7));
    let moving = |steps| Moving { subscription: "balances", source: "accounts", steps, told: true };
    let moved = moving(&to_freeze).step(&mut interrupted).await;
    assert!(moved.expect("the database answers"));
    // From here on it says nothing more.
    let frozen_since = Instant::now();
    let mut going_on = heir.database().begin().await.expect("begins");
    let moving_on = moving(&to_go_on);
    let taken_over = tokio::time::timeout(PATIENCE, moving_on.step(&mut going_on)).await.expect("in time");
    assert!(taken_over.expect("the database answers"), "what was not committed has not happened");
    assert!(frozen_since.elapsed() < LEASE, "it took {:?}", frozen_since.elapsed());
    going_on.commit().await.expect("commits");
    // Whoever wakes up then has lost its connection, and knows of no event that is to blame.
    let woken = moving(&to_freeze).step(&mut interrupted).await;
    assert!(woken.is_err_and(|error| error.is_transient()));
    let reached = checkpoints::load(heir.database(), "balances", "accounts", 0).await.expect("read");
    assert_eq!(reached.get(&3), Some(&7));
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_while_leases_are_shared_out_stays_given_back() {
    let (database, log) = log().await;
    // Whoever shares out pauses between having counted on a slot and renewing it.
    let slow = format!("leases-before-renewal/{}=sleep(100)", database.name);
    event_store::failpoints::arm(&slow).expect("it can be read");
    for round in 0..5 {
        let mut leaving = log.leases().join("work", 4);
        let all = |slots: &event_store::lease::Slots| slots.len() == 4;
        tokio::time::timeout(PATIENCE, leaving.held().wait_for(all))
            .await
            .expect("in time")
            .expect("it stands");
        // This begins to share out; the looks at the database give it the time to get to its pause.
        let _bystander = log.leases().join(&format!("bystander {round}"), 1);
        for _ in 0..10 {
            owned(&log, "work/%").await;
        }
        leaving.leave().await.expect("the database answers");
        // When a later sharing out is over, so is the one that was interrupted.
        let mut later = log.leases().join(&format!("later {round}"), 1);
        let any = |slots: &event_store::lease::Slots| !slots.is_empty();
        tokio::time::timeout(PATIENCE, later.held().wait_for(any))
            .await
            .expect("in time")
            .expect("it stands");
        assert_eq!(owned(&log, "work/%").await, 0, "round {round}");
    }
}

#[cfg(feature = "failpoints")]
async fn owned(log: &event_store::Log, names: &str) -> i64 {
    sqlx::query_scalar("select count(*) from event_store.leases where name like $1")
        .bind(names)
        .fetch_one(log.database())
        .await
        .expect("counted")
}
