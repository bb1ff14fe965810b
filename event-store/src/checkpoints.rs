//! How far a subscription has come, per source and partition. Checkpoints move in the transaction of the
//! effects, by compare-and-set: whoever finds another position than it left is no longer the owner.

use std::collections::BTreeMap;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, PgPool, Postgres, Row};

use crate::connections::Connections;
use crate::signal::{PROGRESS_CHANNEL, progress_payload};
use crate::subscription::RowChanges;
use crate::{PARTITIONS, Result};

/// The position of each partition.
pub type Positions = BTreeMap<i16, i64>;

/// One checkpoint on its way from one position to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The partition.
    pub partition: i16,
    /// The position it must have.
    pub from: i64,
    /// The position it gets.
    pub to: i64,
}

/// Reads the checkpoints of a subscription for a source; those that do not exist start at `start`.
///
/// # Errors
/// When the database is unreachable.
pub async fn load(database: &PgPool, subscription: &str, source: &str, start: i64) -> Result<Positions> {
    sqlx::query(
        "insert into event_store.checkpoints (subscription, source, partition, position) \
         select $1, $2, p, $4 from generate_series(0, $3::integer - 1) as p on conflict do nothing",
    )
    .bind(subscription)
    .bind(source)
    .bind(i32::from(PARTITIONS))
    .bind(start)
    .execute(database)
    .await?;
    let rows = sqlx::query(
        "select partition, position from event_store.checkpoints \
         where subscription = $1 and source = $2 order by partition",
    )
    .bind(subscription)
    .bind(source)
    .fetch_all(database)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("partition")?, row.try_get("position")?))).collect()
}

/// The part of a statement that moves those checkpoints that are where they were left; its parameters are the
/// subscription, the source, and what [`stated`] makes of the steps.
///
/// Steps come as JSON, of which the planner always expects the same number of rows: so it plans this once, and not
/// anew for each array it is given.
fn moved([subscription, source, steps]: [&str; 3]) -> String {
    format!(
        "moved as ( \
             update event_store.checkpoints c set position = s.upto, moved_at = clock_timestamp() \
             from json_to_recordset({steps}::json) as s(partition smallint, since bigint, upto bigint) \
             where c.subscription = {subscription} and c.source = {source} and c.partition = s.partition \
               and c.position = s.since \
             returning c.partition \
         )"
    )
}

/// The column of a statement that notifies others, unless there is no payload.
fn telling(channel: &str, payload: &str) -> String {
    format!("(select pg_notify({channel}, {payload}) where {payload}::text is not null)")
}

fn stated(steps: &[Step]) -> String {
    let steps: Vec<serde_json::Value> = steps
        .iter()
        .map(|step| serde_json::json!({ "partition": step.partition, "since": step.from, "upto": step.to }))
        .collect();
    serde_json::Value::Array(steps).to_string()
}

fn reached(steps: &[Step]) -> Vec<(i16, i64)> {
    steps.iter().map(|step| (step.partition, step.to)).collect()
}

/// What a statement fails with whose checkpoints are not where they were left: see `event_store.require`.
const ELSEWHERE: &str = "MT001";

/// Checkpoints that are moved by a statement that does something else as well: all of it happens, or nothing.
#[derive(Debug, Clone, Copy)]
pub struct Moving<'a> {
    /// Whose checkpoints they are.
    pub subscription: &'a str,
    /// The log it reads.
    pub source: &'a str,
    /// Where they go.
    pub steps: &'a [Step],
    /// Whether other processes are to be told.
    pub told: bool,
}

/// A statement under way.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

impl Moving<'_> {
    /// Moves the checkpoints, and tells of it when the transaction commits. Says whether all of them were where they
    /// were thought to be; if not, the caller must roll back its effects.
    ///
    /// The commit is not flushed: after a crash of the server the effects are gone together with the checkpoint, and
    /// are repeated. A flush would be dear, because a commit that notifies holds one lock of the whole server
    /// meanwhile.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn step(&self, transaction: &mut PgConnection) -> Result<bool> {
        // One statement and so one round trip: this runs for each batch of a subscription that writes its rows itself.
        let statement = format!(
            "with {} select count(*), {}, set_config('synchronous_commit', 'off', true) from moved",
            moved(["$1", "$2", "$3"]),
            telling("$4", "$5"),
        );
        let row = sqlx::query(&statement)
            .bind(self.subscription)
            .bind(self.source)
            .bind(stated(self.steps))
            .bind(PROGRESS_CHANNEL)
            .bind(self.payload())
            .fetch_one(transaction)
            .await?;
        Ok(row.try_get::<i64, _>(0)? == self.steps.len() as i64)
    }

    /// What other processes are told, if they are.
    fn payload(&self) -> Option<String> {
        let Self { subscription, source, steps, told } = *self;
        told.then(|| progress_payload(subscription, source, &reached(steps)))
    }

    /// The statement that moves the checkpoints beside `others`, which are queries of a `with` clause and have the
    /// parameters up to `used`. It gives the rows of `from`, with the columns `columns` of it.
    pub(crate) fn statement(used: usize, others: &str, columns: &str, from: &str) -> String {
        let [subscription, source, steps, count, channel, payload] =
            std::array::from_fn(|index| format!("${}", used + 1 + index));
        format!(
            "with {}, {others} \
             select (select event_store.require(count(*) = {count}) from moved), \
                    {}, (select set_config('synchronous_commit', 'off', true)), {columns} from {from}",
            moved([&subscription, &source, &steps]),
            telling(&channel, &payload),
        )
    }

    /// The parameters of the checkpoints, behind those of the others.
    pub(crate) fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        statement
            .bind(self.subscription.to_owned())
            .bind(self.source.to_owned())
            .bind(stated(self.steps))
            .bind(self.steps.len() as i64)
            .bind(PROGRESS_CHANNEL)
            .bind(self.payload())
    }

    /// Nothing when the checkpoints were not where they were left.
    pub(crate) fn answer<T>(answer: sqlx::Result<T>) -> sqlx::Result<Option<T>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some(ELSEWHERE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes rows with the checkpoints; nothing when those were not where they were left.
    ///
    /// # Errors
    /// When the database is unreachable, or refuses the rows.
    pub(crate) async fn write(
        &self,
        connections: &Connections,
        changes: &RowChanges,
    ) -> sqlx::Result<Option<()>> {
        let RowChanges { upsert, rows, delete, removed } = changes;
        let gone = if removed.is_empty() { String::new() } else { format!(", gone as ({delete})") };
        let others = format!("written as ({upsert}){gone}");
        let statement = Self::statement(2, &others, "cardinality($2::text[])", "(values (0)) as one");
        let written = self.bind(sqlx::query(&statement).bind(rows).bind(removed)).execute(connections).await;
        Self::answer(written.map(drop))
    }
}

/// Forgets the checkpoints of a subscription.
///
/// # Errors
/// When the database is unreachable.
pub async fn forget(transaction: &mut PgConnection, subscription: &str) -> Result<()> {
    sqlx::query("delete from event_store.checkpoints where subscription = $1")
        .bind(subscription)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Where a subscription stands: for lists and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The subscription.
    pub subscription: String,
    /// The log it reads.
    pub source: String,
    /// The lowest and the highest checkpoint over the partitions.
    pub lowest: i64,
    /// The highest checkpoint over the partitions.
    pub highest: i64,
}

/// Where all subscriptions of a database stand.
///
/// # Errors
/// When the database is unreachable.
pub async fn standings(database: &PgPool) -> Result<Vec<Standing>> {
    let rows = sqlx::query(
        "select subscription, source, min(position) as lowest, max(position) as highest \
         from event_store.checkpoints group by subscription, source order by subscription, source limit 1000",
    )
    .fetch_all(database)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Standing {
                subscription: row.try_get("subscription")?,
                source: row.try_get("source")?,
                lowest: row.try_get("lowest")?,
                highest: row.try_get("highest")?,
            })
        })
        .collect()
}
