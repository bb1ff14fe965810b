//! `with-postgres <command> [arguments…]`: runs a command with a private PostgreSQL.
//!
//! The server's URL is in `MART_TEST_DATABASE_URL`; the server ends with the command, whose exit code is ours.

use std::process::ExitCode;

use embedded::testing::{SERVER_VARIABLE, TemporaryPostgres, run_with};

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
    let url = server.server_url();
    let code = run_with("with-postgres", &program, arguments, (SERVER_VARIABLE, &url)).await;
    server.stop().await;
    code
}
