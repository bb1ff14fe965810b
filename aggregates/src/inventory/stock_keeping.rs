//! Joins this context with others.
