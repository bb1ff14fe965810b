//! The read models of the orders service.

pub mod order_details;

pub use order_details::OrderDetails;
