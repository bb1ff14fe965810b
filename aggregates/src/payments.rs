//! Payments: one per order, with its attempts, its capture and its refunds.

mod commands;
mod events;
mod payment;
mod refusals;

pub mod gateway_keys;
pub mod settlement;

pub use commands::PaymentCommand;
pub use events::PaymentEvent;
pub use payment::{Account, Attempt, Payment, Refund, RefundStage, Stage};
pub use refusals::PaymentError;

/// A command to an aggregate of this service.
#[derive(Clone, Debug, PartialEq)]
pub enum PaymentsCommand {
    /// To a payment.
    Payment(crate::identifiers::PaymentId, PaymentCommand),
}
