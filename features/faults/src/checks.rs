//! What must hold when everything is mended and quiet. Each check looks at the logs, the topics or the answers
//! with rules of its own, not with the code that it checks.

mod logs;
mod messages;
mod money;
mod orders;
mod processes;
mod quiet;
mod stock;
mod told;
mod topics;

use anyhow::Result;

use crate::history::History;
use crate::troubles::Troubles;
use crate::world::World;

pub use logs::{Event, Logs};
pub use quiet::settle;
pub(crate) use topics::FOREIGN;

/// How many findings of a check are shown.
const SHOWN: usize = 8;

/// What a check found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What was checked.
    pub name: &'static str,
    /// How many things were looked at.
    pub looked_at: usize,
    /// What is wrong.
    pub wrong: Vec<String>,
}

impl Checked {
    fn new(name: &'static str) -> Self {
        Self { name, looked_at: 0, wrong: Vec::new() }
    }

    /// Looks at one thing.
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.looked_at += 1;
        if !holds {
            self.wrong.push(otherwise());
        }
    }

    /// What is shown of the findings.
    pub fn shown(&self) -> Vec<String> {
        let mut shown: Vec<String> = self.wrong.iter().take(SHOWN).cloned().collect();
        if self.wrong.len() > SHOWN {
            shown.push(format!("and {} more", self.wrong.len() - SHOWN));
        }
        shown
    }
}

/// All checks.
///
/// # Errors
/// When the databases or the broker do not answer.
pub async fn all(world: &World, history: &History, troubles: &Troubles) -> Result<Vec<Checked>> {
    let logs = Logs::load(&world.postgres).await?;
    let operations = history.operations();
    let rows = told::command_rows(&world.postgres).await?;
    let payments = orders::Payments::of(&logs);
    let found = orders::Orders::of(&logs);
    let (stock, reservations) = stock::conserved(&logs);
    Ok(vec![
        logs.dense(),
        logs.each_command_once(),
        told::nothing_acknowledged_is_lost(&operations, &logs, &rows),
        told::nothing_refused_happened(&operations, &logs),
        stock,
        found.paths(),
        found.agree(&payments, &reservations),
        money::journals_agree(&logs, &world.gateway.journal()),
        messages::one_for_each_event(&logs),
        messages::letters(&logs, &world.mail.letters(), troubles),
        topics::complete(world, &logs).await?,
        processes::read_models_equal_their_events(world).await?,
        processes::nothing_is_parked(&world.postgres).await?,
        processes::nobody_panicked(world),
    ])
}
