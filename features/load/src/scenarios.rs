//! What customers do.

mod carts;
mod lists;
mod orders;
mod sale;

use serde::Serialize;

use crate::connection::Connection;
use crate::error::Result;
use crate::pace::{Pace, Timing, play};
use crate::stage::Stage;
use crate::tally::{Ending, Tally};

pub use sale::Sale;

/// Buyers of the one product: as many as in the promise about it.
pub const SALE_BUYERS: usize = 200;

/// What customers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Put products into carts, and empty a cart when it is full (emptying is not counted)
    Carts,
    /// Place an order of two products, pay it, and look until it is confirmed
    Orders,
    /// Read lists of products, page by page
    Lists,
    /// 200 buyers order one product, of which there are not enough pieces
    Sale,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Carts, Self::Orders, Self::Lists, Self::Sale];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Carts => "carts",
            Self::Orders => "orders",
            Self::Lists => "lists",
            Self::Sale => "sale",
        }
    }

    /// How many visitors come, when so many connections are asked for.
    pub fn visitors(self, connections: usize) -> usize {
        match self {
            Self::Sale => SALE_BUYERS,
            Self::Carts | Self::Orders | Self::Lists => connections,
        }
    }

    /// How many buyers it needs for so many connections.
    pub fn buyers(self, connections: usize) -> usize {
        if self == Self::Lists { 0 } else { self.visitors(connections) }
    }

    /// Plays it with so many connections.
    ///
    /// # Errors
    /// When the mart is gone, or something is refused that belongs to no visit.
    pub(crate) async fn play(
        self,
        stage: &Stage,
        connections: usize,
        pieces: u32,
        pace: Pace,
        timing: Timing,
    ) -> Result<(Tally, Option<Sale>)> {
        let buyers = || stage.buyers.iter().take(connections).cloned();
        let products = || std::sync::Arc::clone(&stage.products);
        let tally = match self {
            Self::Carts => {
                let visitors = buyers().map(|buyer| carts::Shopper::new(buyer, products())).collect();
                play(&stage.server, visitors, pace, timing).await?.0
            }
            Self::Orders => {
                let visitors = buyers().map(|buyer| orders::Buyer::new(buyer, products())).collect();
                play(&stage.server, visitors, pace, timing).await?.0
            }
            Self::Lists => {
                let visitors = (0..connections).map(|_| lists::Reader::default()).collect();
                play(&stage.server, visitors, pace, timing).await?.0
            }
            Self::Sale => {
                let (tally, sale) = sale::sell(stage, pieces, pace, timing).await?;
                return Ok((tally, Some(sale)));
            }
        };
        Ok((tally, None))
    }
}

/// How a request ended that should have a status, told by the status and the refusal's code.
fn unexpected(answer: &crate::connection::Answer, what: &str) -> Ending {
    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
    }
    let code = answer.json::<Problem>().map(|problem| problem.code).unwrap_or_default();
    Ending::Failed(format!("{what}: {} {code}", answer.status).trim_end().to_owned())
}

/// Nothing to get ready.
async fn ready(_: &mut Connection) -> Result<()> {
    Ok(())
}
