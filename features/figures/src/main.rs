//! `figures`: the one table of all benchmarks.

use figures::{Failure, Results, folder, table};

/// In what order benchmarks stand in the table.
const BENCHES: [&str; 4] = ["commands", "growth", "reading", "shop"];

fn main() -> Result<(), Failure> {
    let all = Results::all(&BENCHES)?;
    if let Some(results) = all.first() {
        println!("{}", results.machine);
    }
    if all.iter().any(|results| results.quick) {
        println!("some rows are of a quick run: whether it works, not how fast it is");
    }
    println!("\n{}", table(&all));
    let file = folder().join("bench.json");
    std::fs::write(&file, serde_json::to_string_pretty(&all)?)?;
    eprintln!("also in {}", file.display());
    Ok(())
}
