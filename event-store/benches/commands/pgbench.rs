//! The floor the engine stands on: PostgreSQL's own client, which inserts one row per transaction, or reads the events of
//! one aggregate.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Failure;
use crate::parcel::ParcelScanned;

const CLIENTS: &str = "16";
const THREADS: &str = "2";

/// With the prepared protocol the payload travels as a parameter, as it does from a program.
const INSERT: &str = "insert into pgbench_events values ('parcel', gen_random_uuid()::text, 1, 'ParcelScanned', \
                      '1.0', :payload, '{}');\n";

/// All that a load needs of an aggregate, which is found by one of its events.
const READ: &str = "\\set place random(1, :events)\nselect position, partition, sequence, event_type, \
                    event_version, payload, metadata, recorded_at from event_store.events \
                    where aggregate_type = 'parcel' and aggregate_id = \
                    (select aggregate_id from event_store.events where position = :place) order by sequence;\n";

/// Inserts per second into a table like that of postgres-es, rows of the same size; `None` when the server's
/// folder has no `pgbench`.
///
/// # Errors
/// When it is there and fails.
pub(crate) async fn inserts(url: &str, measured: Duration) -> Result<Option<f64>, Failure> {
    let mut connection = PgConnection::connect(url).await?;
    connection
        .execute(
            "drop table if exists pgbench_events; create table pgbench_events (like events including indexes)",
        )
        .await?;
    let payload = serde_json::to_string(&ParcelScanned::new(0))?;
    run(url, INSERT, &format!("payload={payload}"), measured).await
}

/// Aggregates per second whose events are read, any of a log of so many events; `None` as for [`inserts`].
///
/// # Errors
/// As for [`inserts`].
pub(crate) async fn reads(url: &str, events: usize, measured: Duration) -> Result<Option<f64>, Failure> {
    run(url, READ, &format!("events={events}"), measured).await
}

async fn run(url: &str, script: &str, define: &str, measured: Duration) -> Result<Option<f64>, Failure> {
    let mut connection = PgConnection::connect(url).await?;
    let folder: String = sqlx::query_scalar("select setting from pg_config where name = 'BINDIR'")
        .fetch_one(&mut connection)
        .await?;
    let program = PathBuf::from(folder).join("pgbench");
    if !program.is_file() {
        return Ok(None);
    }
    // Whole seconds are all it knows.
    let seconds = measured.as_secs().max(1).to_string();
    let mut process = Command::new(program)
        .args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", THREADS, "-T", &seconds])
        .args(["-D", define, "-f", "-", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Closed when written: it reads its script to the end before it starts.
    if let Some(mut input) = process.stdin.take() {
        input.write_all(script.as_bytes()).await?;
    }
    let output = process.wait_with_output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match rate {
        Some(rate) => Ok(Some(rate)),
        None => Err(format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}
