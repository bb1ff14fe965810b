//! Compiles the .proto files to Rust, without a protoc on the machine, and keeps their descriptors.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message;

/// Everything that is published, relative to this folder.
const FILES: &[&str] = &[
    "mart/common/v1/envelope.proto",
    "mart/common/v1/money.proto",
    "mart/catalog/v1/events.proto",
    "mart/inventory/v1/events.proto",
    "mart/notifications/v1/events.proto",
    "mart/orders/v1/events.proto",
    "mart/payments/v1/events.proto",
    "mart/users/v1/auth.proto",
    "mart/users/v1/events.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=mart");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("mart.bin"), descriptors.encode_to_vec())?;
    // Maps in key order: the same event must give the same bytes each time it is sent.
    tonic_prost_build::configure().btree_map(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}
