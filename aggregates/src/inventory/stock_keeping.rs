//! Stock-keeping: a product that is listed gets a stock item, one that is discontinued loses it.

use crate::catalog::ProductEvent;
use crate::identifiers::{ProductId, StockItemId};
use crate::inventory::{InventoryCommand, StockItemCommand};
use crate::process::{Cause, ProcessManager, Reaction, Reactions};

/// Why stock came in with the listing of its product.
const OPENING_REASON: &str = "opening stock";

/// The process that keeps stock items in step with the catalogue.
#[derive(Clone, Copy, Debug, Default)]
pub struct StockKeeping;

/// What stock-keeping listens to.
#[derive(Clone, Debug, PartialEq)]
pub enum StockKeepingEvent {
    /// Something happened to a product.
    Catalog(ProductEvent),
}

impl ProcessManager for StockKeeping {
    const NAME: &'static str = "stock_keeping";
    type Event = StockKeepingEvent;
    type Command = InventoryCommand;
    type Job = ();

    fn react(&self, cause: &Cause, event: &StockKeepingEvent) -> Reactions<Self> {
        let StockKeepingEvent::Catalog(event) = event;
        let product_id: ProductId = cause.aggregate_id.parse()?;
        let tell = |step: &str, command: StockItemCommand| Reaction::Command {
            step: step.to_owned(),
            target: InventoryCommand::StockItem(StockItemId::main(product_id), command),
        };
        Ok(match event {
            ProductEvent::ProductListed { opening_stock, .. } => {
                let open = tell("open", StockItemCommand::Open { low_stock_threshold: None });
                let receive = opening_stock.filter(|quantity| *quantity > 0).map(|quantity| {
                    let reason = Some(OPENING_REASON.to_owned());
                    tell("receive", StockItemCommand::Receive { quantity, reason })
                });
                [open].into_iter().chain(receive).collect()
            }
            ProductEvent::ProductDiscontinued => vec![tell("close", StockItemCommand::Close)],
            ProductEvent::ProductDescribed { .. }
            | ProductEvent::ProductRepriced { .. }
            | ProductEvent::ProductCategorised { .. }
            | ProductEvent::ProductWithdrawn
            | ProductEvent::ProductRelisted => Vec::new(),
        })
    }
}
