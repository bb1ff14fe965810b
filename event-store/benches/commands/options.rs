//! What may be asked of a run.

use std::time::Duration;

use crate::Failure;
use crate::rounds::Row;

const HELP: &str = "\
Measures commands per second: the engine, stock cqrs-es + postgres-es, and pgbench.

  cargo bench -p event-store --bench commands [-- OPTIONS]

  --quick          one round of short cells: whether it works, not how fast it is
  --cell ROW:N     one cell of the engine alone, N commands in flight, for a profiler;
                   rows: new, keyed, cold, warm, wire, hot
  --help           this text

  ROUNDS=3             rounds; medians are reported
  SECONDS_PER_CELL=2   how long each cell is measured (fractions are allowed)";

const NOT_ASKED: &str = "nothing measured: run it with `cargo bench`";

/// How a run is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// How long a cell is measured.
    pub(crate) measured: Duration,
    /// How long a cell runs before it is measured.
    pub(crate) warm_up: Duration,
    /// The one cell to run, if it is only one.
    pub(crate) cell: Option<(Row, usize)>,
}

/// What the command line asks for.
pub(crate) enum Invocation {
    Measure(Options),
    Explain(&'static str),
}

/// Reads arguments and environment. Cargo adds `--bench`; without it this is a test run over all targets,
/// which should not take minutes.
pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Invocation, Failure> {
    let (mut asked, mut quick, mut cell) = (false, false, None);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Invocation::Explain(HELP)),
            "--bench" => asked = true,
            "--quick" => quick = true,
            "--cell" => cell = Some(one_cell(&arguments.next().unwrap_or_default())?),
            other => return Err(format!("unknown option {other}: see --help").into()),
        }
    }
    if !asked && !quick && cell.is_none() {
        return Ok(Invocation::Explain(NOT_ASKED));
    }
    let (rounds, seconds) = if quick { (1, 0.3) } else { (3, 2.0) };
    let measured = Duration::try_from_secs_f64(variable("SECONDS_PER_CELL", seconds)?)?;
    Ok(Invocation::Measure(Options {
        rounds: variable("ROUNDS", rounds)?.max(1),
        measured,
        warm_up: measured / 6,
        cell,
    }))
}

fn one_cell(text: &str) -> Result<(Row, usize), Failure> {
    let cell = text.split_once(':').and_then(|(row, in_flight)| {
        let row = Row::ALL.into_iter().find(|known| known.key() == row)?;
        Some((row, in_flight.parse().ok().filter(|in_flight| *in_flight > 0)?))
    });
    cell.ok_or_else(|| format!("--cell takes a row and a number, such as new:64, and not {text:?}").into())
}

fn variable<T: std::str::FromStr>(name: &str, otherwise: T) -> Result<T, Failure> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name} is no number: {text}").into()),
        Err(_) => Ok(otherwise),
    }
}
