//! The table and the file.

use std::fmt;
use std::path::PathBuf;

use figures::median;
use serde::Serialize;

use crate::Failure;
use crate::cell::Measured;
use crate::options::Options;
use crate::rounds::{LEVELS, POOLS, Results, Row};

/// How many times the rate of `pgbench` new and existing aggregates should reach from 64 in flight on.
const PGBENCH_TARGET: f64 = 2.5;

/// The medians of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    rounds: usize,
    seconds_per_cell: f64,
    /// Single-row inserts per second; none when there was no `pgbench`.
    pgbench_per_second: Option<f64>,
    /// Events per second that the server adds to existing aggregates by itself.
    alone_per_second: Option<f64>,
    rows: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    row: &'static str,
    in_flight: usize,
    commands_per_second: f64,
    /// The slowest and the fastest round.
    slowest: f64,
    fastest: f64,
    p50_ms: f64,
    p99_ms: f64,
    stock: Vec<StockFigures>,
    /// None where stock was not measured.
    stock_best_per_second: Option<f64>,
    times_stock: Option<f64>,
    times_pgbench: Option<f64>,
    target_times_stock: Option<f64>,
    target_times_pgbench: Option<f64>,
    /// None for a row without a target.
    met: Option<bool>,
}

#[derive(Debug, Serialize)]
struct StockFigures {
    pool: u32,
    commands_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Report {
    pub(crate) fn new(options: &Options, machine: String, results: &Results) -> Self {
        let pgbench = (!results.pgbench.is_empty()).then(|| median(&results.pgbench));
        let rows = Row::ALL
            .into_iter()
            .flat_map(|row| LEVELS.map(|in_flight| Line::new(row, in_flight, results)))
            .collect();
        Self {
            machine,
            rounds: options.rounds,
            seconds_per_cell: options.measured.as_secs_f64(),
            pgbench_per_second: pgbench,
            alone_per_second: (!results.alone.is_empty()).then(|| median(&results.alone)),
            rows,
        }
    }

    /// Writes the figures to `bench/commands.json` in cargo's target folder, and keeps the rows for the one table
    /// of all benchmarks.
    pub(crate) fn write(&self) -> Result<PathBuf, Failure> {
        let folder = figures::folder();
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("commands.json");
        std::fs::write(&file, serde_json::to_string_pretty(self)?)?;
        let quick = self.rounds == 1 && self.seconds_per_cell < 1.0;
        let rows = self.rows.iter().map(Line::row).collect();
        figures::Results { rows, ..figures::Results::new("commands", quick) }.keep()?;
        Ok(file)
    }
}

impl Line {
    fn new(row: Row, in_flight: usize, results: &Results) -> Self {
        let rounds = results.mart.get(&(row, in_flight)).map_or(&[][..], Vec::as_slice);
        let mart = medians(rounds);
        let stock: Vec<StockFigures> = POOLS
            .iter()
            .filter_map(|pool| {
                let rounds = results.stock.get(&(row.baseline(), in_flight, *pool))?;
                let Measured { per_second, p50_ms, p99_ms } = medians(rounds);
                (per_second > 0.0).then_some(StockFigures {
                    pool: *pool,
                    commands_per_second: per_second,
                    p50_ms,
                    p99_ms,
                })
            })
            .collect();
        let best = stock.iter().map(|figures| figures.commands_per_second).max_by(f64::total_cmp);
        // Ratios are taken within each round: what else the machine does changes from one to the next, and
        // slows both sides alike.
        let stock_of_round = |round: usize| {
            let rates = POOLS
                .iter()
                .filter_map(|pool| results.stock.get(&(row.baseline(), in_flight, *pool))?.get(round));
            // A short cell may see no command of stock accepted at all; nothing is a multiple of that.
            rates.map(|measured| measured.per_second).filter(|rate| *rate > 0.0).max_by(f64::total_cmp)
        };
        let times = |baseline: &dyn Fn(usize) -> Option<f64>| {
            let ratios: Vec<f64> = (rounds.iter().enumerate())
                .filter_map(|(round, measured)| Some(measured.per_second / baseline(round)?))
                .collect();
            (!ratios.is_empty()).then(|| median(&ratios))
        };
        let times_stock = times(&stock_of_round);
        let times_pgbench = times(&|round| results.pgbench.get(round).copied());
        let (target_times_stock, target_times_pgbench) = targets(row, in_flight);
        let met_stock = target_times_stock.zip(times_stock).map(|(target, times)| times >= target);
        let met_pgbench = target_times_pgbench.zip(times_pgbench).map(|(target, times)| times >= target);
        let rates = || rounds.iter().map(|measured| measured.per_second);
        Self {
            row: row.name(),
            in_flight,
            commands_per_second: mart.per_second,
            slowest: rates().fold(f64::INFINITY, f64::min),
            fastest: rates().fold(0.0, f64::max),
            p50_ms: mart.p50_ms,
            p99_ms: mart.p99_ms,
            stock,
            stock_best_per_second: best,
            times_stock,
            times_pgbench,
            target_times_stock,
            target_times_pgbench,
            met: met_stock.map(|met| met && met_pgbench.unwrap_or(true)),
        }
    }

    /// As a row of the one table.
    fn row(&self) -> figures::Row {
        let baseline = self
            .stock_best_per_second
            .zip(self.times_stock)
            .map(|(median, times)| figures::row::Baseline { name: "stock".to_owned(), median, times });
        let mut row =
            figures::Row::new(&format!("{}, {} in flight", self.row, self.in_flight), "commands/s", &[]);
        row.median = self.commands_per_second;
        (row.lowest, row.highest, row.baseline) = (self.slowest, self.fastest, baseline);
        for (times, target, of) in [
            (self.times_stock, self.target_times_stock, "stock"),
            (self.times_pgbench, self.target_times_pgbench, "pgbench"),
        ] {
            if let (Some(times), Some(target)) = (times, target) {
                row = row.target(format!("≥ {target}× {of}"), times >= target);
            }
        }
        let pgbench = self.times_pgbench.map(|times| format!("; {times:.1}× pgbench")).unwrap_or_default();
        row.note(format!("p50 {:.2} ms, p99 {:.2} ms{pgbench}", self.p50_ms, self.p99_ms))
    }

    fn cells(&self) -> [String; 11] {
        let stock = self.stock.iter().max_by(|a, b| a.commands_per_second.total_cmp(&b.commands_per_second));
        let target = match (self.target_times_stock, self.target_times_pgbench) {
            (Some(stock), Some(pgbench)) => format!("≥ {stock}× stock, ≥ {pgbench}× pgbench"),
            (Some(stock), None) => format!("≥ {stock}× stock"),
            (None, _) => String::new(),
        };
        [
            self.row.to_owned(),
            self.in_flight.to_string(),
            format!("{:.0}", self.commands_per_second),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            figure(self.stock_best_per_second, 0),
            stock.map_or_else(String::new, |stock| format!("{:.2}/{:.2}", stock.p50_ms, stock.p99_ms)),
            figure(self.times_stock, 1),
            figure(self.times_pgbench, 1),
            target,
            match self.met {
                Some(true) => "met".to_owned(),
                Some(false) => "missed".to_owned(),
                None => String::new(),
            },
        ]
    }
}

fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// What a cell should reach: times stock, times `pgbench`. A target speaks of the steady state; aggregates
/// that must be loaded first are shown without one.
fn targets(row: Row, in_flight: usize) -> (Option<f64>, Option<f64>) {
    match (row, in_flight) {
        (Row::New | Row::ExistingWarm, 64) => (Some(9.0), Some(PGBENCH_TARGET)),
        (Row::New | Row::ExistingWarm, 1_024) => (Some(20.0), Some(PGBENCH_TARGET)),
        (Row::Hot, 64) => (Some(200.0), None),
        (Row::New | Row::NewKeyed | Row::ExistingCold | Row::ExistingWarm | Row::Wire | Row::Hot, _) => {
            (None, None)
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.machine)?;
        match self.pgbench_per_second {
            Some(rate) => writeln!(formatter, "pgbench, single-row inserts, 16 clients: {rate:.0}/s")?,
            None => writeln!(formatter, "pgbench was not there: no figures to compare with it")?,
        }
        if let Some(rate) = self.alone_per_second {
            writeln!(formatter, "the server alone, existing aggregates, 512 events a commit: {rate:.0}/s")?;
        }
        writeln!(
            formatter,
            "medians of {} rounds, {} s per cell; ratios within a round\n",
            self.rounds, self.seconds_per_cell
        )?;
        let head = [
            "commands",
            "in flight",
            "per second",
            "p50 ms",
            "p99 ms",
            "stock best",
            "its p50/p99",
            "× stock",
            "× pgbench",
            "target",
            "",
        ];
        let lines: Vec<[String; 11]> =
            std::iter::once(head.map(str::to_owned)).chain(self.rows.iter().map(Line::cells)).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        for line in &lines {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Words to the left, figures to the right.
                let aligned = if column == 0 || column > 8 {
                    format!("{cell:<width$}  ")
                } else {
                    format!("{cell:>width$}  ")
                };
                text.push_str(&aligned);
            }
            writeln!(formatter, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

fn medians(rounds: &[Measured]) -> Measured {
    let middle = |of: fn(&Measured) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    Measured {
        per_second: middle(|measured| measured.per_second),
        p50_ms: middle(|measured| measured.p50_ms),
        p99_ms: middle(|measured| measured.p99_ms),
    }
}
