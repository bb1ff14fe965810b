//! The interface over HTTP: the acceptance cases and the rules, each as a sentence, on a running mart.

mod buying;
mod carts;
mod catalog;
mod payments;
mod protocol;
mod races;
mod secrets;
mod texts;
mod users;

/// An id that nothing has.
const MISSING: &str = "01940000-0000-7000-8000-000000000000";
