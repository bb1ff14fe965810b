//! The floor the engine stands on: PostgreSQL's own client inserting one row per transaction.

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
const SCRIPT: &str = "insert into pgbench_events values ('parcel', gen_random_uuid()::text, 1, 'ParcelScanned', \
                      '1.0', :payload, '{}');\n";

/// Inserts per second into a table like that of postgres-es, rows of the same size; `None` when the server's
/// folder has no `pgbench`.
///
/// # Errors
/// When it is there and fails.
pub(crate) async fn run(url: &str, measured: Duration) -> Result<Option<f64>, Failure> {
    let mut connection = PgConnection::connect(url).await?;
    let folder: String = sqlx::query_scalar("select setting from pg_config where name = 'BINDIR'")
        .fetch_one(&mut connection)
        .await?;
    let program = PathBuf::from(folder).join("pgbench");
    if !program.is_file() {
        return Ok(None);
    }
    connection
        .execute(
            "drop table if exists pgbench_events; create table pgbench_events (like events including indexes)",
        )
        .await?;
    let payload = serde_json::to_string(&ParcelScanned::new(0))?;
    // Whole seconds are all it knows.
    let seconds = measured.as_secs().max(1).to_string();
    let mut process = Command::new(program)
        .args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", THREADS, "-T", &seconds])
        .args(["-D", &format!("payload={payload}"), "-f", "-", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Closed when written: it reads its script to the end before it starts.
    if let Some(mut script) = process.stdin.take() {
        script.write_all(SCRIPT.as_bytes()).await?;
    }
    let output = process.wait_with_output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match rate {
        Some(rate) => Ok(Some(rate)),
        None => Err(format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}
