//! The read models of the payments service.

// The read model is called as its readers call it, and they call it payments.
#[allow(clippy::module_inception, reason = "a service and its read model may have one name")]
pub mod payments;

pub use payments::Payments;
