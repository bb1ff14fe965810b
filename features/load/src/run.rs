//! A run: what is prepared once, and the levels of load one after the other.

use std::sync::Arc;

use crate::connection::Server;
use crate::error::Result;
use crate::figures::Figures;
use crate::pace::{Pace, Timing, play};
use crate::scenarios::carts::Shopper;
use crate::scenarios::lists::Reader;
use crate::scenarios::orders::Buyer;
use crate::scenarios::{Scenario, sale};
use crate::stage::{Credentials, Stage};

/// A scenario at one level of load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// What customers do.
    pub scenario: Scenario,
    /// How many connections are open at once. A sale says itself how many come.
    pub connections: usize,
    /// When visits begin.
    pub pace: Pace,
    /// How long it lasts.
    pub timing: Timing,
    /// How many pieces there are of the product of a sale.
    pub pieces: u32,
}

impl Level {
    /// Plays it.
    ///
    /// # Errors
    /// When the mart is gone, or refuses something that belongs to no visit.
    pub async fn play(&self, stage: &Stage) -> Result<Figures> {
        let Self { scenario, pace, timing, .. } = *self;
        let connections = scenario.visitors(self.connections);
        let buyers = || stage.buyers.iter().take(connections).cloned();
        let products = || Arc::clone(&stage.products);
        let server = &stage.server;
        let (tally, sale) = match scenario {
            Scenario::Carts => {
                let visitors = buyers().map(|buyer| Shopper::new(buyer, products())).collect();
                (play(server, visitors, pace, timing).await?.0, None)
            }
            Scenario::Orders => {
                let visitors = buyers().map(|buyer| Buyer::new(buyer, products())).collect();
                (play(server, visitors, pace, timing).await?.0, None)
            }
            Scenario::Lists => {
                let visitors = (0..connections).map(|_| Reader::default()).collect();
                (play(server, visitors, pace, timing).await?.0, None)
            }
            Scenario::Sale => {
                let (tally, sale) = sale::sell(stage, self.pieces, pace, timing).await?;
                (tally, Some(sale))
            }
        };
        Ok(Figures::of(scenario, connections, pace, timing, tally, sale))
    }
}

/// What is done in a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who may prepare the mart.
    pub credentials: Credentials,
    /// How many products there are.
    pub products: usize,
    /// What is played.
    pub levels: Vec<Level>,
}

/// Prepares the mart and plays all levels; `tell` hears of each when it is over.
///
/// # Errors
/// When the mart is gone, or refuses what the scenarios need.
pub async fn run(server: &Server, plan: &Plan, mut tell: impl FnMut(&Figures)) -> Result<Vec<Figures>> {
    let buyers = plan.levels.iter().map(|level| level.scenario.buyers(level.connections)).max().unwrap_or(0);
    let stage = Stage::prepare(server, &plan.credentials, plan.products.max(1), buyers).await?;
    let mut all = Vec::new();
    for level in &plan.levels {
        let figures = level.play(&stage).await?;
        tell(&figures);
        all.push(figures);
    }
    Ok(all)
}
