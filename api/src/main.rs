//! The `mart` binary: one command, one role.

use std::process::ExitCode;

use anyhow::bail;
use api::cli::{Cli, Command};
use api::{roles, telemetry, tls};
use clap::Parser;
use utoipa_axum::router::OpenApiRouter;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    tls::install_provider();
    telemetry::init(cli.logging.log.as_deref(), cli.logging.log_format)?;
    match cli.command {
        Command::Openapi => roles::openapi(OpenApiRouter::new()),
        Command::Healthcheck(options) => roles::healthcheck(options).await,
        Command::Up(_)
        | Command::Serve(_)
        | Command::Work(_)
        | Command::Project(_)
        | Command::Replay(_)
        | Command::Migrate(_)
        | Command::Seed(_)
        | Command::Admin(_)
        | Command::Events(_)
        | Command::Parked(_)
        | Command::Verify(_) => bail!("this build of mart does not have this command"),
    }
}
