//! The inventory: what lies where, for whom it is held.

mod commands;
mod events;
mod refusals;
mod stock_item;

pub mod reservations;
pub mod stock_keeping;

pub use commands::StockItemCommand;
pub use events::{Levels, ReleaseReason, ReturnCondition, StockItemEvent};
pub use refusals::StockItemError;
pub use stock_item::{MAX_QUANTITY, Reservation, Stage, Status, StockItem};

/// A command to an aggregate of this service.
#[derive(Clone, Debug, PartialEq)]
pub enum InventoryCommand {
    /// To a stock item.
    StockItem(crate::identifiers::StockItemId, StockItemCommand),
}
