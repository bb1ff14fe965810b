//! The rebuild of a read model: a new generation beside the live one, switched in one step.
//!
//! The new table gets its rows from the logs in chunks, folded in memory and written when memory is full or
//! the end is reached, without secondary indexes; then the indexes, then what happened meanwhile through the
//! ordinary subscription, then the switch. Commands and queries go on throughout. A rebuild that was killed
//! leaves a generation nobody reads; the next one drops it and starts clean.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use event_store::connections::Connections;
use event_store::read_your_writes::{self, Place};
use event_store::subscription::{ApplyError, Delivered, Source};
use event_store::{Error, Log, Result, checkpoints, crash_point, feed, parked};
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::event::Happened;
use crate::generations::{self, GRACE_SECONDS, Generation, Status};
use crate::projector::{self, Sources};
use crate::read_model::{ReadModel, Rows, STORED_AT_ONCE};

/// How many events are read at once.
const CHUNK_EVENTS: i64 = 10_000;
/// How many chunks are on their way while one is folded.
const CHUNKS_AHEAD: usize = 2;
/// How many rows are held in memory before they are written.
const HELD_ROWS: usize = 100_000;
/// How long the new generation may take to catch up before the rebuild gives up.
const CATCH_UP: Duration = Duration::from_secs(600);
/// How long a verification waits for the live generation to reach the end of the logs.
const VERIFY_WAIT: Duration = Duration::from_secs(60);
/// What a verification says first in its transaction: how long a chunk may take to be read and folded.
const WAITS_FOR_CHUNKS: &str = "set local idle_in_transaction_session_timeout = '60s'";
/// How long after its retirement a generation may still be read, and kept up by a projector that has not
/// noticed.
const STILL_READ: TimeDelta = TimeDelta::seconds(GRACE_SECONDS + 5);
/// How many differences a verification names.
const NAMED_DIFFERENCES: i64 = 10;

/// How far a rebuild goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether the new generation is only compared with the live one, and dropped again.
    pub verify: bool,
    /// Up to where: then the new generation is not switched to, but kept to look at.
    pub to: Option<Until>,
    /// Whether what is replaced is dropped as well.
    pub drop_old: bool,
}

/// A point in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// A position, of each log that is read.
    Position(i64),
    /// A time, by the database's clock.
    Time(DateTime<Utc>),
}

/// Hears how a rebuild goes.
pub trait Progress: Send + Sync {
    /// So many events are to be read.
    fn begins(&self, read_model: &str, events: u64);
    /// So many more were read.
    fn advances(&self, events: u64);
    /// What is being done now.
    fn does(&self, what: &str);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn begins(&self, _read_model: &str, _events: u64) {}
    fn advances(&self, _events: u64) {}
    fn does(&self, _what: &str) {}
}

/// What came of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The new generation is live.
    Switched(Generation),
    /// The rebuilt rows equal the live ones; so many.
    Equal {
        /// How many rows there are.
        rows: i64,
    },
    /// They differ.
    Different {
        /// How many rows differ.
        rows: i64,
        /// The keys of the first of them.
        keys: Vec<String>,
    },
    /// The past stands in this schema, to be looked at and dropped with `--drop-old`.
    Kept(Generation),
    /// The rebuild was stopped; nothing changed.
    Stopped,
}

/// Whether somebody rebuilds the read model right now.
///
/// # Errors
/// When the database is unreachable.
pub async fn is_running(home: &Log, name: &str) -> Result<bool> {
    // The lock is looked for and not tried: whoever tried it would for a moment hold it, and turn away a rebuild
    // that begins in that moment.
    let held: bool = sqlx::query_scalar(
        "select exists (select from pg_locks l join pg_database d on d.oid = l.database \
         where d.datname = current_database() and l.locktype = 'advisory' and l.objsubid = 1 and l.granted \
           and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('rebuild ' || $1, 0))",
    )
    .bind(name)
    .fetch_one(home.database())
    .await?;
    Ok(held)
}

/// Rebuilds a read model.
///
/// # Errors
/// When another rebuild of it is running, the database is unreachable, or an event cannot be folded. Then
/// the live generation is as it was.
pub async fn run<M: ReadModel>(
    home: &Log,
    sources: &Sources,
    options: &Options,
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<Outcome> {
    // The lock lives on a connection of its own: it goes when this process goes, however it goes.
    let mut guard =
        <sqlx::postgres::PgConnection as Connection>::connect_with(home.connect_options()).await?;
    let ours: bool = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended('rebuild ' || $1, 0))")
        .bind(M::NAME)
        .fetch_one(&mut guard)
        .await?;
    if !ours {
        return Err(Error::Malformed(format!("{} is being rebuilt by another process", M::NAME)));
    }
    generations::ensure::<M>(home).await?;
    for left in generations::list(home.database(), M::NAME).await? {
        if left.status == Status::Building {
            generations::drop(home.database(), &left).await?;
        }
    }
    let mut transaction = home.database().begin().await?;
    let generation = generations::create::<M>(&mut transaction, "building").await?;
    transaction.commit().await?;

    let mut outcome = build::<M>(home, sources, options, progress, stop, &generation).await;
    match &outcome {
        Ok(Outcome::Switched(_) | Outcome::Kept(_)) => {}
        Ok(Outcome::Equal { .. } | Outcome::Different { .. } | Outcome::Stopped) => {
            generations::drop(home.database(), &generation).await?;
        }
        // A switch whose answer was lost has happened all the same, and what is live now must not be dropped.
        Err(error) => {
            if generations::is_live(home.database(), &generation).await? {
                tracing::warn!(%error, read_model = M::NAME, "the rows were switched, and then something failed");
                outcome = Ok(Outcome::Switched(Generation { status: Status::Live, ..generation }));
            } else {
                generations::drop(home.database(), &generation).await?;
            }
        }
    }
    if options.drop_old && matches!(outcome, Ok(Outcome::Switched(_))) {
        progress.does("waiting for the last readers of the old rows");
        drop_old::<M>(home).await?;
    }
    guard.close().await.map_err(Error::from)?;
    outcome
}

/// Drops every generation that is not live, once nobody reads it any more. Says how many.
///
/// # Errors
/// When the database is unreachable.
pub async fn drop_old<M: ReadModel>(home: &Log) -> Result<usize> {
    let old: Vec<Generation> = generations::list(home.database(), M::NAME)
        .await?
        .into_iter()
        .filter(|generation| matches!(generation.status, Status::Retired | Status::Kept))
        .collect();
    let retired = old.iter().filter(|generation| generation.status == Status::Retired);
    if let Some(latest) = retired.map(|generation| generation.changed_at).max()
        && let Ok(pause) = (latest + STILL_READ - Utc::now()).to_std()
    {
        tokio::time::sleep(pause).await;
    }
    for generation in &old {
        generations::drop(home.database(), generation).await?;
    }
    Ok(old.len())
}

async fn build<M: ReadModel>(
    home: &Log,
    sources: &Sources,
    options: &Options,
    progress: &dyn Progress,
    stop: &CancellationToken,
    generation: &Generation,
) -> Result<Outcome> {
    let feeds = sources.of::<M>()?;
    let mut ends = Vec::with_capacity(feeds.len());
    for source in &feeds {
        ends.push(end(source, options.to).await?);
    }
    progress.begins(M::NAME, ends.iter().sum::<i64>().unsigned_abs());
    let mut connection = home.database().acquire().await?;
    // Those who sell meanwhile need the others.
    let writing = home.connections_apart(STORED_AT_ONCE as u32);
    let mut rows = Rows::<M>::default();
    let mut spilled = false;
    for (source, end) in feeds.iter().zip(&ends) {
        let reading = source.log.connections_apart(CHUNKS_AHEAD as u32);
        // Positions are dense, so it is known where each chunk begins.
        let mut chunks = (0..*end)
            .step_by(CHUNK_EVENTS as usize)
            .map(|after| read_ahead(&source.log, &reading, after, *end));
        let mut ahead: VecDeque<_> = chunks.by_ref().take(CHUNKS_AHEAD).collect();
        while let Some(chunk) = ahead.pop_front() {
            if stop.is_cancelled() {
                return Ok(Outcome::Stopped);
            }
            let chunk = chunk.await.map_err(|error| Error::Malformed(error.to_string()))??;
            ahead.extend(chunks.next());
            let read = chunk.len() as u64;
            let happened = wanted(source, chunk).await?;
            let keys = happened.iter().flat_map(M::keys);
            if spilled {
                rows.fetch(&mut *connection, &generation.schema(), keys).await.map_err(plain)?;
            } else {
                rows.assume_new(keys);
            }
            for happened in &happened {
                fold(&mut rows, happened)?;
            }
            if rows.len() > HELD_ROWS {
                let full = std::mem::take(&mut rows);
                full.store_many(&writing, &generation.schema()).await.map_err(plain)?;
                spilled = true;
            }
            progress.advances(read);
        }
    }
    progress.does("writing rows");
    rows.store_many(&writing, &generation.schema()).await.map_err(plain)?;
    progress.does("building indexes");
    generations::indexes::<M>(&mut connection, generation).await?;
    connection.execute(format!("analyze {}.{}", generation.schema(), M::NAME).as_str()).await?;
    drop(connection);
    for (source, end) in feeds.iter().zip(&ends) {
        checkpoints::load(home.database(), &generation.subscription(), source.log.source(), *end).await?;
    }
    if options.to.is_some() {
        return Ok(Outcome::Kept(generations::keep(home, generation).await?));
    }
    if options.verify {
        progress.does("comparing with the live rows");
        return compare::<M>(home, &feeds, &ends, generation).await;
    }
    progress.does("catching up");
    catch_up::<M>(home, sources, &feeds, generation, stop).await
}

/// Begins to read the chunk behind `after`, while those before are folded.
fn read_ahead(
    log: &Log,
    connections: &Connections,
    after: i64,
    end: i64,
) -> JoinHandle<Result<Vec<event_store::Recorded>>> {
    let (log, connections) = (log.clone(), connections.clone());
    let limit = CHUNK_EVENTS.min(end - after);
    tokio::spawn(async move {
        let events = feed::read(&connections, log.source(), after, limit).await?;
        if (events.len() as i64) < limit {
            let (source, found) = (log.source(), events.len());
            return Err(Error::Malformed(format!("{source} has {found} of {limit} events behind {after}")));
        }
        Ok(events)
    })
}

/// The position a source is read up to.
async fn end(source: &Source, to: Option<Until>) -> Result<i64> {
    let head = feed::head(source.log.database()).await?;
    match to {
        None => Ok(head),
        Some(Until::Position(position)) => Ok(position.clamp(0, head)),
        Some(Until::Time(time)) => {
            let position: i64 = sqlx::query_scalar(
                "select coalesce(max(position), 0) from event_store.events where recorded_at <= $1",
            )
            .bind(time)
            .fetch_one(source.log.database())
            .await?;
            Ok(position)
        }
    }
}

async fn wanted(source: &Source, chunk: Vec<event_store::Recorded>) -> Result<Vec<Happened>> {
    let mut happened = Vec::with_capacity(chunk.len());
    for recorded in chunk {
        if !source.aggregates.is_empty() && !source.aggregates.contains(&recorded.aggregate_type.as_str()) {
            continue;
        }
        let mut delivered = Delivered::stored(source.log.source(), recorded);
        if source.personal {
            delivered.open(&source.log).await?;
        }
        let what =
            format!("{} at position {} of {}", delivered.event_type, delivered.position, source.log.source());
        happened.push(Happened::read(&delivered).map_err(|error| named(error, &what))?);
    }
    Ok(happened)
}

fn fold<M: ReadModel>(rows: &mut Rows<M>, happened: &Happened) -> Result<()> {
    let what = format!("the event at position {} of {}", happened.position, happened.source);
    rows.fold(happened).map_err(|error| named(error, &what))
}

/// Says of which event an error is: a rebuild has nowhere to park it.
fn named(error: ApplyError, what: &str) -> Error {
    match error {
        ApplyError::Engine(error) => error,
        ApplyError::Event(text) => Error::Malformed(format!("{what}: {text}")),
    }
}

fn plain(error: ApplyError) -> Error {
    match error {
        ApplyError::Engine(error) => error,
        ApplyError::Event(text) => Error::Malformed(text),
    }
}

/// Follows the logs until the new generation has seen what they held when this began, then switches.
async fn catch_up<M: ReadModel>(
    home: &Log,
    sources: &Sources,
    feeds: &[Source],
    generation: &Generation,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let token = CancellationToken::new();
    let following = tokio::spawn(projector::subscription::<M>(home, sources, generation)?.run(token.clone()));
    let outcome = switch_when_caught_up::<M>(home, feeds, generation, stop).await;
    // The projectors take over from here; leaving gives them the partitions at once.
    token.cancel();
    following.await.map_err(|error| Error::Malformed(error.to_string()))?;
    outcome
}

async fn switch_when_caught_up<M: ReadModel>(
    home: &Log,
    feeds: &[Source],
    generation: &Generation,
    stop: &CancellationToken,
) -> Result<Outcome> {
    for source in feeds {
        let position = feed::head(source.log.database()).await?;
        let subscription = generation.subscription();
        let reached = tokio::select! {
            reached = wait_for(home, &subscription, source, position, CATCH_UP) => reached?,
            () = stop.cancelled() => return Ok(Outcome::Stopped),
        };
        if !reached {
            return Err(Error::Malformed(format!("the new rows of {} do not catch up", M::NAME)));
        }
    }
    let waiting = parked::count(home.database(), &generation.subscription()).await?;
    if waiting > 0 {
        return Err(Error::Malformed(format!("{waiting} events of {} cannot be applied", M::NAME)));
    }
    crash_point!("rebuild-before-switch", M::NAME, Err(Error::ShuttingDown));
    generations::switch(home, generation).await?;
    crash_point!("rebuild-after-switch", M::NAME, Err(Error::ShuttingDown));
    Ok(Outcome::Switched(Generation { status: Status::Live, ..generation.clone() }))
}

/// Waits until a subscription has applied everything of a source up to a position; says whether it did.
async fn wait_for(
    home: &Log,
    subscription: &str,
    source: &Source,
    position: i64,
    limit: Duration,
) -> Result<bool> {
    let place = Place { source: source.log.source().to_owned(), partition: None, position };
    read_your_writes::wait(home, &[subscription], &place, Some(source.log.database()), limit).await
}

/// Brings the new generation to exactly where the live one stands, which is held there meanwhile, and
/// compares them row by row.
async fn compare<M: ReadModel>(
    home: &Log,
    feeds: &[Source],
    ends: &[i64],
    generation: &Generation,
) -> Result<Outcome> {
    let live = generations::own::<M>(home.database())
        .await?
        .ok_or_else(|| Error::Malformed(format!("{} has no live generation", M::NAME)))?;
    if live.code_version() != M::VERSION {
        return Err(Error::Rebuilding(M::NAME.to_owned()));
    }
    let subscription = live.subscription();
    for (source, end) in feeds.iter().zip(ends) {
        // What was built cannot be taken back to where a live generation that lags stands.
        if !wait_for(home, &subscription, source, *end, VERIFY_WAIT).await? {
            return Err(Error::Malformed(format!("{} is not kept up: no projector runs", M::NAME)));
        }
    }
    let mut transaction = home.database().begin().await?;
    // It waits while the logs are read, for longer than other transactions may.
    transaction.execute(WAITS_FOR_CHUNKS).await?;
    let mut rows = Rows::<M>::default();
    for source in feeds {
        let standing = sqlx::query(
            "select partition, position from event_store.checkpoints \
             where subscription = $1 and source = $2 order by partition for update",
        )
        .bind(live.subscription())
        .bind(source.log.source())
        .fetch_all(&mut *transaction)
        .await?;
        let built =
            checkpoints::load(home.database(), &generation.subscription(), source.log.source(), 0).await?;
        for row in standing {
            let (partition, position): (i16, i64) = (row.try_get(0)?, row.try_get(1)?);
            let mut after = built.get(&partition).copied().unwrap_or_default();
            loop {
                let chunk =
                    feed::read_partitions(source.log.database(), &[partition], after, position, CHUNK_EVENTS)
                        .await?;
                let Some(last) = chunk.last() else { break };
                after = last.position;
                let happened = wanted(source, chunk).await?;
                let keys = happened.iter().flat_map(M::keys);
                rows.fetch(&mut *transaction, &generation.schema(), keys).await.map_err(plain)?;
                for happened in &happened {
                    fold(&mut rows, happened)?;
                }
            }
        }
    }
    rows.store(&mut transaction, &generation.schema()).await.map_err(plain)?;
    let outcome = differences::<M>(&mut transaction, &live, generation).await?;
    transaction.rollback().await?;
    Ok(outcome)
}

async fn differences<M: ReadModel>(
    connection: &mut PgConnection,
    live: &Generation,
    built: &Generation,
) -> Result<Outcome> {
    let (key, name) = (M::KEY, M::NAME);
    let (ours, theirs) = (live.schema(), built.schema());
    let different = format!(
        "from {ours}.{name} a full join {theirs}.{name} b on a.{key} = b.{key} \
         where row_to_json(a)::text is distinct from row_to_json(b)::text"
    );
    let rows: i64 =
        sqlx::query_scalar(&format!("select count(*) {different}")).fetch_one(&mut *connection).await?;
    if rows == 0 {
        let rows = sqlx::query_scalar(&format!("select count(*) from {ours}.{name}"))
            .fetch_one(&mut *connection)
            .await?;
        return Ok(Outcome::Equal { rows });
    }
    let keys = sqlx::query_scalar(&format!(
        "select coalesce(a.{key}, b.{key})::text as key {different} order by key limit $1"
    ))
    .bind(NAMED_DIFFERENCES)
    .fetch_all(&mut *connection)
    .await?;
    Ok(Outcome::Different { rows, keys })
}
