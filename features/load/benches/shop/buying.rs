//! Rows over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use figures::{Failure, Options, Row};
use load::{Figures, Level, Pace, Scenario, Stage, Timing};

use crate::CONNECTIONS;

/// Orders that are due a second at the open pace.
const ORDERS_DUE: f64 = 500.0;
/// Pieces of the product of the sale: they are sold out during the measured time when the target is met.
const PIECES: u32 = 10_000;
/// The same in a quick run.
const QUICK_PIECES: u32 = 200;

/// What is played in each round: a name, and the level.
fn levels(options: &Options) -> Vec<(&'static str, Level)> {
    let (warm_up, measured) = if options.quick { (0.2, 1.0) } else { (2.0, 8.0) };
    let timing =
        Timing { warm_up: Duration::from_secs_f64(warm_up), measured: Duration::from_secs_f64(measured) };
    let pieces = if options.quick { QUICK_PIECES } else { PIECES };
    let level = |scenario, connections, pace| Level { scenario, connections, pace, timing, pieces };
    let all = [
        ("add to a cart, 64 connections", level(Scenario::Carts, 64, Pace::Closed)),
        ("add to a cart, 256 connections", level(Scenario::Carts, CONNECTIONS, Pace::Closed)),
        ("order, pay, confirm, 32 connections", level(Scenario::Orders, 32, Pace::Closed)),
        ("order, pay, confirm, 64 connections", level(Scenario::Orders, 64, Pace::Closed)),
        ("order, pay, confirm, 128 connections", level(Scenario::Orders, 128, Pace::Closed)),
        ("order, pay, confirm, 500/s due", level(Scenario::Orders, CONNECTIONS, Pace::Open(ORDERS_DUE))),
        ("list products, 64 connections", level(Scenario::Lists, 64, Pace::Closed)),
        ("one product, 200 buyers", level(Scenario::Sale, 0, Pace::Closed)),
    ];
    all.into_iter().filter(|(_, level)| options.wants(level.scenario.name())).collect()
}

/// What the rounds measured, by the names of the rows.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// In the order in which they were played.
    names: Vec<&'static str>,
    figures: BTreeMap<&'static str, Vec<Figures>>,
}

impl Rounds {
    pub(crate) async fn play(&mut self, stage: &Stage, options: &Options) -> Result<(), Failure> {
        for (name, level) in levels(options) {
            let figures = level.play(stage).await?;
            eprintln!("{}", load::table(std::slice::from_ref(&figures)));
            if !self.names.contains(&name) {
                self.names.push(name);
            }
            self.figures.entry(name).or_default().push(figures);
        }
        Ok(())
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.names.iter().flat_map(|name| self.rows_of(name)).collect()
    }

    fn rows_of(&self, name: &str) -> Vec<Row> {
        let rounds = self.figures.get(name).map_or(&[][..], Vec::as_slice);
        let Some(first) = rounds.first() else { return Vec::new() };
        let series = |figure: fn(&Figures) -> f64| rounds.iter().map(figure).collect::<Vec<f64>>();
        let note = format!(
            "p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms{}",
            figures::median(&series(|round| round.p50_ms)),
            figures::median(&series(|round| round.p95_ms)),
            figures::median(&series(|round| round.p99_ms)),
            parts(rounds)
        );
        let rate = |unit| Row::new(name, unit, &series(|round| round.per_second)).note(note.clone());
        let mut rows = match (first.scenario, first.due_per_second) {
            (Scenario::Carts, _) if first.connections == CONNECTIONS => {
                vec![rate("adds/s").at_least(6_700.0)]
            }
            (Scenario::Carts, _) => vec![rate("adds/s")],
            (Scenario::Orders, None) => vec![rate("orders/s").at_least(ORDERS_DUE)],
            (Scenario::Orders, Some(_)) => {
                let p95 = Row::new(&format!("{name}, p95"), "ms", &series(|round| round.p95_ms));
                vec![rate("orders/s"), p95.at_most(100.0).note("from when each was due")]
            }
            (Scenario::Lists, _) => vec![rate("lists/s").at_least(10_000.0)],
            (Scenario::Sale, _) => {
                let sold = rounds.iter().filter_map(|round| round.sale.as_ref());
                let sold: Vec<String> =
                    sold.map(|sale| format!("{} of {}", sale.sold, sale.pieces)).collect();
                let exact =
                    rounds.iter().all(|round| round.sale.as_ref().is_some_and(|sale| sale.flaw().is_none()));
                let row = rate("decisions/s").at_least(2_000.0);
                let row = row.target("never one too many".to_owned(), exact);
                vec![row.note(format!("{note}; sold {}", sold.join(", ")))]
            }
        };
        let failed: u64 = rounds.iter().flat_map(|round| round.failed.values()).sum();
        if failed > 0
            && let Some(row) = rows.pop()
        {
            rows.push(row.target(format!("no failures, not {failed}"), false));
        }
        rows
    }
}

/// How long the parts of a visit took at the median.
fn parts(rounds: &[Figures]) -> String {
    let mut parts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for part in rounds.iter().flat_map(|round| &round.parts) {
        parts.entry(part.name).or_default().push(part.p50_ms);
    }
    parts.iter().map(|(name, p50)| format!("; {name} {:.1} ms", figures::median(p50))).collect()
}
