//! A client that keeps its connection and sees all of it: when the server says that it ends, and when it does.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One connection, used for one request after the other.
pub(super) struct KeptConnection(BufReader<TcpStream>);

/// An answer on it.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether the server has said that the connection ends with this answer.
    pub(super) ends: bool,
    pub(super) body: String,
}

impl KeptConnection {
    pub(super) async fn to(address: &str) -> Self {
        let stream = TcpStream::connect(address).await;
        Self(BufReader::new(stream.unwrap_or_else(|error| panic!("{address} takes no connection: {error}"))))
    }

    /// Whether the server has ended it since the last answer.
    pub(super) fn has_ended(&self) -> bool {
        let read = self.0.get_ref().try_read(&mut [0]);
        !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Asks, and reads all of the answer.
    pub(super) async fn ask(&mut self, method: &str, path: &str, token: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: mart\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut line = self.line().await?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, line.clone()))?;
        let (mut ends, mut length) = (false, 0);
        loop {
            line = self.line().await?.to_lowercase();
            match line.split_once(": ") {
                Some(("connection", "close")) => ends = true,
                Some(("content-length", value)) => length = value.parse().map_err(Error::other)?,
                Some(_) => {}
                None => break,
            }
        }
        let mut content = vec![0; length];
        self.0.read_exact(&mut content).await?;
        Ok(Answer { status, ends, body: String::from_utf8_lossy(&content).into_owned() })
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
