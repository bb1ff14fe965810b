//! The `mart` binary: one command, one role.

use std::process::ExitCode;

use api::cli::{Cli, Command};
use api::{roles, telemetry, tls};
use clap::Parser;

/// Commands allocate much and briefly. With this allocator an order costs less, and the process needs less memory, than
/// with mimalloc: docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    #[cfg(feature = "failpoints")]
    api::failpoints::set_up()?;
    match cli.command {
        Command::Up(options) => roles::up(*options).await,
        Command::Serve(options) => roles::serve(*options).await,
        Command::Work(options) => roles::work(*options).await,
        Command::Project(options) => roles::project(*options).await,
        Command::Replay(options) => roles::replay(options).await,
        Command::Migrate(storage) => roles::migrate(storage).await,
        Command::Seed(storage) => roles::seed(storage).await,
        Command::Admin(command) => roles::admin(command).await,
        Command::Events(command) => roles::events(command).await,
        Command::Parked(command) => roles::parked_events(command).await,
        Command::Verify(options) => roles::verify(options).await,
        Command::Openapi => roles::openapi(),
        Command::Healthcheck(options) => roles::healthcheck(options).await,
    }
}
