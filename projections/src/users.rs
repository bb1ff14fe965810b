//! The read models of the users service.

pub mod user_directory;

pub use user_directory::UserDirectory;
