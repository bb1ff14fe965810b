//! The mart as its customers and its operator meet it: `mart up` as a release build in a process of its own, with
//! its own database server, under load over HTTP, started again with data, and idle.
//!
//! The generator shares the processor with the mart; nothing is tuned for the run but that registrations are not
//! limited and that the simulated gateway approves.
//!
//! `cargo bench -p load --bench shop`; `-- --help` tells the options.

#![expect(clippy::float_arithmetic, reason = "rates and ratios are no money")]

mod buying;
mod idling;

use features::TestMart;
use features::mart::Setup;
use features::shop::{ADMIN_EMAIL, PASSWORD};
use figures::{Failure, Invocation, Options, Results};
use load::{Credentials, Server, Stage};

const ABOUT: &str = "Measures a running mart: over HTTP, when it starts, and when it has nothing to do.";
/// The rows, by the names on the command line; the first four are scenarios of the load generator.
const NAMES: [&str; 5] = ["carts", "orders", "lists", "sale", "idle"];
/// Products to choose from.
const PRODUCTS: usize = 200;
/// Connections of most scenarios, each with a buyer of its own.
const CONNECTIONS: usize = 256;
/// Threads of the generator: the mart needs the processor more.
const THREADS: usize = 1;

fn main() -> Result<(), Failure> {
    let options = match Invocation::read(ABOUT, &NAMES)? {
        Invocation::Measure(options) => options,
        Invocation::Explain(text) => {
            println!("{text}");
            return Ok(());
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: Options) -> Result<(), Failure> {
    let mut results = Results::new("shop", options.quick);
    let mut mart = Setup::embedded().start().await;
    let server: Server = mart.base().parse()?;
    let credentials = Credentials { name: ADMIN_EMAIL.to_owned(), password: PASSWORD.to_owned() };
    eprintln!("the mart runs; preparing products and buyers");
    let mut stage = Stage::prepare(&server, &credentials, PRODUCTS, CONNECTIONS).await?;
    let mut buying = buying::Rounds::default();
    let mut idling = idling::Rounds::default();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        buying.play(&stage, &options).await?;
        if options.wants("idle") {
            idling.play(&mut mart, &options).await?;
            stage.server = mart.base().parse()?;
        }
    }
    results.rows.extend(buying.rows());
    results.rows.extend(idling.rows());
    stop(mart).await;
    results.publish()
}

async fn stop(mut mart: TestMart) {
    mart.stop().await;
}
