//! How fast events reach those who read them: read models that follow a log or are built anew, and the broker.
//!
//! Each row is measured beside its baseline in the same round: cqrs-es's `GenericQuery` and `QueryReplay` on
//! postgres-es, with the same fold, and a bare producer of librdkafka. The server is private and durable, and shares
//! the machine with the readers, as in `mart up`.
//!
//! `cargo bench -p projections --bench reading`; `-- --help` tells the options.

#![expect(clippy::float_arithmetic, reason = "rates and ratios are no money")]

mod following;
mod history;
mod memory;
mod rebuilding;
mod relaying;
mod seeing;
mod stock;

use std::collections::BTreeMap;
use std::time::Duration;

use embedded::testing::TemporaryPostgres;
use event_store::Log;
use event_store::broker::Broker;
use figures::{Failure, Invocation, Options, Results};
use projections::projector::Sources;

use history::History;

/// The allocator of the `mart` binary, for both sides of each comparison.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ABOUT: &str = "Measures how fast events reach those who read them, beside cqrs-es's GenericQuery and \
                     QueryReplay and a bare producer.";
/// The rows, by the names on the command line.
const NAMES: [&str; 4] = ["following", "rebuilding", "relaying", "seeing"];
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<(), Failure> {
    let options = match Invocation::read(ABOUT, &NAMES)? {
        Invocation::Measure(options) => options,
        Invocation::Explain(text) => {
            println!("{text}");
            return Ok(());
        }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: Options) -> Result<(), Failure> {
    let server = TemporaryPostgres::start().await?;
    let mut results = Results::new("reading", options.quick);
    let history = History::write(&server.server_url(), &options).await?;
    if options.wants("following") {
        results.rows.push(following::measure(&history, &options).await?);
    }
    if options.wants("rebuilding") {
        results.rows.push(rebuilding::measure(&history, &options).await?);
    }
    if options.wants("relaying") {
        results.rows.push(relaying::measure(&history, &options).await?);
    }
    if options.wants("seeing") {
        results.rows.extend(seeing::measure(&server.server_url(), &options).await?);
    }
    drop(history);
    server.stop().await;
    results.publish()
}

/// The log of orders as what read models are made of.
fn sources(log: &Log, broker: Option<Broker>) -> Sources {
    Sources { logs: BTreeMap::from([("orders", log.clone())]), broker }
}
