//! What customers do.

pub(crate) mod carts;
pub(crate) mod lists;
pub(crate) mod orders;
pub(crate) mod sale;

use serde::Serialize;

use crate::connection::Connection;
use crate::error::Result;
use crate::tally::Ending;

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
