//! The databases of a run: one per round with both layouts in it, filled alike.

use std::time::Duration;

use embedded::postgres::database_url;
use event_store::Log;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use crate::Failure;
use crate::parcel::ParcelScanned;

/// The events table of postgres-es 0.5, as its `db/init.sql` makes it.
const STOCK_EVENTS: &str = "
    create table events (
        aggregate_type text not null,
        aggregate_id   text not null,
        sequence       bigint check (sequence >= 0) not null,
        event_type     text not null,
        event_version  text not null,
        payload        json not null,
        metadata       json not null,
        primary key (aggregate_type, aggregate_id, sequence)
    )";

const FILL_STOCK: &str = "
    insert into events
    select 'parcel', a.id, s.sequence, 'ParcelScanned', '1.0', $2::json, '{}'
    from unnest($1::text[]) as a(id), generate_series(1, $3::bigint) as s(sequence)
    order by s.sequence, a.id";

const FILL_MART: &str = "
    insert into event_store.events
    select h.head + row_number() over (order by s.sequence, a.id), 'parcel', a.id, s.sequence, 'ParcelScanned',
           '1.0', $2::json, '{}', event_store.partition_of(a.id), clock_timestamp()
    from unnest($1::text[]) as a(id), generate_series(1, $3::bigint) as s(sequence),
         (select coalesce(max(position), 0) as head from event_store.events) h";

/// The database of one round.
pub(crate) struct RoundDatabase {
    server_url: String,
    name: String,
    pub(crate) url: String,
    pub(crate) log: Log,
}

impl RoundDatabase {
    pub(crate) async fn create(server_url: &str, round: usize) -> Result<Self, Failure> {
        let name = format!("round_{round}");
        let mut server = PgConnection::connect(server_url).await?;
        server.execute(format!("create database {name}").as_str()).await?;
        let url = database_url(server_url, &name);
        let log = Log::open("parcels", &url, [7; 32])?;
        log.migrate().await?;
        let mut connection = PgConnection::connect(&url).await?;
        connection.execute(STOCK_EVENTS).await?;
        Ok(Self { server_url: server_url.to_owned(), name, url, log })
    }

    /// Writes `count` aggregates with `events` events each to both layouts, and gives their ids.
    pub(crate) async fn fill(&self, count: usize, events: i64) -> Result<Vec<String>, Failure> {
        let ids: Vec<String> = (0..count).map(|_| Uuid::now_v7().to_string()).collect();
        let payload = serde_json::to_string(&ParcelScanned::new(0))?;
        let mut connection = PgConnection::connect(&self.url).await?;
        // Under the log's lock: what the cell before gave up waiting for may be on its way still.
        let mut transaction = connection.begin().await?;
        transaction.execute("select event_store.keep_writers_out()").await?;
        for statement in [FILL_STOCK, FILL_MART] {
            sqlx::query(statement).bind(&ids).bind(&payload).bind(events).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(ids)
    }

    /// Writes out what earlier cells left dirty, so that none pays for another's pages.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        let mut connection = PgConnection::connect(&self.url).await?;
        connection.execute("vacuum (analyze) events").await?;
        connection.execute("vacuum (analyze) event_store.events").await?;
        connection.execute("checkpoint").await?;
        Ok(())
    }

    /// A pool as stock uses it, with its connections open already.
    pub(crate) async fn pool(url: &str, connections: u32) -> Result<PgPool, Failure> {
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(connections)
            .acquire_timeout(Duration::from_secs(30))
            .connect(url)
            .await?;
        Ok(pool)
    }

    pub(crate) async fn remove(self) -> Result<(), Failure> {
        drop(self.log);
        let mut server = PgConnection::connect(&self.server_url).await?;
        server.execute(format!("drop database {} with (force)", self.name).as_str()).await?;
        Ok(())
    }
}

/// The machine and the server, in one line.
///
/// # Errors
/// When the server does not promise durability: figures without it would mean nothing.
pub(crate) async fn facts(server_url: &str) -> Result<String, Failure> {
    let mut connection = PgConnection::connect(server_url).await?;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String =
            sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&mut connection).await?;
        if value != "on" {
            return Err(format!("{setting} is {value}").into());
        }
    }
    let version: String =
        sqlx::query_scalar("select current_setting('server_version')").fetch_one(&mut connection).await?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "{cores} cores ({}) shared by client and server; PostgreSQL {version}, fsync and synchronous_commit on",
        processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
    ))
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
