//! The generations of a read model: each stands in a schema of its own, one of them is live.

use chrono::{DateTime, Utc};
use event_store::{Error, Log, Result};
use sqlx::{Executor, PgConnection, PgPool, Row};

use crate::read_model::{ReadModel, columns};

/// How long a retired generation is still kept up, for queries that have not noticed the switch yet.
pub const GRACE_SECONDS: i64 = 15;

/// How full the pages of a read model are made, in percent: a row that changes finds room beside its old version, and
/// its indexes need not change with it.
const FILL_PERCENT: u32 = 75;

/// Where a generation stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being rebuilt; nobody reads it.
    Building,
    /// Read by queries.
    Live,
    /// Replaced; kept until it is dropped.
    Retired,
    /// Built up to a point in the past, to be looked at; kept until it is dropped.
    Kept,
}

/// One build of a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The read model.
    pub name: String,
    /// `<version of the code>.<number of the build>`
    pub version: String,
    /// Where it stands.
    pub status: Status,
    /// Since when.
    pub changed_at: DateTime<Utc>,
}

impl Generation {
    /// The schema its table stands in.
    pub fn schema(&self) -> String {
        format!("{}_v{}", self.name, self.version.replace('.', "_"))
    }

    /// The name of its subscription, part of its checkpoints.
    pub fn subscription(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// The version of the code it was built by.
    pub fn code_version(&self) -> u32 {
        self.version.split('.').next().and_then(|version| version.parse().ok()).unwrap_or(0)
    }

    /// The number of the build, which goes on over all versions.
    fn build(&self) -> u32 {
        self.version.split('.').nth(1).and_then(|build| build.parse().ok()).unwrap_or(0)
    }
}

/// The generations of a read model, oldest first.
///
/// # Errors
/// When the database is unreachable.
pub async fn list(database: &PgPool, name: &str) -> Result<Vec<Generation>> {
    let rows = sqlx::query(
        "select name, version, status, changed_at from event_store.read_models \
         where name = $1 order by split_part(version, '.', 1)::integer, split_part(version, '.', 2)::integer limit 1000",
    )
    .bind(name)
    .fetch_all(database)
    .await?;
    rows.iter()
        .map(|row| {
            let status: String = row.try_get("status")?;
            Ok(Generation {
                name: row.try_get("name")?,
                version: row.try_get("version")?,
                status: match status.as_str() {
                    "live" => Status::Live,
                    "retired" => Status::Retired,
                    "kept" => Status::Kept,
                    _ => Status::Building,
                },
                changed_at: row.try_get("changed_at")?,
            })
        })
        .collect()
}

/// The live generation of a read model.
///
/// # Errors
/// When the database is unreachable.
pub async fn live(database: &PgPool, name: &str) -> Result<Option<Generation>> {
    Ok(list(database, name).await?.into_iter().find(|generation| generation.status == Status::Live))
}

/// The generation that this version of the code works with: the live one, or, when another version has built
/// that, the newest of its own that still stands. Processes of two versions run side by side while a mart is
/// upgraded, or taken back, and each has its own rows.
///
/// # Errors
/// When the database is unreachable.
pub async fn own<M: ReadModel>(database: &PgPool) -> Result<Option<Generation>> {
    let all = list(database, M::NAME).await?;
    let finished =
        all.into_iter().filter(|generation| !matches!(generation.status, Status::Building | Status::Kept));
    // The newest comes last: what is of our version comes before what is not, and the live one before others.
    Ok(finished.max_by_key(|generation| {
        (generation.code_version() == M::VERSION, generation.status == Status::Live, generation.build())
    }))
}

/// Whether the table of a generation has all the columns that this version of the code reads.
pub(crate) async fn fits<M: ReadModel>(database: &PgPool, generation: &Generation) -> Result<bool> {
    let wanted: Vec<&str> = columns::<M>().map(|(name, _)| name).collect();
    let fits = sqlx::query_scalar(
        "select not exists ( \
             select from unnest($3::text[]) as wanted(name) where not exists ( \
                 select from information_schema.columns c \
                 where c.table_schema = $1 and c.table_name = $2 and c.column_name = wanted.name))",
    )
    .bind(generation.schema())
    .bind(M::NAME)
    .bind(wanted)
    .fetch_one(database)
    .await?;
    Ok(fits)
}

/// Whether a generation is the live one.
///
/// # Errors
/// When the database is unreachable.
pub(crate) async fn is_live(database: &PgPool, generation: &Generation) -> Result<bool> {
    let live = live(database, &generation.name).await?;
    Ok(live.is_some_and(|live| live.version == generation.version))
}

/// Makes the first generation of a read model, empty and live, unless there is one: its subscription fills it
/// from the logs.
///
/// # Errors
/// When the database is unreachable.
pub async fn ensure<M: ReadModel>(log: &Log) -> Result<Generation> {
    if let Some(generation) = live(log.database(), M::NAME).await? {
        return Ok(generation);
    }
    let mut transaction = log.database().begin().await?;
    lock(&mut transaction, M::NAME).await?;
    let first = create::<M>(&mut transaction, "live").await;
    match first {
        Ok(generation) => {
            indexes::<M>(&mut transaction, &generation).await?;
            announce(&mut transaction).await?;
            transaction.commit().await?;
            Ok(generation)
        }
        Err(error) => {
            transaction.rollback().await?;
            // Another process was first.
            live(log.database(), M::NAME).await?.ok_or(error)
        }
    }
}

/// Serialises whoever changes the generations of a read model, until the transaction ends.
async fn lock(transaction: &mut PgConnection, name: &str) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('read model ' || $1, 0))")
        .bind(name)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Makes the next generation, without secondary indexes.
pub(crate) async fn create<M: ReadModel>(transaction: &mut PgConnection, status: &str) -> Result<Generation> {
    let row = sqlx::query(
        "with numbered as ( \
             insert into event_store.read_model_builds as b (name, build) values ($1, 1) \
             on conflict (name) do update set build = b.build + 1 returning build \
         ) insert into event_store.read_models (name, version, status) \
         select $1, $2::text || '.' || build, $3 from numbered \
         returning version, changed_at",
    )
    .bind(M::NAME)
    .bind(M::VERSION.to_string())
    .bind(status)
    .fetch_one(&mut *transaction)
    .await?;
    let generation = Generation {
        name: M::NAME.to_owned(),
        version: row.try_get("version")?,
        status: if status == "live" { Status::Live } else { Status::Building },
        changed_at: row.try_get("changed_at")?,
    };
    let (schema, name, columns) = (generation.schema(), M::NAME, M::COLUMNS);
    let statements = format!(
        "create schema {schema}; create table {schema}.{name} ({columns}) with (fillfactor = {FILL_PERCENT});"
    );
    transaction.execute(sqlx::raw_sql(&statements)).await?;
    Ok(generation)
}

/// Builds the secondary indexes of a generation.
pub(crate) async fn indexes<M: ReadModel>(
    connection: &mut PgConnection,
    generation: &Generation,
) -> Result<()> {
    let (schema, name) = (generation.schema(), M::NAME);
    for index in M::INDEXES {
        connection.execute(sqlx::raw_sql(&format!("create index on {schema}.{name} {index};"))).await?;
    }
    Ok(())
}

/// Makes a generation the live one, in one step; what was live is retired.
pub(crate) async fn switch(log: &Log, generation: &Generation) -> Result<()> {
    let mut transaction = log.database().begin().await?;
    lock(&mut transaction, &generation.name).await?;
    sqlx::query(
        "update event_store.read_models set status = 'retired', changed_at = clock_timestamp() \
         where name = $1 and status = 'live'",
    )
    .bind(&generation.name)
    .execute(&mut *transaction)
    .await?;
    let switched = sqlx::query(
        "update event_store.read_models set status = 'live', changed_at = clock_timestamp() \
         where name = $1 and version = $2",
    )
    .bind(&generation.name)
    .bind(&generation.version)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if switched != 1 {
        // Whoever rebuilds next drops what is left of a rebuild that lost its lock with its connection.
        return Err(Error::Malformed(format!("{} was dropped", generation.schema())));
    }
    announce(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// Keeps a generation that was built up to a point in the past, until it is dropped.
pub(crate) async fn keep(log: &Log, generation: &Generation) -> Result<Generation> {
    let changed_at = sqlx::query_scalar(
        "update event_store.read_models set status = 'kept', changed_at = clock_timestamp() \
         where name = $1 and version = $2 returning changed_at",
    )
    .bind(&generation.name)
    .bind(&generation.version)
    .fetch_one(log.database())
    .await?;
    Ok(Generation { status: Status::Kept, changed_at, ..generation.clone() })
}

async fn announce(transaction: &mut PgConnection) -> Result<()> {
    sqlx::query("select pg_notify($1, '')")
        .bind(event_store::signal::READ_MODELS_CHANNEL)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Drops a generation with all it has.
///
/// # Errors
/// When the database is unreachable.
pub async fn drop(database: &PgPool, generation: &Generation) -> Result<()> {
    let mut transaction = database.begin().await?;
    let statement = format!("drop schema if exists {} cascade;", generation.schema());
    transaction.execute(sqlx::raw_sql(&statement)).await?;
    event_store::checkpoints::forget(&mut transaction, &generation.subscription()).await?;
    sqlx::query("delete from event_store.parked where subscription = $1")
        .bind(generation.subscription())
        .execute(&mut *transaction)
        .await?;
    sqlx::query("delete from event_store.read_models where name = $1 and version = $2")
        .bind(&generation.name)
        .bind(&generation.version)
        .execute(&mut *transaction)
        .await?;
    announce(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use embedded::testing;

    use super::*;
    use crate::orders::Customers;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_generation_that_was_dropped_cannot_take_the_place_of_the_live_one() {
        let database = testing::database("generations").await;
        let log = Log::open("orders", &database.url, [7; 32]).expect("the URL is good");
        log.migrate().await.expect("the migrations apply");
        let live_one = ensure::<Customers>(&log).await.expect("made");
        let mut transaction = log.database().begin().await.expect("begins");
        let built = create::<Customers>(&mut transaction, "building").await.expect("made");
        transaction.commit().await.expect("commits");
        super::drop(log.database(), &built).await.expect("dropped");
        switch(&log, &built).await.expect_err("it is gone");
        let mut transaction = log.database().begin().await.expect("begins");
        let next = create::<Customers>(&mut transaction, "building").await.expect("made");
        assert_ne!(next.version, built.version, "whoever built that one may go on for a moment");
        transaction.rollback().await.expect("rolls back");
        assert_eq!(live(log.database(), Customers::NAME).await.expect("answers"), Some(live_one));
    }
}
