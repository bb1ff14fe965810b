//! What a run tells: a line now and then, and a summary at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::checks::Checked;
use crate::fault::Fault;
use crate::history::{History, Kind, Outcome};
use crate::troubles::Troubles;

/// Tells how it goes, until it is aborted.
pub async fn progress(troubles: Troubles, history: Arc<History>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
        for (outcome, count) in history.counts().into_values().flatten() {
            *outcomes.entry(outcome).or_default() += count;
        }
        let count = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
        let broken: Vec<String> = troubles.broken().iter().map(Fault::to_string).collect();
        println!(
            "{:>6.1}s  {} done, {} refused, {} unknown  {}",
            troubles.now().as_secs_f64(),
            count(Outcome::Done),
            count(Outcome::Refused),
            count(Outcome::Unknown),
            if broken.is_empty() {
                "all is well".to_owned()
            } else {
                format!("broken: {}", broken.join(", "))
            }
        );
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The seed of the run.
    pub seed: u64,
    /// Where its logs and data are.
    pub folder: PathBuf,
    operations: BTreeMap<Kind, BTreeMap<Outcome, usize>>,
    faults: BTreeMap<Fault, usize>,
    complaints: Vec<String>,
    checks: Vec<Checked>,
}

impl Verdict {
    /// Puts together what is known of a run.
    pub fn new(
        seed: u64,
        folder: &Path,
        history: &History,
        troubles: &Troubles,
        checks: Vec<Checked>,
    ) -> Self {
        Self {
            seed,
            folder: folder.to_owned(),
            operations: history.counts(),
            faults: troubles.counts(),
            complaints: troubles.complaints(),
            checks,
        }
    }

    /// Whether nothing was found.
    pub fn passed(&self) -> bool {
        self.complaints.is_empty() && self.checks.iter().all(|check| check.wrong.is_empty())
    }

    /// What was found first.
    pub fn finding(&self) -> Option<String> {
        let failed = self.checks.iter().find(|check| !check.wrong.is_empty());
        let found = failed.map(|check| format!("{}: {}", check.name, check.wrong[0]));
        found.or_else(|| self.complaints.first().cloned())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\noperations")?;
        for (kind, outcomes) in &self.operations {
            let count = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
            writeln!(
                formatter,
                "  {:<16} {:>6} done {:>6} refused {:>4} unknown",
                format!("{kind:?}"),
                count(Outcome::Done),
                count(Outcome::Refused),
                count(Outcome::Unknown)
            )?;
        }
        writeln!(formatter, "faults")?;
        for (fault, count) in &self.faults {
            writeln!(formatter, "  {:<16} {count:>6}", fault.to_string())?;
        }
        writeln!(formatter, "checks")?;
        for check in &self.checks {
            let result = if check.wrong.is_empty() { "holds" } else { "BROKEN" };
            writeln!(formatter, "  {result:<6} {} ({} looked at)", check.name, check.looked_at)?;
            for wrong in check.shown() {
                writeln!(formatter, "           {wrong}")?;
            }
        }
        for complaint in &self.complaints {
            writeln!(formatter, "  BROKEN while it ran: {complaint}")?;
        }
        Ok(())
    }
}
