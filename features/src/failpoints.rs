//! Arming failpoints in a running mart. What they are is told in `event-store/src/failpoints.rs`.

use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Names the socket at which a mart takes failpoints.
pub const SOCKET_VARIABLE: &str = "FAILPOINTS_SOCKET";

/// Arms points, as in `gateway-answered=1*return(abort)`, and waits until they are.
///
/// # Panics
/// When nobody listens there, or the points cannot be read.
pub async fn arm(socket: &Path, points: &str) {
    let stream =
        UnixStream::connect(socket).await.expect("the mart takes failpoints: it was built with them");
    let (reader, mut writer) = stream.into_split();
    writer.write_all(format!("{points}\n").as_bytes()).await.expect("the mart listens");
    let mut answer = String::new();
    BufReader::new(reader).read_line(&mut answer).await.expect("the mart answers");
    assert_eq!(answer.trim(), "ok", "{points} cannot be armed");
}
