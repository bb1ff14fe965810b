//! Carts: what a user means to buy.

mod cart;
mod commands;
mod events;
mod refusals;

pub use cart::{Cart, Contents, MAX_REMEMBERED_CHECKOUTS};
pub use commands::CartCommand;
pub use events::{CartEvent, CartLine};
pub use refusals::CartError;
