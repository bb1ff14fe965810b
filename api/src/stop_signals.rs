//! Ctrl-C and SIGTERM: how a process is asked to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What is said when the system does not let them be taken.
pub const NO_SIGNALS: &str = "signals cannot be listened to";

/// Takes the signals from the moment that it is made, whether somebody waits for them yet or not. One that came
/// earlier has ended the process at once: so it is made before a process says that it is ready, and kept for as
/// long as it runs.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Begins to take them.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_before_anybody_waits_is_not_lost() {
        for early in [Signal::SIGTERM, Signal::SIGINT] {
            let mut signals = StopSignals::listen().expect("the system lets it");
            raise(early).expect("a process may signal itself");
            let received = tokio::time::timeout(Duration::from_secs(20), signals.received()).await;
            received.unwrap_or_else(|_| panic!("{early} was lost"));
        }
    }
}
