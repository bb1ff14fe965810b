//! Waiting until nothing is to be done any more, which must not take long when everything works.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use features::databases::SERVICES;
use sqlx::Row;

use crate::postgres::Postgres;

/// How long it may take from the end of the last fault. Orders that are not paid expire within it.
const QUIET_WITHIN: Duration = Duration::from_secs(30);
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The ends of all logs, by service and partition.
type Ends = HashMap<(String, i16), i64>;

/// Waits until all logs are published and read to their ends, and no work is due or will be. Says how long it
/// took, or what is still to be done when the time is over.
///
/// One look is not enough: what is appended while it goes on, by an order that expires just then, is read by nobody
/// yet. It rests when a second look finds the logs where the first one had found nothing to do.
///
/// # Errors
/// When the databases do not answer.
pub async fn settle(postgres: &Postgres) -> Result<std::result::Result<Duration, String>> {
    let started = Instant::now();
    let mut rested: Option<Ends> = None;
    loop {
        let (ends, open) = open(postgres).await?;
        let elapsed = started.elapsed();
        if open.is_empty() && rested.as_ref() == Some(&ends) {
            return Ok(Ok(elapsed));
        }
        rested = open.is_empty().then_some(ends);
        if elapsed > QUIET_WITHIN {
            let open = if rested.is_some() { vec!["something that goes on".to_owned()] } else { open };
            return Ok(Err(format!("after {QUIET_WITHIN:?} there is still {}", open.join("; "))));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where the logs end, and what is still to be done.
async fn open(postgres: &Postgres) -> Result<(Ends, Vec<String>)> {
    let mut open = Vec::new();
    let mut ends = Ends::new();
    let mut connections = Vec::new();
    for service in SERVICES {
        let mut connection = postgres.connect(service).await?;
        let rows = sqlx::query(
            "select partition, max(position) as position from event_store.events group by partition order by partition",
        )
        .fetch_all(&mut connection)
        .await?;
        for row in rows {
            ends.insert((service.to_owned(), row.try_get("partition")?), row.try_get("position")?);
        }
        connections.push((service, connection));
    }
    for (service, mut connection) in connections {
        let head =
            ends.iter().filter(|((source, _), _)| source == service).map(|(_, end)| *end).max().unwrap_or(0);
        let relayed: Option<i64> =
            sqlx::query_scalar("select position from event_store.relay where source = $1")
                .bind(service)
                .fetch_optional(&mut connection)
                .await?;
        if relayed.unwrap_or(0) < head {
            open.push(format!("{service} is published to {relayed:?} of {head}"));
        }
        let rows = sqlx::query(
            "select subscription, source, partition, position from event_store.checkpoints \
             order by subscription, source, partition",
        )
        .fetch_all(&mut connection)
        .await?;
        for row in rows {
            let (subscription, source): (String, String) =
                (row.try_get("subscription")?, row.try_get("source")?);
            let (partition, position): (i16, i64) = (row.try_get("partition")?, row.try_get("position")?);
            let end = ends.get(&(source.clone(), partition)).copied().unwrap_or(0);
            if position < end {
                open.push(format!("{subscription} has read {source}/{partition} to {position} of {end}"));
            }
        }
        let rows = sqlx::query(
            "select queue, count(*) as count, min(last_error) as last_error from event_store.timers \
             group by queue order by queue",
        )
        .fetch_all(&mut connection)
        .await?;
        for row in rows {
            let (queue, count): (String, i64) = (row.try_get("queue")?, row.try_get("count")?);
            let error: Option<String> = row.try_get("last_error")?;
            open.push(format!("{service} has {count} timers of {queue} ({error:?})"));
        }
    }
    Ok((ends, open))
}
