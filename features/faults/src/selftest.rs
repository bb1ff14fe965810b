//! The harness finds what it is to find: one defect after the other is planted into the mart, and each must show.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fault::Fault;
use crate::run::{Plan, run};
use crate::schedule::Selection;

/// How long things break in one try.
const TRY: Duration = Duration::from_secs(25);
/// How many tries a defect has to show: together they break things for less than two minutes.
const TRIES: u64 = 4;

/// A defect that is planted, and what brings it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defect {
    /// Its name among the failpoints of the mart.
    pub name: &'static str,
    /// What breaks.
    pub faults: &'static [Fault],
    /// What else is armed: a stall in a gap that a fault would seldom meet by itself.
    pub widened_by: Option<&'static str>,
}

/// All of them.
pub const DEFECTS: [Defect; 8] = [
    defect("defect-relay-marks-before-ack", &[Fault::BrokerDown, Fault::Kill]),
    defect("defect-projector-skips-dedup", &[Fault::Repeat]),
    Defect {
        widened_by: Some("checkpoint-apart=30%sleep(100)"),
        ..defect("defect-projector-checkpoint-apart", &[Fault::Kill, Fault::CommitCut])
    },
    defect("defect-reservation-ignores-version", &[Fault::Pause, Fault::Kill, Fault::LinkStall]),
    defect("defect-gateway-new-key", &[Fault::GatewaySilent]),
    Defect {
        widened_by: Some("command-row-apart=60%sleep(400)"),
        ..defect("defect-idempotency-row-apart", &[Fault::Kill])
    },
    defect("defect-poison-swallowed", &[Fault::Poison]),
    defect("defect-cancellation-forgets-release", &[Fault::LinkDelay]),
];

const fn defect(name: &'static str, faults: &'static [Fault]) -> Defect {
    Defect { name, faults, widened_by: None }
}

/// What became of a defect.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which one.
    pub defect: Defect,
    /// What gave it away; none when nothing did.
    pub by: Option<String>,
    /// How long that took, with all that a try needs beside its faults.
    pub after: Duration,
}

/// Plants a defect and looks for it, with one seed after the other.
///
/// # Errors
/// When a run cannot be made.
pub async fn look_for(defect: Defect, plan: &Plan) -> Result<Found> {
    let started = Instant::now();
    for number in 0..TRIES {
        let attempt = Plan {
            seed: plan.seed.wrapping_add(number),
            lasting: TRY,
            faults: Selection::new(defect.faults, &[]),
            failpoints: Some(armed(defect)),
            ..plan.clone()
        };
        let verdict = run(&attempt).await?;
        if let Some(finding) = verdict.finding() {
            std::fs::remove_dir_all(&verdict.folder)?;
            return Ok(Found { defect, by: Some(finding), after: started.elapsed() });
        }
    }
    Ok(Found { defect, by: None, after: started.elapsed() })
}

/// What a mart with this defect is started with.
fn armed(defect: Defect) -> String {
    let widened = defect.widened_by.map(|point| format!(";{point}")).unwrap_or_default();
    format!("{}=return{widened}", defect.name)
}
