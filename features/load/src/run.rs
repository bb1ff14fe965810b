//! A run: what is prepared once, and the scenarios one after the other.

use crate::connection::Server;
use crate::error::Result;
use crate::figures::Figures;
use crate::pace::{Pace, Timing};
use crate::scenarios::Scenario;
use crate::stage::{Credentials, Stage};

/// What is done in a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who may prepare the mart.
    pub credentials: Credentials,
    /// What customers do.
    pub scenarios: Vec<Scenario>,
    /// The levels of load: how many connections are open at once.
    pub connections: Vec<usize>,
    /// When visits begin.
    pub pace: Pace,
    /// How long each level lasts.
    pub timing: Timing,
    /// How many products there are.
    pub products: usize,
    /// How many pieces there are of the product of a sale.
    pub pieces: u32,
}

/// Prepares the mart and plays the scenarios; `tell` hears of each level when it is over.
///
/// # Errors
/// When the mart is gone, or refuses what the scenarios need.
pub async fn run(server: &Server, plan: &Plan, mut tell: impl FnMut(&Figures)) -> Result<Vec<Figures>> {
    let levels = |scenario: Scenario| match scenario {
        // It says itself how many come.
        Scenario::Sale => &plan.connections[..plan.connections.len().min(1)],
        Scenario::Carts | Scenario::Orders | Scenario::Lists => &plan.connections,
    };
    let needed = plan
        .scenarios
        .iter()
        .flat_map(|scenario| levels(*scenario).iter().map(|connections| scenario.buyers(*connections)));
    let buyers = needed.max().unwrap_or(0);
    let stage = Stage::prepare(server, &plan.credentials, plan.products.max(1), buyers).await?;
    let mut all = Vec::new();
    for scenario in &plan.scenarios {
        for connections in levels(*scenario) {
            let (tally, sale) =
                scenario.play(&stage, *connections, plan.pieces, plan.pace, plan.timing).await?;
            let connections = scenario.visitors(*connections);
            let figures = Figures::of(*scenario, connections, plan.pace, plan.timing, tally, sale);
            tell(&figures);
            all.push(figures);
        }
    }
    Ok(all)
}
