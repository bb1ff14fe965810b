//! The read models of the inventory service.

pub mod stock_levels;

pub use stock_levels::StockLevels;
