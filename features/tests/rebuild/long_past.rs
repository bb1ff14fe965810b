//! A rebuild of many events, killed, finished and verified, while customers buy.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use features::crowd::{Crowd, adds_up};
use features::history::{self, EVENTS_OF_AN_ITEM};
use features::shop::{customer, product};
use features::{PATIENCE, Program, TestMart};
use nix::pty::{OpenptyResult, Winsize, openpty};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::Executor;

use crate::{room, with_past};

/// How long the past is unless `EVENTS` says otherwise.
const EVENTS: u64 = 80_000;
/// How often the rebuild is killed.
const KILLS: usize = 10;
const PIECES: u32 = 1_000_000;
const BUYERS: usize = 2;
/// The most memory a rebuild may take, however long the past is: rows and chunks are bounded in number.
const MEMORY_BYTES: u64 = 400 << 20;
/// How long a rebuild of a million events may take on a busy machine, without optimisation.
const REBUILT_WITHIN: Duration = Duration::from_secs(600);
/// Within how long a rebuild that goes on tells how far it is, with room for a busy machine.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// The rebuilds that are not done.
const BUILDING: &str = "select count(*) from event_store.read_models where status = 'building'";
/// How long everything may take to come to rest.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What a rebuild that went to its end was like.
struct Rebuilt {
    took: Duration,
    peak_memory: u64,
    succeeded: bool,
}

/// Waits for the end of a rebuild, and looks at its memory until then.
async fn watched(mut rebuild: Program) -> Rebuilt {
    let begun = Instant::now();
    let mut peak_memory = 0;
    let status = features::eventually(REBUILT_WITHIN, async || {
        peak_memory = rebuild.peak_memory().unwrap_or(0).max(peak_memory);
        rebuild.status().ok_or_else(|| "the rebuild runs".to_owned())
    })
    .await;
    Rebuilt { took: begun.elapsed(), peak_memory, succeeded: status.success() }
}

/// The table of the live generation of stock.
async fn live_table(mart: &TestMart) -> String {
    let mut inventory = mart.databases().connect("inventory").await;
    let version =
        "select version from event_store.read_models where name = 'stock_levels' and status = 'live'";
    let version: String = sqlx::query_scalar(version).fetch_one(&mut inventory).await.expect("one is live");
    format!("stock_levels_v{}.stock_levels", version.replace('.', "_"))
}

/// Compares the stock and the orders with their events. Says whether they are equal, and what was told.
async fn verify(mart: &TestMart) -> (bool, String) {
    let output = mart.run(&["replay", "stock_levels", "order_details", "--verify"]).await;
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&told).into_owned())
}

/// The lines of progress in a log: events done, of how many, so many a second, so many seconds left.
fn progress(log: &str) -> Vec<[u64; 4]> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("stock_levels: "));
    lines
        .filter_map(|line| {
            let (done, rest) = line.split_once('/')?;
            let (all, rest) = rest.split_once(" events, ")?;
            let (rate, rest) = rest.split_once("/s, ")?;
            let left = rest.strip_suffix(" s left")?;
            let numbers: Result<Vec<u64>, _> = [done, all, rate, left].map(str::parse).into_iter().collect();
            numbers.ok()?.try_into().ok()
        })
        .collect()
}

/// Runs a command with a terminal of 120 columns for what it tells on the way; gives that.
fn on_a_terminal(mut command: Command) -> String {
    let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a terminal can be had");
    let told = std::thread::spawn(move || told_on(master));
    let mut child = command
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(slave))
        .spawn()
        .expect("it can be run");
    // The other end of the terminal is closed with this, when the child is gone too.
    drop(command);
    assert!(child.wait().expect("it ends").success(), "it failed");
    told.join().expect("it was read")
}

fn told_on(terminal: OwnedFd) -> String {
    let (mut terminal, mut told, mut part) = (File::from(terminal), Vec::new(), [0; 4_096]);
    // A terminal whose other end is closed gives an error and no end.
    while let Ok(length @ 1..) = terminal.read(&mut part) {
        told.extend_from_slice(&part[..length]);
    }
    String::from_utf8_lossy(&told).into_owned()
}

/// Rebuilds to the end with customers in the shop. Says how long it took.
async fn rebuilt(mart: &TestMart, items: i64, crowd: &Crowd) -> Duration {
    let before = crowd.placed();
    let rebuilt = watched(mart.begin(&["replay", "stock_levels"])).await;
    assert!(rebuilt.succeeded, "the rebuild failed");
    let (took, memory) = (rebuilt.took, rebuilt.peak_memory >> 20);
    println!(
        "rebuilt within {took:?}, {} events/s, at most {memory} MiB, {} orders meanwhile",
        u128::from(items.unsigned_abs() * EVENTS_OF_AN_ITEM) * 1_000 / took.as_millis().max(1),
        crowd.placed() - before
    );
    assert!(crowd.placed() > before, "nobody could buy meanwhile");
    assert!(rebuilt.peak_memory < MEMORY_BYTES, "it took {memory} MiB");
    assert_eq!(history::wrong_rows(mart.databases(), &live_table(mart).await, items).await, 0);
    took
}

/// Begins rebuilds and kills them at random points of the time that a whole one takes; what is live is whole.
async fn killed(mart: &TestMart, items: i64, took: Duration) {
    let seed = rand::rng().random();
    println!("the seed of the kills is {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for _kill in 0..KILLS {
        let mut rebuild = mart.begin(&["replay", "stock_levels"]);
        let lives = chance.random_range(Duration::ZERO..took);
        // The moment of its end is what is tested, not something to wait for.
        drop(tokio::time::timeout(lives, std::future::pending::<()>()).await);
        // It may have been done by then, but it may not have failed over what the one before left.
        let status = rebuild.status();
        assert!(status.is_none_or(|status| status.success()), "a rebuild failed after one that was killed");
        rebuild.kill();
        let wrong = history::wrong_rows(mart.databases(), &live_table(mart).await, items).await;
        assert_eq!(wrong, 0, "what is live was harmed");
    }
    assert!(
        mart.databases().number("inventory", BUILDING).await <= 1,
        "more than one rebuild was left behind"
    );
}

/// Rebuilds to the end once more, on a terminal; nothing is left of those that were killed.
async fn finished(mart: &TestMart, items: i64) {
    let command = mart.command(&["replay", "stock_levels"]);
    let told = tokio::task::spawn_blocking(move || on_a_terminal(command)).await.expect("it succeeds");
    for part in ["stock_levels [", " events, ", "/s, ", " left"] {
        assert!(told.contains(part), "the bar does not show `{part}`: {told}");
    }
    assert_eq!(mart.databases().number("inventory", BUILDING).await, 0);
    assert_eq!(history::wrong_rows(mart.databases(), &live_table(mart).await, items).await, 0);
}

/// Changes, removes and makes up a row by hand; each must be found and named.
async fn finds_what_was_tampered_with(mart: &TestMart) {
    let table = live_table(mart).await;
    let mut inventory = mart.databases().connect("inventory").await;
    let [changed, removed] =
        [history::item(mart.databases(), 3).await, history::item(mart.databases(), 5).await];
    let made_up = "00000000-0000-4000-8000-000000000000";
    let statements = format!(
        "update {table} set on_hand = on_hand + 1 where id = '{changed}';
         insert into {table} select '{made_up}', product_id, location, on_hand, held, committed, available, reserved,
             sold, low_stock_threshold, status, version from {table} where id = '{removed}';
         delete from {table} where id = '{removed}'"
    );
    inventory.execute(sqlx::raw_sql(&statements)).await.expect("anybody with the password can");
    let (equal, told) = verify(mart).await;
    assert!(!equal, "{told}");
    assert!(told.contains("stock_levels: 3 rows differ"), "{told}");
    for id in [changed.as_str(), &removed, made_up] {
        assert!(told.contains(id), "{id} is not named: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_past_is_rebuilt_while_customers_buy_and_nothing_is_lost() {
    let _room = room().await;
    let events = std::env::var("EVENTS").ok().map_or(EVENTS, |events| events.parse().expect("a number"));
    let items = history::items_for(events);
    let events = items.unsigned_abs() * EVENTS_OF_AN_ITEM;
    let begun = Instant::now();
    let mut mart = with_past(items).await;
    println!("{events} events of {items} items were written within {:?}", begun.elapsed());
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", PIECES).await);
    let crowd = Crowd::of(std::iter::repeat_n(ann.client.clone(), BUYERS), &product);

    let took = rebuilt(&mart, items, &crowd).await;
    killed(&mart, items, took).await;
    finished(&mart, items).await;

    // Everything that was sold is in the new rows, and they equal a fold of all events.
    crowd.goes_on(1, PATIENCE).await;
    let told = crowd.stop().await;
    assert!(told.refused.is_empty() && told.unanswered.is_empty(), "{told:?}");
    println!("{} orders were placed in all", told.placed.len());
    adds_up(&mart.admin().await, &ann, &product, PIECES, &told, SETTLED_WITHIN).await;
    let (equal, told) = verify(&mart).await;
    assert!(equal, "{told}");

    // Progress was told as lines: what is left follows from what is done and how fast.
    let lines = progress(&mart.log());
    assert!(took < TOLD_EVERY || !lines.is_empty(), "no progress was told");
    for [done, all, rate, left] in lines {
        assert!(all >= events && done <= all && rate > 0, "{done}/{all} at {rate}/s");
        assert_eq!(left, (all - done) / rate, "{done}/{all} at {rate}/s leave {left} s");
    }
    finds_what_was_tampered_with(&mart).await;
    mart.stop().await;
}
