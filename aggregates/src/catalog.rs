//! The catalogue: what is sold, and for how much.

mod commands;
mod events;
mod product;
mod refusals;

pub use commands::{ProductChanges, ProductCommand};
pub use events::ProductEvent;
pub use product::{Details, Product};
pub use refusals::ProductError;
