//! `load`: customers by the hundred for a running mart.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use load::{Credentials, Figures, Level, Pace, Plan, Scenario, Server, Timing};

/// How many visits a second are due at least: fewer would leave nothing to tell.
const RATE_MIN: f64 = 0.1;

/// Lets customers come to a running mart, and tells how fast it serves them.
#[derive(Debug, Parser)]
#[command(
    name = "load",
    version,
    after_help = "Examples:
  MART_RATE_LIMITS=off mart up &              # many buyers register from one address
  load                                        # all scenarios, 64 connections each
  load --only carts --connections 16,64,256   # the highest rate at three levels
  load --only orders --rate 300 --seconds 30  # 300 orders a second are due; latencies count from then
  load --only sale --pieces 5000              # 200 buyers of one product; exit code 1 if too much was sold
  load --url http://127.0.0.1:9000 --json figures.json"
)]
struct Options {
    /// Where the mart listens
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: Server,

    /// Only these scenarios, in this order
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCENARIO", default_values_t = Scenario::ALL)]
    only: Vec<Scenario>,

    /// Keep-alive connections, each with one request at a time; several levels are played one after the other
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "NUMBER",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=8192))]
    connections: Vec<usize>,

    /// So many visits a second are due, whatever the answers do [default: as many as the connections manage]
    #[arg(long, value_name = "PER SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// How long each level is measured, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,

    /// How long each level runs before that, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    warm_up: Duration,

    /// How many products there are to choose from; those of earlier runs are taken again
    #[arg(long, default_value_t = 200)]
    products: usize,

    /// How many pieces there are of the product in the sale
    #[arg(long, default_value_t = 10_000)]
    pieces: u32,

    /// Name or e-mail address of an admin, who lists the products
    #[arg(long, env = "LOAD_ADMIN", default_value = "admin1@email.com")]
    admin: String,

    /// The admin's password
    #[arg(long, env = "LOAD_PASSWORD", default_value = "testPass123", hide_env_values = true)]
    password: String,

    /// Also write the figures into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Threads of the generator; it shares the processor with a mart on the same machine
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    threads: usize,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if rate.is_finite() && rate >= RATE_MIN { Ok(rate) } else { Err(format!("must be {RATE_MIN} at least")) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is no number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()
        .expect("the system has threads");
    match runtime.block_on(play(options)) {
        Ok(figures) if figures.iter().all(|row| row.flaws().is_empty()) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let mut told = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                told.push_str(&format!(": {error}"));
                cause = error.source();
            }
            eprintln!("load: {told}");
            ExitCode::FAILURE
        }
    }
}

async fn play(options: Options) -> Result<Vec<Figures>, Box<dyn std::error::Error>> {
    let pace = options.rate.map_or(Pace::Closed, Pace::Open);
    let timing = Timing { warm_up: options.warm_up, measured: options.seconds };
    let level = |scenario, connections| Level { scenario, connections, pace, timing, pieces: options.pieces };
    let levels = options.only.iter().flat_map(|scenario| match scenario {
        // It says itself how many come.
        Scenario::Sale => vec![level(*scenario, 0)],
        Scenario::Carts | Scenario::Orders | Scenario::Lists => {
            options.connections.iter().map(|connections| level(*scenario, *connections)).collect()
        }
    });
    let plan = Plan {
        levels: levels.collect(),
        credentials: Credentials { name: options.admin, password: options.password },
        products: options.products,
    };
    let tell = |row: &Figures| {
        eprintln!("{} with {} connections: {:.0}/s", row.scenario.name(), row.connections, row.per_second);
    };
    eprintln!("preparing products and buyers");
    let figures = load::run(&options.url, &plan, tell).await?;
    println!("{}", load::table(&figures));
    if let Some(file) = options.json {
        std::fs::write(file, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn levels_and_scenarios_are_lists() {
        let options = Options::try_parse_from([
            "load",
            "--only",
            "sale,carts",
            "--connections",
            "1,16",
            "--rate",
            "0.5",
        ])
        .expect("it is right");
        assert_eq!(options.only, [Scenario::Sale, Scenario::Carts]);
        assert_eq!((options.connections, options.rate), (vec![1, 16], Some(0.5)));
        for wrong in [["--rate", "0"], ["--rate", "inf"], ["--seconds", "-1"], ["--connections", "0"]] {
            assert!(Options::try_parse_from(["load"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
