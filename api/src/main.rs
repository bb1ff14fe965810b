//! The `mart` binary.
fn main() {}
