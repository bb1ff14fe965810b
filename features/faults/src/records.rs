//! Records that the harness writes onto the topics itself: old ones again, and some that cannot be read in the
//! places of those that come next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use features::topics::{self, Record};
use nix::sys::signal::Signal;
use sqlx::{PgConnection, Row};

use crate::checks::FOREIGN;
use crate::world::World;

/// How many old records come again at most.
const REPEATED: usize = 300;
/// The pause between two looks at a log whose next records are poisoned.
const LOOK_EVERY: Duration = Duration::from_millis(15);
/// How many of the next records are poisoned at once at most.
const POISONED: i64 = 200;
/// What no reader can read.
const POISONS: [&[u8]; 4] = [b"", b"\xff\xff\xff\xff no event", b"\x08\x96\x01 nonsense", b"\x0a\x7f\x01"];

/// Writes the latest records of a topic again: the latest first, and so those of different partitions in another
/// order.
///
/// # Errors
/// When the broker does not answer.
pub async fn repeat(world: &World, service: &'static str) -> Result<()> {
    let servers = world.broker.bootstrap_servers().await;
    let topic = topics::topic_of(service);
    let written = tokio::task::spawn_blocking(move || -> Result<()> {
        let published = topics::try_read(&servers, &topic)?;
        let again = published.into_iter().rev().take(REPEATED).map(marked).collect::<Vec<_>>();
        Ok(topics::try_write(&servers, &topic, &again)?)
    });
    written.await.context("records could not be repeated")?
}

fn marked(record: Record) -> Record {
    let mut headers = record.headers;
    headers.push((FOREIGN.to_owned(), b"1".to_vec()));
    Record { headers, ..record }
}

/// Holds the relays back for a time, and meanwhile writes records that cannot be read, with the places of the
/// events that are committed.
///
/// # Errors
/// When the broker or a database does not answer.
pub async fn poison(world: &World, service: &'static str, lasting: Duration, choice: u64) -> Result<()> {
    let relays = world.role("work");
    for relay in &relays {
        relay.signal(Signal::SIGSTOP);
    }
    let poisoned = poison_while_silent(world, service, lasting, choice).await;
    for relay in &relays {
        relay.signal(Signal::SIGCONT);
    }
    poisoned
}

async fn poison_while_silent(
    world: &World,
    service: &'static str,
    lasting: Duration,
    choice: u64,
) -> Result<()> {
    let until = Instant::now() + lasting;
    let mut connection = world.postgres.connect(service).await?;
    let mut done = relayed(&mut connection, service).await?;
    while Instant::now() < until {
        let records = next(&mut connection, done, choice).await?;
        if let Some((position, _)) = records.last() {
            done = *position;
            let (servers, topic) = (world.broker.bootstrap_servers().await, topics::topic_of(service));
            let records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
            tokio::task::spawn_blocking(move || topics::try_write(&servers, &topic, &records))
                .await
                .context("records could not be poisoned")??;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn relayed(connection: &mut PgConnection, service: &str) -> Result<i64> {
    let position = sqlx::query_scalar("select position from event_store.relay where source = $1")
        .bind(service)
        .fetch_optional(connection)
        .await?;
    Ok(position.unwrap_or(0))
}

/// Poison with the places of the events after a position.
async fn next(connection: &mut PgConnection, after: i64, choice: u64) -> Result<Vec<(i64, Record)>> {
    let rows = sqlx::query(
        "select e.position, e.partition, e.aggregate_id, coalesce((select max(b.position) from event_store.events b \
         where b.partition = e.partition and b.position < e.position), 0) as previous \
         from event_store.events e where e.position > $1 order by e.position limit $2",
    )
    .bind(after)
    .bind(POISONED)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let (position, partition): (i64, i16) = (row.try_get("position")?, row.try_get("partition")?);
            let (aggregate, previous): (String, i64) =
                (row.try_get("aggregate_id")?, row.try_get("previous")?);
            let kind = (position.cast_unsigned() ^ choice) % POISONS.len() as u64;
            let headers = HashMap::from([
                ("mart-position", position.to_string()),
                ("mart-previous", previous.to_string()),
                (FOREIGN, "1".to_owned()),
            ]);
            let record = Record {
                partition: i32::from(partition),
                key: aggregate.into_bytes(),
                payload: POISONS[usize::try_from(kind).unwrap_or(0)].to_vec(),
                headers: headers
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into_bytes()))
                    .collect(),
            };
            Ok((position, record))
        })
        .collect()
}
