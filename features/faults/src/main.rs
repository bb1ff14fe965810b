//! The `faults` binary: breaks a whole mart on purpose, and says whether it kept its promises.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use faults::fault::Fault;
use faults::run::{Plan, run};
use faults::schedule::{Selection, schedule};
use faults::selftest::{DEFECTS, Defect, Found, look_for};
use faults::world::Cast;

const EXAMPLES: &str = "Examples:
  faults run
  faults run --seed 17 --minutes 2
  faults run --seed 17 --only kill --only commit-cut
  faults run --without postgres-kill
  faults run --alone
  faults plan --seed 17     # what would break, and when";

/// Breaks a whole mart on purpose, and says whether it kept its promises
#[derive(Debug, Parser)]
#[command(name = "faults", arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let people buy while things break, then check everything
    #[command(after_help = EXAMPLES)]
    Run(RunOptions),
    /// Print what would break, and when
    Plan(RunOptions),
    /// Plant one defect after the other into a mart that is built with failpoints, and look whether each is found
    Selftest(SelftestOptions),
}

#[derive(Debug, Args)]
struct RunOptions {
    /// Decides everything that can be decided [default: a new one each time]
    #[arg(long, env = "SEED", value_name = "NUMBER")]
    seed: Option<u64>,

    /// For how long things break
    #[arg(long, env = "MINUTES", default_value = "3", value_parser = minutes, value_name = "MINUTES")]
    minutes: Duration,

    /// Only this fault; may be given several times
    #[arg(long, value_enum, value_name = "FAULT")]
    only: Vec<Fault>,

    /// Not this fault; may be given several times
    #[arg(long, value_enum, value_name = "FAULT")]
    without: Vec<Fault>,

    /// With a real Apache Kafka, which needs Java and Maven, instead of the broker in this process
    #[arg(long, env = "KAFKA", value_parser = clap::builder::FalseyValueParser::new())]
    kafka: bool,

    /// With one process that does everything, `mart up`, instead of two of each role
    #[arg(long, env = "ALONE", value_parser = clap::builder::FalseyValueParser::new())]
    alone: bool,

    /// The program `mart` [default: the one beside this program]
    #[arg(long, env = "MART_BIN", value_name = "FILE")]
    mart: Option<PathBuf>,

    /// Where the folder of the run is made; it is kept when the run fails [default: that of temporary files]
    #[arg(long, env = "FAULTS_DIR", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SelftestOptions {
    /// Only this defect; may be given several times
    #[arg(long, value_name = "DEFECT",
          value_parser = clap::builder::PossibleValuesParser::new(DEFECTS.map(|defect| defect.name)))]
    defect: Vec<String>,

    #[command(flatten)]
    run: RunOptions,
}

impl RunOptions {
    fn plan(&self) -> Result<Plan> {
        let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("mart"));
        let binary = match &self.mart {
            Some(binary) => binary.clone(),
            None => beside().context("this program does not know where it is: name mart with --mart")?,
        };
        let binary = binary
            .canonicalize()
            .with_context(|| format!("there is no {}: build it, or name it with --mart", binary.display()))?;
        let folder = self.folder.clone().unwrap_or_else(|| std::env::temp_dir().join("mart-faults"));
        Ok(Plan {
            seed: self.seed.unwrap_or_else(rand::random),
            lasting: self.minutes,
            faults: Selection::new(&self.only, &self.without),
            binary,
            failpoints: None,
            cast: Cast { alone: self.alone, real_kafka: self.kafka },
            folder,
        })
    }

    /// The line that makes the same run again.
    fn repeats(&self, seed: u64) -> String {
        let narrowed: String = [("only", &self.only), ("without", &self.without)]
            .into_iter()
            .flat_map(|(flag, faults)| faults.iter().map(move |fault| format!(" --{flag} {fault}")))
            .collect();
        let minutes = (self.minutes / 60).as_secs_f64();
        if narrowed.is_empty() {
            let kafka = if self.kafka { "KAFKA=1 " } else { "" };
            let alone = if self.alone { "ALONE=1 " } else { "" };
            format!("{alone}{kafka}SEED={seed} MINUTES={minutes} make faults")
        } else {
            let kafka = if self.kafka { " --kafka" } else { "" };
            let alone = if self.alone { " --alone" } else { "" };
            format!("faults run --seed {seed} --minutes {minutes}{alone}{kafka}{narrowed}")
        }
    }
}

fn minutes(text: &str) -> std::result::Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "write a number such as 3 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(minutes).map(|minutes| minutes * 60).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => one_run(&options).await,
        Command::Plan(options) => print_plan(&options),
        Command::Selftest(options) => selftest(&options).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn one_run(options: &RunOptions) -> Result<bool> {
    let plan = options.plan()?;
    println!("seed {}: {}", plan.seed, options.repeats(plan.seed));
    let verdict = run(&plan).await?;
    println!("{verdict}");
    if verdict.passed() {
        println!("seed {}: everything holds", plan.seed);
    } else {
        println!("data, logs and history are in {}", verdict.folder.display());
        println!("to repeat it: {}", options.repeats(plan.seed));
    }
    Ok(verdict.passed())
}

async fn selftest(options: &SelftestOptions) -> Result<bool> {
    let plan = options.run.plan()?;
    let wanted =
        |defect: &Defect| options.defect.is_empty() || options.defect.iter().any(|name| name == defect.name);
    let mut found = Vec::new();
    for defect in DEFECTS.into_iter().filter(wanted) {
        println!("{}", defect.name);
        found.push(look_for(defect, &plan).await?);
    }
    println!();
    for Found { defect, by, after } in &found {
        let by = by.as_deref().and_then(|by| by.lines().next()).unwrap_or("NOT FOUND");
        println!("{:<40} {:>4} s  {by}", defect.name, after.as_secs());
    }
    Ok(found.iter().all(|found| found.by.is_some()))
}

fn print_plan(options: &RunOptions) -> Result<bool> {
    let plan = options.plan()?;
    println!("seed {}", plan.seed);
    for step in schedule(plan.seed, plan.lasting, &plan.faults) {
        println!(
            "{:>7.1}s  {:<16} for {:.1} s",
            step.at.as_secs_f64(),
            step.fault.to_string(),
            step.lasting.as_secs_f64()
        );
    }
    Ok(true)
}
