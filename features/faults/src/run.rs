//! One run: people buy while things break; then everything is mended, comes to rest, and is checked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use crate::checks::{self, Checked};
use crate::clients::Shop;
use crate::history::History;
use crate::injector;
use crate::report::{self, Verdict};
use crate::schedule::{Selection, schedule};
use crate::troubles::Troubles;
use crate::world::{Cast, World};

/// How long people go on after the last fault is lifted.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// What a run is to be like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything that can be decided.
    pub seed: u64,
    /// For how long things break.
    pub lasting: Duration,
    /// What may break.
    pub faults: Selection,
    /// The program `mart`.
    pub binary: PathBuf,
    /// Which of its failpoints are armed.
    pub failpoints: Option<String>,
    /// Who takes part.
    pub cast: Cast,
    /// Where folders of runs are made.
    pub folder: PathBuf,
}

/// Makes a run. Its folder is kept when it failed.
///
/// # Errors
/// When the run itself could not be made: nothing is known of the mart then.
pub async fn run(plan: &Plan) -> Result<Verdict> {
    let folder = plan.folder.join(format!("run-{}", plan.seed));
    prepare(&folder)?;
    let troubles = Troubles::default();
    let world = Arc::new(
        World::start(&folder, &plan.binary, plan.failpoints.as_deref(), plan.cast, &troubles).await?,
    );
    let outcome = live(plan, &world, &troubles).await;
    world.stop().await;
    let verdict = outcome?;
    if verdict.passed() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    Ok(verdict)
}

/// An empty folder. The database server may run as somebody else, who has to pass through.
fn prepare(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    let made = fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o711)));
    made.with_context(|| format!("{} cannot be made", folder.display()))
}

async fn live(plan: &Plan, world: &Arc<World>, troubles: &Troubles) -> Result<Verdict> {
    let history = Arc::new(History::begin(&world.folder.join("history.jsonl"))?);
    let shop = Shop::new(world.role("serve"), Arc::clone(&history), troubles.clone());
    let telling = tokio::spawn(report::progress(troubles.clone(), Arc::clone(&history), TOLD_EVERY));
    let open = shop.open(plan.seed).await?;
    let begun = troubles.now();
    let mut steps = schedule(plan.seed, plan.lasting, &plan.faults);
    for step in &mut steps {
        // The schedule begins when the shop is open, which takes longer on a slow machine.
        step.at += begun;
    }
    let closing = CancellationToken::new();
    let breaking = async {
        let carried_out = injector::carry_out(world, troubles, steps).await;
        let healed = world.heal().await;
        tokio::time::sleep(AFTERWARDS).await;
        closing.cancel();
        carried_out.and(healed)
    };
    let ((), broken) = tokio::join!(open.run(&closing), breaking);
    broken?;
    shop.resolve(plan.seed).await;
    let settled = checks::settle(&world.postgres).await?;
    telling.abort();
    let mut checks = vec![quiet(settled)];
    checks.extend(checks::all(world, &history, troubles).await?);
    Ok(Verdict::new(plan.seed, &world.folder, &history, troubles, checks))
}

fn quiet(settled: std::result::Result<Duration, String>) -> Checked {
    let wrong = settled.as_ref().err().cloned().into_iter().collect();
    Checked { name: "everything comes to rest", looked_at: 1, wrong }
}
