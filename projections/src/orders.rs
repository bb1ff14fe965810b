//! The read models of the orders service.

pub mod cart_contents;
pub mod customers;
pub mod order_details;
pub mod price_list;

pub use cart_contents::CartContents;
pub use customers::Customers;
pub use order_details::OrderDetails;
pub use price_list::PriceList;
