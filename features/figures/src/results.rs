//! What benchmarks leave behind, and the one table of it.

use std::fs;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::row::Row;

/// The rows of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Which benchmark.
    pub bench: String,
    /// On what it ran.
    pub machine: String,
    /// Whether only to see that it works.
    pub quick: bool,
    /// What it measured.
    pub rows: Vec<Row>,
}

impl Results {
    /// Nothing measured yet.
    pub fn new(bench: &str, quick: bool) -> Self {
        Self { bench: bench.to_owned(), machine: machine(), quick, rows: Vec::new() }
    }

    /// Prints the rows, and keeps them for the one table.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self) -> Result<(), Failure> {
        println!("{}\n{}", self.machine, table(std::slice::from_ref(self)));
        self.keep()
    }

    /// Keeps the rows for the one table.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self) -> Result<(), Failure> {
        let folder = folder().join("rows");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.json", self.bench)), serde_json::to_string_pretty(self)?)?;
        Ok(())
    }

    /// What the benchmarks have left, in the order of `benches`; what others have left comes behind.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn all(benches: &[&str]) -> Result<Vec<Self>, Failure> {
        Self::read(&folder().join("rows"), benches)
    }

    fn read(folder: &Path, benches: &[&str]) -> Result<Vec<Self>, Failure> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(|_| "nothing was measured yet: run a benchmark first")? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let results: Self = serde_json::from_str(&fs::read_to_string(&path)?)?;
                found.push(results);
            }
        }
        let place = |results: &Self| benches.iter().position(|bench| *bench == results.bench);
        found.sort_by_key(|results| (place(results).unwrap_or(benches.len()), results.bench.clone()));
        Ok(found)
    }
}

/// Where figures are kept: `bench` in cargo's target folder.
pub fn folder() -> PathBuf {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        // Cargo runs a benchmark in the folder of its package, which is some folders deep in the workspace.
        None => {
            let here = std::env::current_dir().unwrap_or_default();
            let top = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
            top.map_or_else(|| PathBuf::from("target"), |top| top.join("target"))
        }
    };
    target.join("bench")
}

/// All rows as one table.
pub fn table(all: &[Results]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["row", "median", "lowest – highest", "baseline", "times", "target", "", "note"]);
    for row in all.iter().flat_map(|results| &results.rows) {
        table.add_row(row.cells());
    }
    for column in [1, 2, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// The machine, in one line.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = text.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1));
    let processor = processor.map_or(std::env::consts::ARCH, str::trim);
    format!("{cores} cores ({processor}), shared by everything that is measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_in_the_order_of_the_benchmarks() {
        let folder = std::env::temp_dir().join(format!("figures-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        let results = ["c", "a", "b"].map(|bench| Results {
            rows: vec![Row::new("a row", "ms", &[1.0]).beside("another", &[2.0]).at_most(2.0)],
            ..Results::new(bench, true)
        });
        for kept in &results {
            let text = serde_json::to_string(kept).expect("written");
            fs::write(folder.join(format!("{}.json", kept.bench)), text).expect("written");
        }
        let [c, a, b] = results;
        assert_eq!(Results::read(&folder, &["b", "c"]).expect("read"), [b, c, a]);
        fs::remove_dir_all(&folder).expect("removed");
        assert!(Results::read(&folder, &[]).is_err());
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let row =
            Row::new("relay", "events/s", &[70_000.0, 60_000.0]).beside("bare", &[140_000.0, 120_000.0]);
        let results = Results { rows: vec![row.at_least(60_000.0)], ..Results::new("reading", false) };
        let table = table(&[results]);
        let line = table.lines().nth(1).expect("the second line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let told = "relay 65,000 events/s 60,000 – 70,000 bare 130,000 0.5× ≥ 60,000 events/s met";
        assert_eq!(words.join(" "), told);
    }
}
