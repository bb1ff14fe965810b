//! The links between a process of the mart and its PostgreSQL or broker: a port that leads there, on which
//! what passes can be delayed, held up, cut, or cut at the moment that matters most.

mod kafka;
mod postgres;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What is spoken on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL's.
    Postgres,
    /// Kafka's.
    Kafka,
}

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Everything passes.
    Open,
    /// Everything passes, this much later.
    Slow(Duration),
    /// Nothing passes, and nobody is told.
    Stalled,
    /// All connections are cut and none is taken.
    Cut,
}

/// A link.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    protocol: Protocol,
    target: watch::Sender<SocketAddr>,
    condition: watch::Sender<Condition>,
    /// Cut the next connection on which something took effect, before it is told.
    armed: AtomicBool,
    sprung: AtomicU64,
}

impl Link {
    /// Opens a link that leads to `target`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn open(protocol: Protocol, target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            protocol,
            target: watch::Sender::new(target),
            condition: watch::Sender::new(Condition::Open),
            armed: AtomicBool::new(false),
            sprung: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&inner)));
        Ok(Self { address, inner })
    }

    /// Where it is entered.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads elsewhere from now on; connections that are open stay.
    pub fn lead_to(&self, target: SocketAddr) {
        self.inner.target.send_replace(target);
    }

    /// Changes how it is.
    pub fn set(&self, condition: Condition) {
        self.inner.condition.send_replace(condition);
    }

    /// Arms or disarms the cut between an effect and its answer: a commit of PostgreSQL, stored records of Kafka.
    pub fn arm(&self, armed: bool) {
        self.inner.armed.store(armed, Ordering::SeqCst);
    }

    /// How often that cut was made.
    pub fn sprung(&self) -> u64 {
        self.inner.sprung.load(Ordering::SeqCst)
    }
}

impl Inner {
    /// Whether the trap is sprung now; it catches one connection.
    fn springs(&self) -> bool {
        let springs = self.armed.swap(false, Ordering::SeqCst);
        if springs {
            self.sprung.fetch_add(1, Ordering::SeqCst);
        }
        springs
    }

    fn target(&self) -> SocketAddr {
        *self.target.borrow()
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    while let Ok((client, _)) = listener.accept().await {
        if *inner.condition.borrow() == Condition::Cut {
            reset(client);
            continue;
        }
        tokio::spawn(lead(client, Arc::clone(&inner), port));
    }
}

/// Closes a connection as a broken network does, not politely.
fn reset(stream: TcpStream) {
    // A connection that is gone already needs no more.
    let _ = stream.set_zero_linger();
}

async fn lead(client: TcpStream, inner: Arc<Inner>, port: u16) {
    let Ok(server) = TcpStream::connect(inner.target()).await else { return reset(client) };
    // Small messages are not held back: the link is to add nothing of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _ = (client.set_zero_linger(), server.set_zero_linger());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = inner.condition.subscribe();
    let dialogue = Arc::new(Dialogue::new(inner.protocol));
    // Both directions end together: half a connection would be another fault.
    tokio::select! {
        () = pass(from_client, to_server, &inner, |bytes| dialogue.asks(bytes)) => {}
        () = pass(from_server, to_client, &inner, |bytes| dialogue.answers(bytes, &inner, port)) => {}
        _ = cut.wait_for(|condition| *condition == Condition::Cut) => {}
    }
}

/// What is known of a connection from what passed on it.
enum Dialogue {
    Postgres(postgres::Dialogue),
    Kafka(kafka::Dialogue),
}

impl Dialogue {
    fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Postgres => Self::Postgres(postgres::Dialogue::default()),
            Protocol::Kafka => Self::Kafka(kafka::Dialogue::default()),
        }
    }

    /// What the client sends; nothing of it is changed.
    fn asks(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Postgres(dialogue) => dialogue.asks(&bytes),
            Self::Kafka(dialogue) => dialogue.asks(&bytes),
        }
        Some(bytes)
    }

    /// What the server sends, as it is to be passed on; `None` to cut the connection instead.
    fn answers(&self, bytes: Vec<u8>, inner: &Inner, port: u16) -> Option<Vec<u8>> {
        match self {
            Self::Postgres(dialogue) => {
                let done = dialogue.answers(&bytes);
                (!(done && inner.springs())).then_some(bytes)
            }
            Self::Kafka(dialogue) => {
                let (bytes, stored) = dialogue.answers(&bytes, inner.target().port(), port);
                (!(stored && inner.springs())).then_some(bytes)
            }
        }
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    inner: &Inner,
    look: impl Fn(Vec<u8>) -> Option<Vec<u8>>,
) {
    let mut condition = inner.condition.subscribe();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut chunk).await else { return };
        let now = *condition.borrow();
        if let Condition::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if condition.wait_for(|condition| *condition != Condition::Stalled).await.is_err() {
            return;
        }
        let Some(passed) = look(chunk[..read].to_vec()) else { return };
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that repeats what it hears, and a link to it.
    async fn echo() -> Link {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    tokio::io::copy(&mut reader, &mut writer).await.map(drop)
                });
            }
        });
        Link::open(Protocol::Postgres, address).await.expect("a port is free")
    }

    async fn repeats(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
        stream.write_all(text).await?;
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await?;
        assert_eq!(heard, text);
        Ok(())
    }

    #[tokio::test]
    async fn a_link_passes_everything_until_it_is_cut_and_again_when_it_is_open() {
        let link = echo().await;
        let mut stream = TcpStream::connect(link.address()).await.expect("it is open");
        repeats(&mut stream, b"one").await.expect("it passes");
        link.set(Condition::Cut);
        assert!(repeats(&mut stream, b"two").await.is_err());
        let mut refused = TcpStream::connect(link.address()).await.expect("the port is there");
        assert!(repeats(&mut refused, b"three").await.is_err());
        link.set(Condition::Open);
        let mut stream = TcpStream::connect(link.address()).await.expect("it is open");
        repeats(&mut stream, b"four").await.expect("it passes");
    }

    #[tokio::test]
    async fn a_stalled_link_holds_everything_back_and_loses_nothing() {
        let link = echo().await;
        let mut stream = TcpStream::connect(link.address()).await.expect("it is open");
        repeats(&mut stream, b"one").await.expect("it passes");
        link.set(Condition::Stalled);
        stream.write_all(b"two").await.expect("nobody is told");
        let mut heard = [0; 3];
        let silent = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut heard)).await;
        assert!(silent.is_err(), "something passed");
        link.set(Condition::Open);
        stream.read_exact(&mut heard).await.expect("it passes");
        assert_eq!(&heard, b"two");
    }
}
