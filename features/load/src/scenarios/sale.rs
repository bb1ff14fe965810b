//! One product, too few pieces of it, and 200 buyers who all want one.

use std::time::Duration;

use hyper::header::HeaderValue;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::connection::{Call, Connection};
use crate::error::{LoadError, Result};
use crate::pace::{Pace, Timing, Visitor, play};
use crate::scenarios::orders::{Order, placement};
use crate::scenarios::{SALE_BUYERS, ready, unexpected};
use crate::stage::{Stage, Stock};
use crate::tally::{Ending, Tally, Visit};

/// How long the stock may take to show what was answered.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What became of the pieces, by the answers and by the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sale {
    /// How many pieces there were.
    pub pieces: u64,
    /// Orders that were told that they have their piece, at any time of the scenario.
    pub sold: u64,
    /// Requests without an answer, which may or may not have got a piece.
    pub unknown: u64,
    /// What the inventory says in the end.
    pub reserved: u64,
    /// What the inventory says is left.
    pub available: u64,
}

impl Sale {
    /// What is wrong with it, when something is.
    pub fn flaw(&self) -> Option<String> {
        let Self { pieces, sold, unknown, reserved, available } = *self;
        if sold > pieces || reserved > pieces {
            return Some(format!("{} of {pieces} pieces were sold", sold.max(reserved)));
        }
        if reserved + available != pieces {
            return Some(format!("{reserved} reserved and {available} left are not {pieces} pieces"));
        }
        if reserved < sold || reserved > sold + unknown {
            return Some(format!("{sold} orders were accepted and {reserved} pieces reserved"));
        }
        None
    }
}

/// Orders one piece again and again.
struct Bidder {
    token: HeaderValue,
    body: String,
    sold: u64,
    unknown: u64,
    undecided: Vec<Uuid>,
}

impl Visitor for Bidder {
    async fn prepare(&mut self, connection: &mut Connection) -> Result<()> {
        ready(connection).await
    }

    async fn visit(&mut self, connection: &mut Connection) -> Result<Visit> {
        let call = Call::post("/v1/orders", self.body.clone()).token(&self.token);
        let answer = connection.send(call).await.inspect_err(|_| self.unknown += 1)?;
        let ending = match answer.status {
            201 => {
                self.sold += 1;
                Ending::Done
            }
            202 => {
                self.undecided.push(answer.json::<Order>()?.id);
                Ending::Failed("order: 202, the stock has not answered".to_owned())
            }
            409 => Ending::Refused,
            500.. => {
                self.unknown += 1;
                unexpected(&answer, "order")
            }
            _ => unexpected(&answer, "order"),
        };
        Ok(Visit::ended(ending))
    }
}

/// Sells a product of so many pieces, and compares the answers with the inventory.
pub(crate) async fn sell(stage: &Stage, pieces: u32, pace: Pace, timing: Timing) -> Result<(Tally, Sale)> {
    let product = stage.product(pieces).await?;
    let body = placement(&[product]);
    let bidder = |token: &HeaderValue| Bidder {
        token: token.clone(),
        body: body.clone(),
        sold: 0,
        unknown: 0,
        undecided: Vec::new(),
    };
    let bidders = stage.buyers.iter().take(SALE_BUYERS).map(bidder).collect();
    let (tally, bidders) = play(&stage.server, bidders, pace, timing).await?;
    let mut sale = Sale { pieces: u64::from(pieces), sold: 0, unknown: 0, reserved: 0, available: 0 };
    let mut connection = Connection::open(&stage.server).await?;
    for bidder in bidders {
        sale.sold += bidder.sold;
        sale.unknown += bidder.unknown;
        for order in bidder.undecided {
            sale.sold += u64::from(got_its_piece(&mut connection, &bidder.token, order).await?);
        }
    }
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let Stock { available, reserved, .. } = stage.stock(product).await?;
        let seen = Sale { reserved, available, ..sale.clone() };
        // What is wrong for good stays wrong; what is on its way arrives.
        if seen.flaw().is_none() || Instant::now() >= deadline {
            return Ok((tally, seen));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Waits for the decision about an order.
async fn got_its_piece(connection: &mut Connection, token: &HeaderValue, order: Uuid) -> Result<bool> {
    let path = format!("/v1/orders/{order}");
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let order: Order = connection.expect(Call::get(&path).token(token), 200).await?.json()?;
        match order.order_status.as_str() {
            "awaiting_payment" => return Ok(true),
            "rejected" => return Ok(false),
            other if Instant::now() >= deadline => {
                return Err(LoadError::Waiting(SETTLED_WITHIN, format!("an order is {other}")));
            }
            _ => sleep(LOOK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sale_without_a_flaw_sells_each_piece_once() {
        let good = Sale { pieces: 10, sold: 10, unknown: 0, reserved: 10, available: 0 };
        assert_eq!(good.flaw(), None);
        let with_unknown = Sale { sold: 8, unknown: 2, reserved: 9, available: 1, ..good };
        assert_eq!(with_unknown.flaw(), None);
    }

    #[test]
    fn too_much_sold_and_pieces_lost_are_flaws() {
        let good = Sale { pieces: 10, sold: 10, unknown: 0, reserved: 10, available: 0 };
        for bad in [
            Sale { sold: 11, ..good.clone() },
            Sale { reserved: 11, ..good.clone() },
            Sale { reserved: 9, available: 1, ..good.clone() },
            Sale { sold: 9, ..good.clone() },
            Sale { sold: 9, reserved: 9, available: 0, ..good.clone() },
        ] {
            assert!(bad.flaw().is_some(), "{bad:?}");
        }
    }
}
