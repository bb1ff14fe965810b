//! Timed work that is handed to the worker of the same process, before anything of it is written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use event_store::subscription::{ApplyError, Delivered, Reacting, Reactor, Subscription};
use event_store::timers::{self, Done, Due, Timer, TimerChanges};
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::account::{log, new_id};
use crate::failing::deposit;
use crate::following::{caught_up, subscription};
use crate::timing::{TAKEN_UP_WITHIN, count, due_at, queue, timer};

/// Sets work that is due at once for each event but one of a stream, which it refuses.
struct Chores {
    refused: Option<i64>,
}

#[async_trait]
impl Reactor for Chores {
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        let mut changes = TimerChanges::default();
        for event in batch {
            if Some(event.sequence) == self.refused {
                return Err(ApplyError::Event("refused".to_owned()));
            }
            changes.set(Timer {
                id: event.event_id(),
                queue: "chores".to_owned(),
                due_at: None,
                command: json!(event.position),
            });
        }
        Ok(changes)
    }
}

fn chores(log: &event_store::Log, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    chores_but(None, log, stop)
}

fn chores_but(
    refused: Option<i64>,
    log: &event_store::Log,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let chores =
        Subscription { subscriber: Arc::new(Reacting(Chores { refused })), ..subscription(log, None) };
    tokio::spawn(chores.run(stop.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_due_at_once_is_handed_to_the_worker_of_the_same_process() {
    let (_database, log) = log().await;
    // Whoever takes work up from the database updates it.
    sqlx::raw_sql(
        "create function refused() returns trigger language plpgsql as $$ begin raise 'taken'; end $$; \
         create trigger refused before update on event_store.timers for each row execute function refused()",
    )
    .execute(log.database())
    .await
    .expect("made");
    let (tell, mut told) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let chores_queue = queue(4);
    let note = move |due: Due| {
        let tell = tell.clone();
        async move {
            tell.send(due).expect("somebody listens");
            Done::Finished
        }
    };
    let worker = tokio::spawn(timers::work(log.clone(), chores_queue, note, stop.clone()));
    let follower = chores(&log, &stop);
    let id = new_id();
    for _ in 0..20 {
        deposit(&log, &id, 1).await;
        let due =
            tokio::time::timeout(TAKEN_UP_WITHIN, told.recv()).await.expect("in time").expect("it runs");
        assert_eq!(due.attempts, 1);
    }
    stop.cancel();
    follower.await.expect("the subscription ends");
    worker.await.expect("the worker ends");
    assert_eq!(count(&log, "true").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_done_before_its_checkpoint_is_stored_has_no_row() {
    let (_database, log) = log().await;
    note_what_is_written(&log).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let chores_queue = queue(4);
    let note = move |due: Due| {
        let tell = tell.clone();
        async move {
            tell.send(due.id).expect("somebody listens");
            Done::Finished
        }
    };
    let worker = tokio::spawn(timers::work(log.clone(), chores_queue, note, stop.clone()));
    let follower = chores(&log, &stop);
    let id = new_id();
    let mut ids = Vec::new();
    for _ in 0..20 {
        deposit(&log, &id, 1).await;
        ids.push(
            tokio::time::timeout(TAKEN_UP_WITHIN, told.recv()).await.expect("in time").expect("it runs"),
        );
    }
    stop.cancel();
    follower.await.expect("the subscription ends");
    worker.await.expect("the worker ends");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "each is done once");
    // A checkpoint may be stored at the very moment in which one is done.
    let written = written(&log).await;
    assert!(written < 10, "{written} of 20 had a row");
    let stored: i64 = sqlx::query_scalar("select max(position) from event_store.checkpoints")
        .fetch_one(log.database())
        .await
        .expect("read");
    assert_eq!(stored, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_fails_before_it_has_a_row_is_tried_again() {
    let (_database, log) = log().await;
    let stop = CancellationToken::new();
    let chores_queue = queue(4);
    let (tell, mut told) = mpsc::unbounded_channel();
    let fail_first = move |due: Due| {
        let tell = tell.clone();
        async move {
            tell.send(due.attempts).expect("somebody listens");
            match due.attempts {
                1 => Done::Failed("not yet".to_owned()),
                2 => panic!("nobody expected this"),
                3 => Done::Again(Duration::from_millis(10)),
                _ => Done::Finished,
            }
        }
    };
    let worker = tokio::spawn(timers::work(log.clone(), chores_queue, fail_first, stop.clone()));
    let follower = chores(&log, &stop);
    deposit(&log, &new_id(), 1).await;
    for attempt in 1..=4 {
        // It is put off by parts of a second; a lease that must run out first takes ten.
        let tried = tokio::time::timeout(Duration::from_secs(5), told.recv()).await.expect("in time");
        assert_eq!(tried, Some(attempt));
    }
    stop.cancel();
    follower.await.expect("the subscription ends");
    worker.await.expect("the worker ends");
    assert_eq!(count(&log, "true").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_hand_is_not_lost_when_a_later_event_of_its_batch_cannot_be_applied() {
    let (_database, log) = log().await;
    let (stop, stop_working) = (CancellationToken::new(), CancellationToken::new());
    let chores_queue = queue(4);
    let endless = |_: Due| std::future::pending();
    let worker = tokio::spawn(timers::work(log.clone(), chores_queue, endless, stop_working.clone()));
    let id = new_id();
    for _ in 0..3 {
        deposit(&log, &id, 1).await;
    }
    let follower = chores_but(Some(3), &log, &stop);
    let parked = async {
        let parked = "select count(*) from event_store.parked";
        while sqlx::query_scalar::<_, i64>(parked).fetch_one(log.database()).await.expect("counted") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TAKEN_UP_WITHIN, parked).await.expect("it is parked");
    // The checkpoint is behind all of them, so what is not done has a row.
    assert_eq!(count(&log, "due_at > clock_timestamp()").await, 2);
    stop.cancel();
    follower.await.expect("the subscription ends");
    worker.abort();
}

/// Sets work for the first event of each stream, and fails like plumbing when it is first shown the second one.
#[derive(Clone, Default)]
struct Interrupted {
    shown: Arc<std::sync::Mutex<HashMap<(String, i64), usize>>>,
}

impl Interrupted {
    fn times(&self, id: &str, sequence: i64) -> usize {
        *self.shown.lock().expect("unpoisoned").entry((id.to_owned(), sequence)).or_default()
    }
}

#[async_trait]
impl Reactor for Interrupted {
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        for event in batch {
            let times = self.times(&event.aggregate_id, event.sequence) + 1;
            self.shown
                .lock()
                .expect("unpoisoned")
                .insert((event.aggregate_id.clone(), event.sequence), times);
            if event.sequence == 2 && times == 1 {
                return Err(event_store::Error::Busy.into());
            }
        }
        let first: Vec<Delivered> = batch.iter().filter(|event| event.sequence == 1).cloned().collect();
        Chores { refused: None }.react(&first).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_under_way_is_not_begun_anew_when_its_event_comes_again() {
    let (_database, log) = log().await;
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let (tell, mut told) = mpsc::unbounded_channel();
    let slow = {
        let end = end.clone();
        move |due: Due| {
            let (tell, end) = (tell.clone(), end.clone());
            async move {
                tell.send(due.id).expect("somebody listens");
                end.cancelled().await;
                Done::Finished
            }
        }
    };
    let worker = tokio::spawn(timers::work(log.clone(), queue(64), slow, stop.clone()));
    let interrupted = Interrupted::default();
    let subscriber = Arc::new(Reacting(interrupted.clone()));
    let follower = tokio::spawn(Subscription { subscriber, ..subscription(&log, None) }.run(stop.clone()));
    // An event comes again if its checkpoint was not stored before the failure, which is a matter of time.
    let mut begun = Vec::new();
    for _ in 0..50 {
        let id = new_id();
        deposit(&log, &id, 1).await;
        begun.extend(tokio::time::timeout(TAKEN_UP_WITHIN, told.recv()).await.expect("in time"));
        deposit(&log, &id, 1).await;
        caught_up(&log).await;
        if interrupted.times(&id, 1) > 1 {
            break;
        }
    }
    assert!(begun.len() < 50, "no event came again");
    end.cancel();
    stop.cancel();
    follower.await.expect("the subscription ends");
    worker.await.expect("the worker ends");
    assert_eq!(told.try_recv().ok(), None, "one of {begun:?} was begun twice");
    assert_eq!(count(&log, "true").await, 0);
}

/// Sets work like [`Chores`], and is told to stop with the first event of a stream.
struct Stopped {
    by: String,
    stop: CancellationToken,
}

#[async_trait]
impl Reactor for Stopped {
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        if batch.iter().any(|event| event.aggregate_id == self.by) {
            self.stop.cancel();
        }
        Chores { refused: None }.react(batch).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_hand_is_written_when_a_subscription_ends_at_a_parked_stream() {
    let (_database, log) = log().await;
    let (stop, stop_working) = (CancellationToken::new(), CancellationToken::new());
    let (parked, id) = (new_id(), new_id());
    let follower = chores_but(Some(1), &log, &stop);
    deposit(&log, &parked, 1).await;
    let is_parked = async {
        let parked = "select count(*) from event_store.parked";
        while sqlx::query_scalar::<_, i64>(parked).fetch_one(log.database()).await.expect("counted") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TAKEN_UP_WITHIN, is_parked).await.expect("it is parked");
    stop.cancel();
    follower.await.expect("the subscription ends");

    // The next one reads both at once, and one by one because of the second.
    deposit(&log, &id, 1).await;
    deposit(&log, &parked, 1).await;
    let endless = |_: Due| std::future::pending();
    let worker = tokio::spawn(timers::work(log.clone(), queue(4), endless, stop_working.clone()));
    let stop = CancellationToken::new();
    let subscriber = Arc::new(Reacting(Stopped { by: id, stop: stop.clone() }));
    let stopped = Subscription { subscriber, ..subscription(&log, None) }.run(stop);
    tokio::time::timeout(TAKEN_UP_WITHIN, stopped).await.expect("it ends");
    assert_eq!(count(&log, "due_at > clock_timestamp()").await, 1);
    worker.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_whose_row_was_lost_with_its_checkpoint_gets_another() {
    let (_database, log) = log().await;
    let stop = CancellationToken::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let endless = move |due: Due| {
        tell.send(due.id).expect("somebody listens");
        std::future::pending()
    };
    let worker = tokio::spawn(timers::work(log.clone(), queue(4), endless, stop.clone()));
    let follower = chores(&log, &stop);
    let id = new_id();
    deposit(&log, &id, 1).await;
    let first = tokio::time::timeout(TAKEN_UP_WITHIN, told.recv()).await.expect("in time").expect("it runs");
    let row = format!("id = '{first}'");
    let is_written = async {
        while count(&log, &row).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TAKEN_UP_WITHIN, is_written).await.expect("it is written with its checkpoint");

    // As when the server is lost before it has flushed that.
    sqlx::raw_sql(
        "begin; delete from event_store.timers; \
         update event_store.checkpoints set position = 0 where position > 0; commit",
    )
    .execute(log.database())
    .await
    .expect("undone");
    deposit(&log, &id, 1).await;
    let is_written = async {
        while count(&log, &row).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TAKEN_UP_WITHIN, is_written).await.expect("it is written again");
    let second = tokio::time::timeout(TAKEN_UP_WITHIN, told.recv()).await.expect("in time").expect("it runs");
    assert!(second != first && told.try_recv().is_err(), "the first is under way already");
    stop.cancel();
    follower.await.expect("the subscription ends");
    worker.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_to_a_worker_that_stops_is_left_to_others_at_once() {
    let (_database, log) = log().await;
    let chores_queue = queue(1);
    let (stop, stop_following) = (CancellationToken::new(), CancellationToken::new());
    let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, end) = (Arc::clone(&begun), Arc::clone(&end));
        move |_: Due| {
            let (begun, end) = (Arc::clone(&begun), Arc::clone(&end));
            async move {
                begun.notify_one();
                end.notified().await;
                Done::Finished
            }
        }
    };
    let worker = tokio::spawn(timers::work(log.clone(), chores_queue, slow, stop.clone()));
    let follower = chores(&log, &stop_following);
    let id = new_id();
    deposit(&log, &id, 1).await;
    begun.notified().await;
    // Some have a place at the worker, which is busy, and the last has none.
    for left in 2..=10 {
        deposit(&log, &id, 1).await;
        let set = async {
            while count(&log, "true").await < left {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TAKEN_UP_WITHIN, set).await.expect("it is set");
    }
    assert_eq!(count(&log, "due_at <= clock_timestamp()").await, 1);
    stop_following.cancel();
    follower.await.expect("the subscription ends");
    stop.cancel();
    end.notify_one();
    worker.await.expect("the worker ends");
    assert_eq!(count(&log, "due_at <= clock_timestamp() and attempts = 0").await, 9);
}

/// Sets work for later when a stream begins, and clears it with the second event.
struct Deadlines;

#[async_trait]
impl Reactor for Deadlines {
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        let mut changes = TimerChanges::default();
        for event in batch {
            match event.sequence {
                1 => changes.set(timer(&event.aggregate_id, Some(3_600_000))),
                _ => changes.clear(timer(&event.aggregate_id, None).id),
            }
        }
        Ok(changes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_for_later_is_written_with_its_checkpoint_and_not_at_all_when_it_is_cleared_before() {
    let (_database, log) = log().await;
    note_what_is_written(&log).await;
    let stop = CancellationToken::new();
    let deadlines = Subscription { subscriber: Arc::new(Reacting(Deadlines)), ..subscription(&log, None) };
    let follower = tokio::spawn(deadlines.run(stop.clone()));
    let kept = new_id();
    deposit(&log, &kept, 1).await;
    for _ in 0..20 {
        let id = new_id();
        deposit(&log, &id, 1).await;
        deposit(&log, &id, 1).await;
    }
    caught_up(&log).await;
    stop.cancel();
    follower.await.expect("the subscription ends");
    assert_eq!(count(&log, "true").await, 1);
    assert!(due_at(&log, &kept).await > Utc::now() + TimeDelta::minutes(59));
    // A checkpoint may be stored between the two events of some.
    let written = written(&log).await;
    assert!(written < 21, "each had a row");
}

/// Keeps a note of each row that is made, also of those that are deleted.
async fn note_what_is_written(log: &event_store::Log) {
    sqlx::raw_sql(
        "create table written (id uuid); \
         create function noted() returns trigger language plpgsql as \
         $$ begin insert into written values (new.id); return new; end $$; \
         create trigger noted before insert on event_store.timers for each row execute function noted()",
    )
    .execute(log.database())
    .await
    .expect("made");
}

async fn written(log: &event_store::Log) -> i64 {
    sqlx::query_scalar("select count(*) from written").fetch_one(log.database()).await.expect("counted")
}
