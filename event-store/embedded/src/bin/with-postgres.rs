//! `with-postgres <command> [arguments…]`: runs a command with a private PostgreSQL.
//!
//! The server's URL is in `MART_TEST_DATABASE_URL`; the server ends with the command, whose exit code is ours.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use embedded::testing::{SERVER_VARIABLE, TemporaryPostgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// What shells answer when a command cannot be run.
const CANNOT_RUN: u8 = 127;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-postgres <command> [arguments…]");
        return ExitCode::FAILURE;
    };
    let server = match TemporaryPostgres::start().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("with-postgres: {error}");
            return ExitCode::FAILURE;
        }
    };
    let child = Command::new(&program).args(arguments).env(SERVER_VARIABLE, server.server_url()).spawn();
    let code = match child {
        Ok(child) => wait(child).await,
        Err(error) => {
            eprintln!("with-postgres: {} cannot be run: {error}", program.display());
            ExitCode::from(CANNOT_RUN)
        }
    };
    server.stop().await;
    code
}

/// Waits for the command and passes on the signals that ask it to end.
async fn wait(mut child: Child) -> ExitCode {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return ExitCode::FAILURE;
    };
    loop {
        let passed_on = tokio::select! {
            status = child.wait() => return status.map_or(ExitCode::FAILURE, exit_code),
            _ = interrupt.recv() => Signal::SIGINT,
            _ = terminate.recv() => Signal::SIGTERM,
        };
        if let Some(pid) = pid {
            let _ = kill(pid, passed_on);
        }
    }
}

/// The command's own code, or 128 and the signal that ended it, as shells say it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
