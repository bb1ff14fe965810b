//! The acceptance tests of the mart, in the words of its users.
//!
//! What is here starts the real program and speaks to it as its users do:
//!
//! - [`TestMart`] is a running mart: `mart up` as a process, with databases and a data folder of its own, which
//!   can be killed, restarted and stopped.
//! - [`Client`] speaks HTTP to it, as somebody or nobody, and gives [`Reply`]s, which say what they hold when
//!   they are not what was expected.
//! - [`shop`] has the steps that most tests begin with: a customer, a product with stock, an order, a payment.
//! - [`eventually`] is for the few things that come true a moment later, in another service.
//!
//! A test sees no more than a user does: HTTP, the command line, mail and logs; the tests of the bad days look
//! into the databases and topics too.

pub mod client;
pub mod crowd;
pub mod databases;
pub mod eventually;
pub mod failpoints;
pub mod history;
pub mod mart;
pub mod program;
pub mod shop;
pub mod topics;

pub use client::{Client, Reply};
pub use eventually::{PATIENCE, eventually};
pub use mart::TestMart;
pub use program::{Program, binary};
