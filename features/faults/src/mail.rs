//! The mail server of a run: it keeps what it takes. It can take a letter and not say so, or refuse it for now.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::troubles::Troubles;

/// A letter that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its `Message-ID`, without the signs around it.
    pub message_id: String,
    /// When it was taken, from the start of the run.
    pub at: Duration,
}

/// The mail server.
#[derive(Debug, Clone)]
pub struct Mail {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    troubles: Troubles,
    failing: AtomicBool,
    failures: AtomicU64,
    letters: Mutex<Vec<Letter>>,
}

impl Mail {
    /// Starts it.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(troubles: &Troubles) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let inner = Arc::new(Inner {
            troubles: troubles.clone(),
            failing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            letters: Mutex::default(),
        });
        let mail = Self { address: listener.local_addr()?, inner: Arc::clone(&inner) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = Arc::clone(&inner);
                // A client that goes away in the middle takes back only what was not taken yet.
                tokio::spawn(async move { drop(inner.serve(stream).await) });
            }
        });
        Ok(mail)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Fails half way from now on, or works.
    pub fn set_failing(&self, failing: bool) {
        self.inner.failing.store(failing, Ordering::SeqCst);
    }

    /// All letters, in the order they were taken.
    pub fn letters(&self) -> Vec<Letter> {
        self.inner.letters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        writer.write_all(b"220 mail.example.org\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match word.as_str() {
                "RCPT" if self.fails_now(2) => "451 try later",
                "DATA" => {
                    writer.write_all(b"354 go on\r\n").await?;
                    let mut message_id = String::new();
                    while let Some(line) = lines.next_line().await? {
                        if line == "." {
                            break;
                        }
                        if let Some((_, id)) = line.split_once("Message-ID: <") {
                            message_id = id.trim_end_matches('>').to_owned();
                        }
                    }
                    self.take(message_id);
                    if self.failing.load(Ordering::SeqCst) {
                        // The letter is taken, and nobody is told.
                        return Ok(());
                    }
                    "250 taken"
                }
                "QUIT" => "221 bye",
                _ => "250 fine",
            };
            writer.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        Ok(())
    }

    /// Whether it fails, and with this of every so many letters.
    fn fails_now(&self, every: u64) -> bool {
        self.failing.load(Ordering::SeqCst)
            && self.failures.fetch_add(1, Ordering::SeqCst).is_multiple_of(every)
    }

    fn take(&self, message_id: String) {
        let letter = Letter { message_id, at: self.troubles.now() };
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
    }
}
