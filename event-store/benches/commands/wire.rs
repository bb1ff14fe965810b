//! The floor under the engine: the server and its protocol. Batches that were made before go to the function that
//! appends, the next as soon as one is answered, over as many connections as the engine would use. Nothing is decided,
//! looked up, serialised or told to anybody: the client copies what it has to the connection.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rand::seq::IndexedRandom;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Connection, Encode, PgConnection, Postgres, Type};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use event_store::event::partition_of;

use crate::Failure;
use crate::cell::Measured;
use crate::database::RoundDatabase;
use crate::options::Options;
use crate::parcel::ParcelScanned;

/// From how many in flight on there are two connections, each with half of them: what the engine does.
const TWO_CONNECTIONS_FROM: usize = 48;
/// Beyond all that the aggregates have, so that other cells can go on with them; and how far connections are apart.
const SEQUENCES_FROM: i64 = 2_000_000;
const SEQUENCES_EACH: usize = 1_000_000;
/// How many batches are made before for each connection. They are sent in turns.
const BATCHES: usize = 64;

const APPEND: &str = "select * from event_store.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
                      $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)";

/// Text that the server reads as `json`.
#[derive(Clone)]
struct Json(String);

impl Type<Postgres> for Json {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl PgHasArrayType for Json {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(199))
    }
}

impl Encode<'_, Postgres> for Json {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

/// One event for each of some aggregates, none twice, in the order of the index they go into.
struct Batch {
    aggregates: Vec<String>,
    partitions: Vec<i16>,
}

impl Batch {
    fn of(ids: &[String], size: usize) -> Self {
        let mut aggregates: Vec<String> = ids.choose_multiple(&mut rand::rng(), size).cloned().collect();
        aggregates.sort_unstable();
        let partitions = aggregates.iter().map(|id| partition_of(id)).collect();
        Self { aggregates, partitions }
    }
}

/// Runs a cell: so many events are under way at a time.
pub(crate) async fn run(
    database: &RoundDatabase,
    ids: &Arc<[String]>,
    in_flight: usize,
    options: &Options,
) -> Result<Measured, Failure> {
    let connections = if in_flight < TWO_CONNECTIONS_FROM { 1 } else { 2 };
    let size = in_flight / connections;
    let mut prepared = Vec::with_capacity(connections);
    for first in (SEQUENCES_FROM..).step_by(SEQUENCES_EACH).take(connections) {
        let batches = (0..BATCHES).map(|_| Batch::of(ids, size)).collect();
        prepared.push((PgConnection::connect(&database.url).await?, batches, first));
    }
    let from = Instant::now() + options.warm_up;
    let until = from + options.measured;
    let mut senders = JoinSet::new();
    for (connection, batches, first) in prepared {
        senders.spawn(send(connection, batches, first, connections == 1, from, until));
    }
    let mut latencies_us = Vec::new();
    for sent in senders.join_all().await {
        latencies_us.extend(sent?.into_iter().flat_map(|latency| std::iter::repeat_n(latency, size)));
    }
    Ok(Measured::of(latencies_us, options.measured))
}

/// Sends batches until the time is over. Gives how long each took that was answered in time, in microseconds.
async fn send(
    mut connection: PgConnection,
    batches: Vec<Batch>,
    first: i64,
    alone: bool,
    from: Instant,
    until: Instant,
) -> Result<Vec<u32>, Failure> {
    let size = batches.first().map_or(0, |batch| batch.aggregates.len());
    let payloads = vec![Json(serde_json::to_string(&ParcelScanned::new(0))?); size];
    let metadata = vec![Json(r#"{"event_id":"01890a5d-ac96-774b-bcce-b302a9e8f7aa"}"#.to_owned()); size];
    let commands: Vec<i32> = (1..).take(size).collect();
    let mut latencies_us = Vec::new();
    for (batch, sequence) in batches.iter().cycle().zip(first..) {
        let started = Instant::now();
        sqlx::query(APPEND)
            .bind(vec!["parcel"; size])
            .bind(&batch.aggregates)
            .bind(vec![sequence - 1; size])
            .bind(vec![1_i32; size])
            .bind(&commands)
            .bind(vec![None::<Uuid>; size])
            .bind(vec![None::<&str>; size])
            .bind(vec![None::<&[u8]>; size])
            .bind(vec![false; size])
            .bind(vec![None::<&str>; size])
            .bind(vec![false; size])
            .bind(&commands)
            .bind(vec![sequence; size])
            .bind(vec!["ParcelScanned"; size])
            .bind(vec!["1.0"; size])
            .bind(&payloads)
            .bind(&metadata)
            .bind(&batch.partitions)
            .bind(Vec::<i32>::new())
            .bind(Vec::<&str>::new())
            .bind(Vec::<&[u8]>::new())
            .bind(Vec::<bool>::new())
            .bind(None::<i64>)
            .bind(None::<DateTime<Utc>>)
            .bind(alone)
            .fetch_all(&mut connection)
            .await?;
        let finished = Instant::now();
        if finished >= until {
            break;
        }
        if finished >= from {
            latencies_us.push(u32::try_from((finished - started).as_micros()).unwrap_or(u32::MAX));
        }
    }
    connection.close().await?;
    Ok(latencies_us)
}
