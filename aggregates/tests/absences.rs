//! The domain is pure, and its contexts do not know each other: read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

const CONTEXTS: &[&str] = &["users", "catalog", "inventory", "carts", "orders", "payments", "notifications"];
const PROCESSES: &[&str] =
    &["checkout", "housekeeping", "reservations", "stock_keeping", "settlement", "notices"];
const IMPURE: &[&str] = &[
    "Utc::now",
    "SystemTime",
    "Instant::now",
    "new_v4",
    "now_v7",
    "std::fs",
    "std::net",
    "std::env",
    "rand::",
    "sqlx",
    "axum",
    "rdkafka",
    "reqwest",
    "tokio::",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .expect("the folder of sources can be read")
        .map(|entry| entry.expect("an entry can be read").path())
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .collect()
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&root)
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source can be read");
            (path.strip_prefix(&root).expect("a source is below the root").to_owned(), text)
        })
        .collect()
}

#[test]
fn the_domain_has_no_clock_no_randomness_and_no_io() {
    for (path, text) in all_sources() {
        for impure in IMPURE {
            assert!(!text.contains(impure), "{} uses {impure}", path.display());
        }
    }
}

#[test]
fn contexts_import_each_other_in_process_managers_only() {
    for (path, text) in all_sources() {
        let is_process = PROCESSES.iter().any(|name| path.file_stem().is_some_and(|stem| stem == *name));
        let own = CONTEXTS
            .iter()
            .find(|context| path.starts_with(context) || path == Path::new(&format!("{context}.rs")));
        let Some(own) = own.filter(|_| !is_process) else { continue };
        for other in CONTEXTS.iter().filter(|other| *other != own) {
            // The command enum of a service names the aggregates that live in it.
            let same_service = path == Path::new("orders.rs") && *other == "carts";
            let imports = text.contains(&format!("crate::{other}::"));
            assert!(!imports || same_service, "{} imports {other}", path.display());
        }
    }
}
