//! A long past, written by the server itself.

use figures::Failure;
use sqlx::{Connection, Executor, PgConnection};

use crate::database::RoundDatabase;
use crate::options::Options;
use crate::parcel::ParcelScanned;

/// How many events each aggregate has.
const EVENTS_EACH: usize = 10;
/// Events that are written by one statement: its sorting fits in memory.
const EVENTS_AT_ONCE: usize = 500_000;

/// Scans of parcels that follow each other in time, so that the events of an aggregate lie far apart. The ids are
/// those of `uuid`s of version 4: new ones go anywhere into the index.
const WRITE_MART: &str = "
    insert into event_store.events
    select e.position, 'parcel', md5((e.position % $3)::text)::uuid::text, 1 + (e.position - 1) / $3, 'ParcelScanned',
           '1.0', $4::json, json_build_object('event_id', gen_random_uuid()),
           event_store.partition_of(md5((e.position % $3)::text)::uuid::text), clock_timestamp()
    from generate_series($1::bigint, $2::bigint) as e(position)";

const COPY_TO_STOCK: &str = "
    insert into events
    select aggregate_type, aggregate_id, sequence, event_type, event_version, payload, '{}'
    from event_store.events where position between $1 and $2 order by aggregate_type, aggregate_id, sequence";

/// Writes the same past to both layouts, and gives the ids of its aggregates.
pub(crate) async fn write(database: &RoundDatabase, options: &Options) -> Result<Vec<String>, Failure> {
    let aggregates = (options.events / EVENTS_EACH) as i64;
    let payload = serde_json::to_string(&ParcelScanned::new(0))?;
    let mut connection = PgConnection::connect(&database.url).await?;
    connection.execute("set work_mem = '256MB'").await?;
    let mut written = 0;
    while written < options.events {
        let upto = (written + EVENTS_AT_ONCE).min(options.events);
        let (first, last) = (written as i64 + 1, upto as i64);
        sqlx::query(WRITE_MART)
            .bind(first)
            .bind(last)
            .bind(aggregates)
            .bind(&payload)
            .execute(&mut connection)
            .await?;
        sqlx::query(COPY_TO_STOCK).bind(first).bind(last).execute(&mut connection).await?;
        written = upto;
        eprintln!("  {written} of {} events are written to both layouts", options.events);
    }
    let ids =
        "select md5(number::text)::uuid::text from generate_series(0, $1 - 1) as number order by number";
    Ok(sqlx::query_scalar(ids).bind(aggregates).fetch_all(&mut connection).await?)
}
