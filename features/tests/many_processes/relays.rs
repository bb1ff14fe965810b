//! Two relays of one log: one publishes, the other stands by. Whatever befalls the first, the topic gets every
//! event, and first copies in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use features::eventually::eventually;
use features::mart::Setup;
use features::program::Program;
use features::topics::{self, Record};
use features::{PATIENCE, TestMart, history};
use nix::sys::signal::Signal;
use sqlx::Row;
use tokio::time::{MissedTickBehavior, interval};

use crate::{TAKEN_OVER_WITHIN, in_parts, room};

/// How many events are written at once, and how often: more than the topic of a broker in memory holds would come
/// together otherwise.
const BURST_EVENTS: i64 = 20;
const BURST_EVERY: Duration = Duration::from_millis(20);
/// How many events come in one commit before a relay freezes or dies, so that it is in the middle of something.
const BACKLOG_EVENTS: i64 = 3_000;
/// How many events a relay has to publish after it took over, to show that it goes on.
const EVENTS_AFTER: i64 = 500;

const PROGRESS: &str = "select coalesce(max(position), 0) from event_store.relay where source = 'inventory'";
const HEAD: &str = "select coalesce(max(position), 0) from event_store.events";

async fn published_up_to(mart: &TestMart, position: i64, within: Duration) {
    eventually(within, async || {
        let progress = mart.databases().number("inventory", PROGRESS).await;
        if progress >= position { Ok(()) } else { Err(format!("published to {progress} of {position}")) }
    })
    .await;
}

/// Waits until events are published that came after the active relay was stopped or killed.
async fn taken_over(mart: &TestMart, how: &str) {
    let since = Instant::now();
    let head = mart.databases().number("inventory", HEAD).await;
    published_up_to(mart, head + 1, TAKEN_OVER_WITHIN).await;
    println!("after {how} another relay took over within {:?}", since.elapsed());
    published_up_to(mart, head + EVENTS_AFTER, PATIENCE).await;
}

/// Waits until the active relay has begun to publish a backlog.
async fn is_busy(mart: &TestMart) {
    let mut inventory = mart.databases().connect("inventory").await;
    history::open_items(&mut inventory, BACKLOG_EVENTS).await;
    let backlog = mart.databases().number("inventory", HEAD).await - BACKLOG_EVENTS;
    published_up_to(mart, backlog + 1, PATIENCE).await;
}

async fn relay(mart: &TestMart) -> Program {
    // The users come along because whoever works checks people by them.
    mart.role(&["work", "users", "inventory"]).await
}

/// The number in a header of a record.
fn number(record: &Record, name: &str) -> i64 {
    let value = record.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone());
    let text = String::from_utf8(value.unwrap_or_default()).expect("it is text");
    text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
}

/// The positions of each partition in the log.
async fn log(mart: &TestMart) -> BTreeMap<i32, Vec<i64>> {
    let mut inventory = mart.databases().connect("inventory").await;
    let statement = "select partition::integer, position from event_store.events order by position";
    let rows = sqlx::query(statement).fetch_all(&mut inventory).await.expect("the log can be read");
    let mut partitions: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for row in rows {
        partitions.entry(row.get(0)).or_default().push(row.get(1));
    }
    partitions
}

/// Asserts that first copies are complete and in order, each naming the one before it. Says how many records were
/// copies.
fn in_order(records: &[Record], log: &BTreeMap<i32, Vec<i64>>) -> usize {
    let mut copies = 0;
    for (partition, positions) in log {
        let mut first = Vec::with_capacity(positions.len());
        for record in records.iter().filter(|record| record.partition == *partition) {
            let (position, last) = (number(record, "mart-position"), first.last().copied().unwrap_or(0));
            if position <= last {
                copies += 1;
                continue;
            }
            let previous = number(record, "mart-previous");
            assert_eq!(previous, last, "a gap on partition {partition} before position {position}");
            first.push(position);
        }
        assert_eq!(first, *positions, "partition {partition} is not the log");
    }
    copies
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_takes_over_from_one_that_froze_or_died_without_a_gap() {
    let _room = room().await;
    let (mart, broker) = in_parts(Setup::new().await).await;
    let active = relay(&mart).await;
    let mut standby = relay(&mart).await;

    let over = Arc::new(AtomicBool::new(false));
    let mut inventory = mart.databases().connect("inventory").await;
    let writing = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut bursts = interval(BURST_EVERY);
            bursts.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !over.load(Ordering::Relaxed) {
                bursts.tick().await;
                history::open_items(&mut inventory, BURST_EVENTS).await;
            }
        }
    });
    published_up_to(&mart, EVENTS_AFTER, PATIENCE).await;
    for _round in 0..2 {
        is_busy(&mart).await;
        active.signal(Signal::SIGSTOP);
        taken_over(&mart, "a freeze").await;
        // It wakes up in the belief that it is still in office, with records on their way.
        active.signal(Signal::SIGCONT);
        let head = mart.databases().number("inventory", HEAD).await;
        published_up_to(&mart, head + EVENTS_AFTER, PATIENCE).await;

        is_busy(&mart).await;
        standby.kill();
        taken_over(&mart, "kill -9").await;
        standby = relay(&mart).await;
    }
    over.store(true, Ordering::Relaxed);
    writing.await.expect("the events are written");
    let head = mart.databases().number("inventory", HEAD).await;
    published_up_to(&mart, head, PATIENCE).await;

    let log = log(&mart).await;
    let (servers, topic) = (broker.bootstrap_servers(), mart.topic_of("inventory"));
    let reading = tokio::task::spawn_blocking(move || topics::read(&servers, &topic));
    let records = reading.await.expect("the topic can be read");
    let copies = in_order(&records, &log);
    println!("{head} events, {} records on the topic, {copies} of them copies", records.len());
    for mut worker in [active, standby] {
        assert!(worker.stop().await.success(), "a worker stopped badly");
    }
}
