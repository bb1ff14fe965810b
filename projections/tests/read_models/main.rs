//! Read models on a real PostgreSQL: events in, queries out, and rebuilds beside the live rows.

mod answering;
mod mart;
mod mixing;
mod ordering;
mod rebuilding;
mod remembering;
mod sharing;
