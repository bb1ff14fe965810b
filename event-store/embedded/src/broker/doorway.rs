//! A fixed local port that leads to the broker's own.
//!
//! Clients use it for their first question only: the answer names the broker's real address, and they go there.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// An open doorway; it closes when dropped.
pub(super) struct Doorway {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Doorway {
    /// Listens on `port` of 127.0.0.1 and leads every connection to `target`.
    pub(super) fn open(port: u16, target: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let closing = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("broker-doorway".to_owned()).spawn({
            let closing = Arc::clone(&closing);
            move || accept(&listener, &target, &closing)
        })?;
        Ok(Self { address, closing, thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Doorway {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // A listener waits until somebody comes: come, so that it sees that it is to close.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, target: &str, closing: &AtomicBool) {
    for client in listener.incoming() {
        if closing.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else { continue };
        // A broker that is down takes no connections: dropping the client's tells it the same.
        if let Ok(broker) = TcpStream::connect(target) {
            let _ = lead(client, broker);
        }
    }
}

/// Copies both directions, each on a thread of its own, until either side ends.
fn lead(client: TcpStream, broker: TcpStream) -> io::Result<()> {
    let (client_reader, broker_reader) = (client.try_clone()?, broker.try_clone()?);
    for (mut reader, mut writer) in [(client_reader, broker), (broker_reader, client)] {
        thread::Builder::new().name("broker-doorway".to_owned()).spawn(move || {
            let _ = io::copy(&mut reader, &mut writer);
            let _ = writer.shutdown(Shutdown::Both);
            let _ = reader.shutdown(Shutdown::Both);
        })?;
    }
    Ok(())
}
