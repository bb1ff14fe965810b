//! Sets up the failpoints of a process: from a variable when it starts, over a socket while it runs.
//!
//! Only in builds with the cargo feature `failpoints`; what the points are is told in `event_store::failpoints`.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream as ProbingStream;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use event_store::failpoints;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Points armed from the start.
const POINTS: &str = "FAILPOINTS";
/// The path of a socket that takes points, a line each, and answers `ok` when they are armed.
const SOCKET: &str = "FAILPOINTS_SOCKET";

/// Arms what the environment names, and listens where it says.
///
/// # Errors
/// When a point cannot be read, or the socket cannot be made.
pub fn set_up() -> anyhow::Result<()> {
    if let Ok(points) = std::env::var(POINTS) {
        failpoints::arm(&points).map_err(|error| anyhow!(error)).context(POINTS)?;
    }
    if let Some(path) = std::env::var_os(SOCKET)
        && let Some(listener) = listen(PathBuf::from(path)).context(SOCKET)?
    {
        tokio::spawn(serve(listener));
    }
    Ok(())
}

/// None when another process listens there: a command beside a running mart leaves the mart its socket.
fn listen(path: PathBuf) -> std::io::Result<Option<UnixListener>> {
    match UnixListener::bind(&path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if ProbingStream::connect(&path).is_ok() {
                return Ok(None);
            }
            // What a process left behind that was aborted.
            std::fs::remove_file(&path)?;
            UnixListener::bind(&path).map(Some)
        }
        bound => bound.map(Some),
    }
}

async fn serve(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Err(error) = answer(stream).await {
                tracing::debug!(%error, "whoever armed failpoints has gone");
            }
        });
    }
}

async fn answer(stream: UnixStream) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = failpoints::arm(&line).map_or_else(|error| error, |()| "ok".to_owned());
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}
