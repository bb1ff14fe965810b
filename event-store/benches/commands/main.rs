//! How many commands per second the engine makes durable, beside what it replaces and what it stands on.
//!
//! Each row is measured in the same run and on the same server as its baselines: stock cqrs-es with
//! postgres-es (two pool sizes, the better one counts) and PostgreSQL's own `pgbench` with single-row inserts.
//! The server is private and durable: fsync and synchronous commit are on. Client and server share the
//! machine, so everything the client does is paid for by the server too, as in `mart up`.
//!
//! `cargo bench -p event-store --bench commands`; `-- --help` tells the options.

#![expect(clippy::float_arithmetic, reason = "rates and ratios are no money")]

mod alone;
mod cell;
mod database;
mod engine;
mod options;
mod parcel;
#[expect(dead_code, reason = "the benchmark of growth needs the rest of it")]
mod pgbench;
mod report;
mod rounds;
mod stock;
mod wire;

use embedded::testing::TemporaryPostgres;

use options::{Invocation, Options};
use stock::Stock;

/// The allocator of the `mart` binary, for both sides of each comparison.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The failure of a run: whatever it is, no figures come out.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let options = match options::read(std::env::args().skip(1))? {
        Invocation::Measure(options) => options,
        Invocation::Explain(text) => {
            println!("{text}");
            return Ok(());
        }
    };
    let baseline = stock::runtime_for_stock()?;
    stock::runtime_for_engine()?.block_on(measure(options, &Stock::on(&baseline)))
}

async fn measure(options: Options, stock: &Stock) -> Result<(), Failure> {
    let server = TemporaryPostgres::start().await?;
    let facts = database::facts(&server.server_url()).await?;
    eprintln!("{facts}");
    if let Some((row, in_flight)) = options.cell {
        rounds::play_cell(&server.server_url(), row, in_flight, &options).await?;
        server.stop().await;
        return Ok(());
    }
    let mut results = rounds::Results::default();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        rounds::play(&server.server_url(), round, &options, stock, &mut results).await?;
    }
    server.stop().await;
    let report = report::Report::new(&options, facts, &results);
    println!("{report}");
    let file = report.write()?;
    eprintln!("also in {}", file.display());
    Ok(())
}
