//! The published language, seen from outside: every event of the domain goes over the wire and back.

mod absences;
mod contact;
mod descriptors;
mod golden;
mod refusals;
mod round_trip;
mod samples;
mod withheld;
