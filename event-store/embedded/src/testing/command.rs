//! Running a command beside a server that was started for it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// What shells answer when a command cannot be run.
const CANNOT_RUN: u8 = 127;

/// Runs a program with a variable set, to its end; passes on the signals that ask it to end, and gives its exit
/// code. `ours` is who says that it cannot be run.
pub async fn run_with(
    ours: &str,
    program: &OsStr,
    arguments: impl Iterator<Item = OsString>,
    variable: (&str, &str),
) -> ExitCode {
    match Command::new(program).args(arguments).env(variable.0, variable.1).spawn() {
        Ok(child) => wait(child).await,
        Err(error) => {
            eprintln!("{ours}: {} cannot be run: {error}", program.display());
            ExitCode::from(CANNOT_RUN)
        }
    }
}

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
