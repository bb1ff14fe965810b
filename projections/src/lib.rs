//! The read models of the mart, the projector that keeps them, and the rebuild that replaces them.
//!
//! A read model is one file: its table, its fold and its queries, so that deleting the file deletes the
//! feature. The fold is pure and the same for live events and for a rebuild; it must give the same rows in
//! whatever order events of different services come. SQL lives here and in the event store only; this crate
//! knows no HTTP.

pub mod event;
pub mod generations;
pub mod live;
mod memory;
pub mod projector;
pub mod read_model;
pub mod rebuild;
pub mod registry;
pub mod remembered;

pub mod catalog;
pub mod inventory;
pub mod notifications;
pub mod orders;
pub mod payments;
pub mod users;

pub use event::{Event, Happened};
pub use live::{Live, Page, TimeCursor};
pub use read_model::{Feed, PersonalData, ReadModel};
pub use remembered::{Remembered, Seen};
