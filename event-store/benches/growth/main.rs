//! What becomes of the throughput when a log grows: commands on a log of five million events, beside the same
//! commands on a small one and beside stock cqrs-es with postgres-es at the same size.
//!
//! Commands on existing aggregates are measured three times. Spread over all of the large log with all of these in memory,
//! as in the other benchmark; spread as much with nearly none in memory, so that each command loads one first (on the small
//! log each is used once, for the same reason); and with few in use, in memory, as where most of what is old is at rest.
//!
//! `cargo bench -p event-store --bench growth`; `-- --help` tells the options.

#![expect(clippy::float_arithmetic, reason = "rates and ratios are no money")]

#[path = "../commands/cell.rs"]
mod cell;
#[path = "../commands/database.rs"]
mod database;
#[expect(dead_code, reason = "the benchmark of the commands needs more of it")]
#[path = "../commands/engine.rs"]
mod engine;
mod options;
#[path = "../commands/parcel.rs"]
mod parcel;
mod past;
#[expect(dead_code, reason = "the benchmark of the commands needs the rest of it")]
#[path = "../commands/pgbench.rs"]
mod pgbench;
#[path = "../commands/stock.rs"]
mod stock;

use std::sync::Arc;

use embedded::testing::TemporaryPostgres;
use figures::{Failure, Invocation, Results, Row};

use cell::Workload;
use database::RoundDatabase;
use engine::Engine;
use options::Options;
use stock::Stock;

/// The allocator of the `mart` binary, for both sides of each comparison.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ABOUT: &str = "Measures commands on a log of five million events, beside a small log and beside stock.";
/// How many commands are in flight.
const LEVELS: [usize; 2] = [64, 1_024];
/// Connections of the stock pool: its default.
const STOCK_POOL: u32 = 10;
/// Aggregates of the small log that are used up in each cell, and how many events they have.
const SMALL_AGGREGATES: usize = 20_000;
const SMALL_EVENTS_EACH: i64 = 10;
/// Aggregates that are in use at the same time, where not all are.
const IN_USE: usize = 10_000;

fn main() -> Result<(), Failure> {
    let invocation = match Invocation::read(ABOUT, &[])? {
        Invocation::Measure(invocation) => invocation,
        Invocation::Explain(text) => {
            println!("{text}");
            return Ok(());
        }
    };
    let baseline = stock::runtime_for_stock()?;
    stock::runtime_for_engine()?.block_on(measure(invocation, &Stock::on(&baseline)))
}

/// What the rounds measured at one level.
#[derive(Debug, Default)]
struct Rounds {
    new_small: Vec<f64>,
    new_large: Vec<f64>,
    loaded_small: Vec<f64>,
    loaded_large: Vec<f64>,
    spread_large: Vec<f64>,
    spread_stock: Vec<f64>,
    reads: Vec<f64>,
    in_use_small: Vec<f64>,
    in_use_large: Vec<f64>,
    in_use_stock: Vec<f64>,
}

/// The aggregates of the large log, half of them in the memory of an engine. The halves are taken in turns, so that each lies
/// all over the log, and no engine remembers what another changes.
struct Past {
    remembered: Arc<[String]>,
    engine: Engine,
    others: Arc<[String]>,
}

impl Past {
    async fn remember(large: &RoundDatabase, ids: &[String], options: &Options) -> Self {
        let half = |skipped| ids.iter().skip(skipped).step_by(2).cloned().collect::<Arc<[String]>>();
        let (remembered, others) = (half(0), half(1));
        eprintln!("loading {} aggregates", remembered.len());
        let engine = cell::in_memory(&large.log, &remembered, options).await;
        Self { remembered, engine, others }
    }
}

async fn measure(invocation: figures::Options, stock: &Stock) -> Result<(), Failure> {
    let options = Options::of(&invocation);
    let server = TemporaryPostgres::start().await?;
    eprintln!("{}", database::facts(&server.server_url()).await?);
    let large = RoundDatabase::create(&server.server_url(), 0).await?;
    let ids = past::write(&large, &options).await?;
    let past = Past::remember(&large, &ids, &options).await;
    let mut levels = LEVELS.map(|in_flight| (in_flight, Rounds::default()));
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let small = RoundDatabase::create(&server.server_url(), round).await?;
        for (in_flight, rounds) in &mut levels {
            play(&large, &small, &past, *in_flight, &options, stock, rounds).await?;
        }
        small.remove().await?;
    }
    let mut results = Results::new("growth", invocation.quick);
    let events = options.events;
    results.rows.extend(levels.iter().flat_map(|(in_flight, rounds)| rows(*in_flight, events, rounds)));
    large.remove().await?;
    server.stop().await;
    results.publish()
}

async fn play(
    large: &RoundDatabase,
    small: &RoundDatabase,
    past: &Past,
    in_flight: usize,
    options: &Options,
    stock: &Stock,
    rounds: &mut Rounds,
) -> Result<(), Failure> {
    let fresh: Arc<[String]> = small.fill(SMALL_AGGREGATES, SMALL_EVENTS_EACH).await?.into();
    small.settle().await?;
    large.settle().await?;
    let note = |who: &str, rates: &mut Vec<f64>, measured: cell::Measured| {
        eprintln!("  {who:<34} {in_flight:>5} in flight {:>9.0}/s", measured.per_second);
        rates.push(measured.per_second);
    };
    let run = |engine: Engine, workload: Workload| async move {
        cell::run(&engine, workload, in_flight, options).await
    };
    note("new, small log", &mut rounds.new_small, run(Engine::mart(&small.log), Workload::New).await);
    note("new, large log", &mut rounds.new_large, run(Engine::mart(&large.log), Workload::New).await);
    let measured = run(Engine::mart(&small.log), Workload::once(&fresh)).await;
    note("loaded, small log", &mut rounds.loaded_small, measured);
    let measured = run(Engine::mart(&large.log), Workload::Any(Arc::clone(&past.others))).await;
    note("loaded, large log", &mut rounds.loaded_large, measured);
    let measured = run(past.engine.clone(), Workload::Any(Arc::clone(&past.remembered))).await;
    note("in memory, large log", &mut rounds.spread_large, measured);
    let workload = Workload::Any(Arc::clone(&past.remembered));
    let measured = stock.run(large, STOCK_POOL, workload, in_flight, options).await?;
    note("spread, large table of stock", &mut rounds.spread_stock, measured);
    if let Some(rate) = pgbench::reads(&large.url, options.events, options.measured).await? {
        eprintln!("  {:<34} {:>15} {rate:>9.0}/s", "pgbench reads aggregates", "");
        rounds.reads.push(rate);
    }
    let of_small: Arc<[String]> = fresh.iter().take(IN_USE).cloned().collect();
    let each = past.others.len().div_ceil(IN_USE);
    let of_large: Arc<[String]> = past.others.iter().step_by(each).cloned().collect();
    let measured = run(cell::in_memory(&small.log, &of_small, options).await, Workload::Any(of_small)).await;
    note("in use, small log", &mut rounds.in_use_small, measured);
    let engine = cell::in_memory(&large.log, &of_large, options).await;
    let measured = run(engine, Workload::Any(Arc::clone(&of_large))).await;
    note("in use, large log", &mut rounds.in_use_large, measured);
    let measured = stock.run(large, STOCK_POOL, Workload::Any(of_large), in_flight, options).await?;
    note("in use, large table of stock", &mut rounds.in_use_stock, measured);
    Ok(())
}

fn rows(in_flight: usize, events: usize, rounds: &Rounds) -> Vec<Row> {
    let size = format!("{events} events");
    let new = Row::new(
        &format!("new aggregates at {size}, {in_flight} in flight"),
        "commands/s",
        &rounds.new_large,
    )
    .beside("empty log", &rounds.new_small)
    .at_least_times(0.85);
    let name = format!("existing, spread, in memory, at {size}, {in_flight} in flight");
    let spread = Row::new(&name, "commands/s", &rounds.spread_large)
        .beside("small log", &rounds.in_use_small)
        .at_least_times(0.5);
    let spread_stock = Row::new(&name, "commands/s", &rounds.spread_large)
        .beside("stock at that size", &rounds.spread_stock)
        .at_least_times(8.0);
    let name = format!("existing, spread, each loaded, at {size}, {in_flight} in flight");
    let loaded = Row::new(&name, "commands/s", &rounds.loaded_large)
        .beside("small log", &rounds.loaded_small)
        .at_least_times(0.5);
    let loaded_stock = Row::new(&name, "commands/s", &rounds.loaded_large)
        .beside("stock at that size", &rounds.spread_stock)
        .at_least_times(8.0);
    let reads = (!rounds.reads.is_empty()).then(|| {
        let name = format!("read by pgbench, nothing done, at {size}, beside {in_flight} in flight");
        Row::new(&name, "aggregates/s", &rounds.reads).beside("stock's commands", &rounds.spread_stock)
    });
    let name = format!("existing, {IN_USE} in use and in memory, at {size}, {in_flight} in flight");
    let in_use = Row::new(&name, "commands/s", &rounds.in_use_large)
        .beside("small log", &rounds.in_use_small)
        .at_least_times(0.5);
    let in_use_stock = Row::new(&name, "commands/s", &rounds.in_use_large)
        .beside("stock at that size", &rounds.in_use_stock)
        .at_least_times(8.0);
    let spread = [new, spread, spread_stock, loaded, loaded_stock];
    spread.into_iter().chain(reads).chain([in_use, in_use_stock]).collect()
}
