//! One round: every cell once, baselines beside what they are compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Failure;
use crate::alone;
use crate::cell::{self, Measured, Workload};
use crate::database::RoundDatabase;
use crate::engine::Engine;
use crate::options::Options;
use crate::stock::Stock;
use crate::{pgbench, wire};

/// How many commands are in flight.
pub(crate) const LEVELS: [usize; 3] = [1, 64, 1_024];
const MOST_IN_FLIGHT: usize = LEVELS[LEVELS.len() - 1];
/// The pool sizes stock is tried with: its own default, and one that suits these rows better or worse.
pub(crate) const POOLS: [u32; 2] = [10, 32];

/// Over how many aggregates a row of existing ones spreads.
const AGGREGATES: usize = 10_000;
/// How many events each of them has at first.
const EVENTS_EACH: i64 = 4;
/// How many events a hot aggregate has at first.
const HOT_EVENTS: i64 = 1_000;
/// Up to how many writers of one aggregate stock is measured with. At 1,024 nearly every attempt ends in a
/// conflict: a cell sees a handful of accepted commands or none, and that is no figure.
const HOT_STOCK_IN_FLIGHT: usize = 64;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    New,
    NewKeyed,
    ExistingCold,
    ExistingWarm,
    Wire,
    Hot,
}

impl Row {
    pub(crate) const ALL: [Self; 6] =
        [Self::New, Self::NewKeyed, Self::ExistingCold, Self::ExistingWarm, Self::Wire, Self::Hot];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new aggregates",
            Self::NewKeyed => "new, idempotency key and answer",
            Self::ExistingCold => "existing, none in memory",
            Self::ExistingWarm => "existing, all in memory",
            Self::Wire => "existing, batches made before",
            Self::Hot => "one hot aggregate",
        }
    }

    /// What the command line calls it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::NewKeyed => "keyed",
            Self::ExistingCold => "cold",
            Self::ExistingWarm => "warm",
            Self::Wire => "wire",
            Self::Hot => "hot",
        }
    }

    /// The row whose stock figures this one is compared with: stock keeps nothing in memory and knows no
    /// idempotency keys, so that some rows share theirs.
    pub(crate) fn baseline(self) -> Self {
        match self {
            Self::New | Self::NewKeyed => Self::New,
            Self::ExistingCold | Self::ExistingWarm | Self::Wire => Self::ExistingWarm,
            Self::Hot => Self::Hot,
        }
    }
}

/// All figures of a run, round by round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) mart: BTreeMap<(Row, usize), Vec<Measured>>,
    pub(crate) stock: BTreeMap<(Row, usize, u32), Vec<Measured>>,
    pub(crate) pgbench: Vec<f64>,
    /// What the server adds by itself: see [`alone`].
    pub(crate) alone: Vec<f64>,
}

impl Results {
    fn mart(&mut self, row: Row, in_flight: usize, measured: Measured) {
        tell("mart", row, in_flight, &measured);
        self.mart.entry((row, in_flight)).or_default().push(measured);
    }

    fn stock(&mut self, row: Row, in_flight: usize, pool: u32, measured: Measured) {
        tell(&format!("stock, pool of {pool}"), row, in_flight, &measured);
        self.stock.entry((row, in_flight, pool)).or_default().push(measured);
    }
}

fn tell(who: &str, row: Row, in_flight: usize, measured: &Measured) {
    let Measured { per_second, p50_ms, p99_ms } = measured;
    eprintln!(
        "  {:<32} {in_flight:>5} in flight  {who:<18} {per_second:>9.0}/s  p50 {p50_ms:>8.2} ms  p99 {p99_ms:>8.2} ms",
        row.name()
    );
}

/// Plays one round in a database of its own.
pub(crate) async fn play(
    server_url: &str,
    round: usize,
    options: &Options,
    stock: &Stock,
    results: &mut Results,
) -> Result<(), Failure> {
    let database = RoundDatabase::create(server_url, round).await?;
    database.settle().await?;
    match pgbench::inserts(&database.url, options.measured).await? {
        Some(rate) => {
            eprintln!("  pgbench, single-row inserts: {rate:.0}/s");
            results.pgbench.push(rate);
        }
        None => eprintln!("  pgbench skipped: it is not in the folder of the server"),
    }
    for in_flight in LEVELS {
        new_aggregates(&database, in_flight, options, stock, results).await?;
    }
    for in_flight in LEVELS {
        existing_aggregates(&database, in_flight, options, stock, results).await?;
    }
    for in_flight in LEVELS {
        hot_aggregate(&database, in_flight, options, stock, results).await?;
    }
    database.remove().await
}

/// Plays one cell of the engine alone.
pub(crate) async fn play_cell(
    server_url: &str,
    row: Row,
    in_flight: usize,
    options: &Options,
) -> Result<(), Failure> {
    let database = RoundDatabase::create(server_url, 1).await?;
    let (engine, workload) = match row {
        Row::Wire => {
            let ids = database.fill(AGGREGATES, EVENTS_EACH).await?.into();
            database.settle().await?;
            tell("mart", row, in_flight, &wire::run(&database, &ids, in_flight, options).await?);
            return database.remove().await;
        }
        Row::New => (Engine::mart(&database.log), Workload::New),
        Row::NewKeyed => (Engine::mart_keyed(&database.log), Workload::New),
        Row::ExistingCold => {
            let ids = database.fill(AGGREGATES, EVENTS_EACH).await?.into();
            (Engine::mart(&database.log), Workload::once(&ids))
        }
        Row::ExistingWarm => {
            let ids = database.fill(AGGREGATES, EVENTS_EACH).await?.into();
            (cell::in_memory(&database.log, &ids, options).await, Workload::Any(ids))
        }
        Row::Hot => {
            let ids = database.fill(1, HOT_EVENTS).await?.into();
            (Engine::mart(&database.log), Workload::Any(ids))
        }
    };
    database.settle().await?;
    tell("mart", row, in_flight, &cell::run(&engine, workload, in_flight, options).await);
    database.remove().await
}

async fn new_aggregates(
    database: &RoundDatabase,
    in_flight: usize,
    options: &Options,
    stock: &Stock,
    results: &mut Results,
) -> Result<(), Failure> {
    database.settle().await?;
    for pool in POOLS {
        let measured = stock.run(database, pool, Workload::New, in_flight, options).await?;
        results.stock(Row::New, in_flight, pool, measured);
    }
    let measured = cell::run(&Engine::mart(&database.log), Workload::New, in_flight, options).await;
    results.mart(Row::New, in_flight, measured);
    let measured = cell::run(&Engine::mart_keyed(&database.log), Workload::New, in_flight, options).await;
    results.mart(Row::NewKeyed, in_flight, measured);
    Ok(())
}

/// Each level has aggregates of its own, so that none meets the streams another has made longer.
async fn existing_aggregates(
    database: &RoundDatabase,
    in_flight: usize,
    options: &Options,
    stock: &Stock,
    results: &mut Results,
) -> Result<(), Failure> {
    let ids: Arc<[String]> = database.fill(AGGREGATES, EVENTS_EACH).await?.into();
    database.settle().await?;
    for pool in POOLS {
        let workload = Workload::Any(Arc::clone(&ids));
        let measured = stock.run(database, pool, workload, in_flight, options).await?;
        results.stock(Row::ExistingWarm, in_flight, pool, measured);
    }
    let cold = Engine::mart(&database.log);
    results.mart(
        Row::ExistingCold,
        in_flight,
        cell::run(&cold, Workload::once(&ids), in_flight, options).await,
    );
    let warm = cell::in_memory(&database.log, &ids, options).await;
    let measured = cell::run(&warm, Workload::Any(Arc::clone(&ids)), in_flight, options).await;
    results.mart(Row::ExistingWarm, in_flight, measured);
    let measured = wire::run(database, &ids, in_flight, options).await?;
    results.mart(Row::Wire, in_flight, measured);
    if in_flight == MOST_IN_FLIGHT {
        let rate = alone::run(database, &ids, options.measured).await?;
        eprintln!("  the server alone, of the same aggregates: {rate:.0}/s");
        results.alone.push(rate);
    }
    Ok(())
}

/// Each engine and level has an aggregate of its own: it is longer after a cell, and the longer it is the
/// slower is stock.
async fn hot_aggregate(
    database: &RoundDatabase,
    in_flight: usize,
    options: &Options,
    stock: &Stock,
    results: &mut Results,
) -> Result<(), Failure> {
    let ids = database.fill(POOLS.len() + 1, HOT_EVENTS).await?;
    database.settle().await?;
    let mut ids = ids.into_iter().map(|id| Arc::<[String]>::from([id]));
    let mut next = || Workload::Any(ids.next().expect("one was made for each engine"));
    if in_flight <= HOT_STOCK_IN_FLIGHT {
        for pool in POOLS {
            let measured = stock.run(database, pool, next(), in_flight, options).await?;
            results.stock(Row::Hot, in_flight, pool, measured);
        }
    }
    let measured = cell::run(&Engine::mart(&database.log), next(), in_flight, options).await;
    results.mart(Row::Hot, in_flight, measured);
    Ok(())
}
