//! What came out of a scenario.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::pace::{Pace, Timing};
use crate::scenarios::{Sale, Scenario};
use crate::tally::{Latencies, Tally};

/// What came out of a scenario at one level of load.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// What was done.
    pub scenario: Scenario,
    /// Connections, each a visitor's own.
    pub connections: usize,
    /// How many visits were due a second; none at a closed pace.
    pub due_per_second: Option<f64>,
    /// How long it was measured, in seconds.
    pub seconds: f64,
    /// Visits a second that ended as they should, or were refused where that belongs to the scenario.
    pub per_second: f64,
    /// Latencies; of a visit with several requests, from the first request to the last answer.
    pub p50_ms: f64,
    /// 95 per cent were not slower.
    pub p95_ms: f64,
    /// 99 per cent were not slower.
    pub p99_ms: f64,
    /// The slowest.
    pub longest_ms: f64,
    /// Visits that ended as they should.
    pub done: u64,
    /// Visits that were refused.
    pub refused: u64,
    /// What else happened, and how often.
    pub failed: BTreeMap<String, u64>,
    /// How long the parts of a visit took, when it has several.
    pub parts: Vec<Part>,
    /// What became of the pieces, for a sale.
    pub sale: Option<Sale>,
}

/// How long a part of a visit took.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Which.
    pub name: &'static str,
    /// Half were not slower.
    pub p50_ms: f64,
    /// 95 per cent were not slower.
    pub p95_ms: f64,
}

impl Figures {
    pub(crate) fn of(
        scenario: Scenario,
        connections: usize,
        pace: Pace,
        timing: Timing,
        tally: Tally,
        sale: Option<Sale>,
    ) -> Self {
        let seconds = timing.measured.as_secs_f64();
        let part = |(name, latencies): (&&'static str, &Latencies)| Part {
            name,
            p50_ms: latencies.percentile_ms(50.0),
            p95_ms: latencies.percentile_ms(95.0),
        };
        Self {
            scenario,
            connections,
            due_per_second: match pace {
                Pace::Closed => None,
                Pace::Open(per_second) => Some(per_second),
            },
            seconds,
            per_second: tally.in_time as f64 / seconds,
            p50_ms: tally.latencies.percentile_ms(50.0),
            p95_ms: tally.latencies.percentile_ms(95.0),
            p99_ms: tally.latencies.percentile_ms(99.0),
            longest_ms: tally.latencies.longest_ms(),
            done: tally.done,
            refused: tally.refused,
            parts: tally.parts.iter().map(part).collect(),
            failed: tally.failed,
            sale,
        }
    }

    /// What went wrong, when something did.
    pub fn flaws(&self) -> Vec<String> {
        let failed = self.failed.iter().map(|(why, times)| format!("{times} × {why}"));
        failed.chain(self.sale.as_ref().and_then(Sale::flaw)).collect()
    }

    fn told(&self) -> String {
        let parts =
            self.parts.iter().map(|part| format!("{} {:.1}/{:.1} ms", part.name, part.p50_ms, part.p95_ms));
        let sale = self
            .sale
            .as_ref()
            .map(|sale| format!("{} of {} pieces sold, {} reserved", sale.sold, sale.pieces, sale.reserved));
        let flaws = self.flaws().into_iter().map(|flaw| format!("FAILED: {flaw}"));
        parts.chain(sale).chain(flaws).collect::<Vec<_>>().join("; ")
    }
}

/// The figures as a table.
pub fn table(figures: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "scenario",
        "connections",
        "due/s",
        "done/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "longest ms",
        "",
    ]);
    for row in figures {
        let due = row.due_per_second.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}"));
        table.add_row([
            row.scenario.name().to_owned(),
            row.connections.to_string(),
            due,
            format!("{:.0}", row.per_second),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p95_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.1}", row.longest_ms),
            row.told(),
        ]);
    }
    for column in 1..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}
