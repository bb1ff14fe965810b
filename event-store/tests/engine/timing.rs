//! Timers: done when due, once when all goes well, again when it does not, never when cleared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use event_store::timers::{self, Done, Timer};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::account::log;

pub(crate) fn queue(concurrency: usize) -> timers::Queue {
    timers::Queue { name: "chores", concurrency, patience: Duration::from_secs(60) }
}

pub(crate) fn timer(name: &str, due_in_ms: Option<i64>) -> Timer {
    Timer {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
        queue: "chores".to_owned(),
        due_at: due_in_ms.map(|ms| Utc::now() + TimeDelta::milliseconds(ms)),
        command: json!(name),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_goes_off_when_due_is_tried_again_after_a_failure_and_not_at_all_when_cleared() {
    let (_database, log) = log().await;
    let mut transaction = log.database().begin().await.expect("begins");
    let set = [
        timer("now", None),
        timer("soon", Some(300)),
        timer("flaky", None),
        timer("cleared", Some(100)),
        timer("far", Some(3_600_000)),
    ];
    timers::set(&mut transaction, &set).await.expect("set");
    timers::clear(&mut transaction, &[timer("cleared", None).id]).await.expect("cleared");
    transaction.commit().await.expect("commits");

    let done = Arc::new(std::sync::Mutex::new(Vec::new()));
    let flaky = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let worker = tokio::spawn(timers::work(
        log.clone(),
        queue(4),
        {
            let (done, flaky) = (Arc::clone(&done), Arc::clone(&flaky));
            move |due| {
                let (done, flaky) = (Arc::clone(&done), Arc::clone(&flaky));
                async move {
                    if due.command == json!("flaky") && flaky.fetch_add(1, Ordering::SeqCst) < 2 {
                        return Done::Failed("not yet".to_owned());
                    }
                    done.lock()
                        .expect("unpoisoned")
                        .push(due.command.as_str().unwrap_or_default().to_owned());
                    Done::Finished
                }
            }
        },
        stop.clone(),
    ));
    let settled = async {
        loop {
            if count(&log, "true").await == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("all but the far one are done");
    stop.cancel();
    worker.await.expect("the worker ends");
    let mut done = done.lock().expect("unpoisoned").clone();
    done.sort();
    assert_eq!(done, ["flaky", "now", "soon"]);
    assert_eq!(flaky.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_set_anew_while_its_work_is_done_goes_off_again() {
    let (_database, log) = log().await;
    let mut transaction = log.database().begin().await.expect("begins");
    timers::set(&mut transaction, &[timer("first", None)]).await.expect("set");
    transaction.commit().await.expect("commits");

    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let worker = tokio::spawn(timers::work(
        log.clone(),
        queue(4),
        {
            let log = log.clone();
            move |due| {
                let (log, tell) = (log.clone(), tell.clone());
                async move {
                    if due.command == json!("first") {
                        let again = Timer { command: json!("second"), ..timer("first", Some(300)) };
                        let mut transaction = log.database().begin().await.expect("begins");
                        timers::set(&mut transaction, &[again]).await.expect("set");
                        transaction.commit().await.expect("commits");
                    }
                    tell.send(due.command).expect("somebody listens");
                    Done::Finished
                }
            }
        },
        stop.clone(),
    ));
    let mut done = Vec::new();
    for _ in 0..2 {
        let next = tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
        done.extend(next.expect("both are done"));
    }
    stop.cancel();
    worker.await.expect("the worker ends");
    assert_eq!(done, [json!("first"), json!("second")]);
    assert_eq!(count(&log, "true").await, 0);
}

/// Longer than a lease holds, and shorter than work may take.
pub(crate) const TAKEN_UP_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn work_is_done_once_however_long_it_takes_and_taken_up_soon_after_its_worker_died() {
    let (_database, log) = log().await;
    let mut transaction = log.database().begin().await.expect("begins");
    timers::set(&mut transaction, &[timer("long", None)]).await.expect("set");
    transaction.commit().await.expect("commits");

    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let work = |name: &'static str| {
        let tell = tell.clone();
        tokio::spawn(timers::work(
            log.clone(),
            queue(4),
            move |due| {
                let tell = tell.clone();
                async move {
                    tell.send((name, due.attempts)).expect("somebody listens");
                    std::future::pending::<Done>().await
                }
            },
            CancellationToken::new(),
        ))
    };
    let dying = work("dying");
    assert_eq!(told.recv().await, Some(("dying", 1)));
    let heir = work("heir");
    // The lease moves on, so that nobody else takes it up.
    let first = due_at(&log, "long").await;
    let renewed = async {
        while due_at(&log, "long").await == first {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TAKEN_UP_WITHIN, renewed).await.expect("the lease is renewed");
    assert!(told.try_recv().is_err(), "somebody else has taken it up");
    dying.abort();
    let next = tokio::time::timeout(TAKEN_UP_WITHIN, told.recv()).await.expect("it is taken up in time");
    assert_eq!(next, Some(("heir", 2)));
    heir.abort();
}

pub(crate) async fn due_at(log: &event_store::Log, name: &str) -> DateTime<Utc> {
    sqlx::query_scalar("select due_at from event_store.timers where id = $1")
        .bind(timer(name, None).id)
        .fetch_one(log.database())
        .await
        .expect("it is there")
}

/// How many timers there are, of which something is true.
pub(crate) async fn count(log: &event_store::Log, which: &str) -> i64 {
    sqlx::query_scalar(&format!("select count(*) from event_store.timers where {which}"))
        .fetch_one(log.database())
        .await
        .expect("counted")
}
