//! Orders: from the wish to buy to the goods at the door, or the money back.

mod commands;
mod decisions;
mod events;
mod order;
mod refusals;

pub mod checkout;
pub mod housekeeping;

pub use commands::OrderCommand;
pub use events::{CancelReason, OrderEvent, OrderStatus, PaymentStatus, RejectedLine};
pub use order::{Details, Edit, EditAnswer, Line, Order, Stock};
pub use refusals::OrderError;

/// A command to an aggregate of this service.
#[derive(Clone, Debug, PartialEq)]
pub enum OrdersCommand {
    /// To an order.
    Order(crate::identifiers::OrderId, OrderCommand),
    /// To the cart of a user.
    Cart(crate::identifiers::UserId, crate::carts::CartCommand),
}
