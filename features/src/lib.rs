//! The acceptance tests of the mart, in the words of its users.
