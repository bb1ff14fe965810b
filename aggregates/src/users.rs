//! Users: who they are, what role they have, their sessions.

mod commands;
mod events;
mod refusals;
mod user;

pub use commands::UserCommand;
pub use events::{Role, SessionEnd, UserEvent};
pub use refusals::UserError;
pub use user::{Account, MAX_SESSIONS, Session, User};
