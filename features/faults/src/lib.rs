//! The fault harness: the whole mart as real processes, people who buy, things that break on a schedule that
//! follows from a seed, and checks of everything that the mart promises.
//!
//! - [`world`] starts PostgreSQL, the broker and two processes of each role, each behind its own [`link`]s.
//! - [`clients`] register, buy, pay, cancel, edit, restock and read; [`history`] has what they asked and heard.
//! - [`schedule`] decides when which [`fault`] begins and how long it lasts, [`injector`] carries it out.
//! - [`checks`] look, when everything is mended and quiet, whether all of it is as it was told.

pub mod broker;
pub mod checks;
pub mod clients;
pub mod fault;
pub mod gateway;
pub mod guard;
pub mod history;
pub mod injector;
pub mod link;
pub mod mail;
pub mod mart;
pub mod postgres;
pub mod records;
pub mod report;
pub mod run;
pub mod schedule;
pub mod selftest;
pub mod troubles;
pub mod world;
