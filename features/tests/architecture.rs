//! What the parts of the mart do not know, read off their sources and manifests. Each absence stands in
//! docs/ARCHITECTURE.md too; a violation is told with its file and line.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The contexts of the domain. Carts and orders are one service.
const CONTEXTS: [&str; 7] = ["users", "catalog", "inventory", "carts", "orders", "payments", "notifications"];
/// The files of the domain that join contexts: the process managers.
const PROCESS_MANAGERS: [&str; 6] =
    ["checkout.rs", "housekeeping.rs", "reservations.rs", "stock_keeping.rs", "settlement.rs", "notices.rs"];
/// What each crate may depend on among ours, outside its tests.
const LAYERS: [(&str, &[&str]); 6] = [
    ("aggregates", &[]),
    ("event-store", &[]),
    ("event-store/embedded", &[]),
    ("proto", &["aggregates"]),
    ("projections", &["aggregates", "proto", "event-store"]),
    ("api", &["aggregates", "proto", "event-store", "projections", "embedded"]),
];
const OURS: [&str; 9] =
    ["aggregates", "event-store", "embedded", "proto", "projections", "api", "features", "figures", "load"];
/// The length from which a file is not read any more, only searched.
const LONGEST_FILE_LINES: usize = 1_000;

/// A line of a file of the mart.
struct Line {
    file: PathBuf,
    number: usize,
    text: String,
}

impl Line {
    /// The line without its comment. A `//` in a text counts as one, which hides nothing that is looked for.
    fn code(&self) -> &str {
        self.text.split("//").next().unwrap_or_default()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file.display(), self.number, self.text.trim())
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

/// The files below a folder of the workspace, without what was built.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("a folder of the workspace can be read");
        for entry in entries {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn lines_of(path: &Path) -> Vec<Line> {
    // A file that another tool has just removed holds nothing to find fault with.
    let text = fs::read_to_string(path).unwrap_or_default();
    let file = path.strip_prefix(root()).unwrap_or(path).to_owned();
    text.lines()
        .enumerate()
        .map(|(index, text)| Line { file: file.clone(), number: index + 1, text: text.to_owned() })
        .collect()
}

/// The lines of Rust below some folders of the workspace.
fn rust(folders: &[&str]) -> Vec<Line> {
    folders.iter().flat_map(|folder| files(folder, &["rs"])).flat_map(|path| lines_of(&path)).collect()
}

/// Whether a word stands in a text, not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(is_part);
        let after = text[at + word.len()..].chars().next().is_some_and(is_part);
        !before && !after
    })
}

/// Fails with all lines that break a rule.
fn refuse<'a>(rule: &str, lines: impl IntoIterator<Item = &'a Line>) {
    let broken: Vec<String> = lines.into_iter().map(Line::to_string).collect();
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

/// The dependencies in a crate's manifest; those of its tests only with `tests`.
fn dependencies(folder: &str, tests: bool) -> Vec<Line> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in lines_of(&root().join(folder).join("Cargo.toml")) {
        let text = line.text.trim();
        if text.starts_with('[') {
            section = text.trim_matches(['[', ']']).to_owned();
        } else if (section.ends_with("dependencies") && (tests || section != "dev-dependencies"))
            && !text.is_empty()
            && !text.starts_with('#')
        {
            found.push(line);
        }
    }
    assert!(folder == "features" || !found.is_empty(), "{folder}/Cargo.toml names no dependency");
    found
}

fn crate_name(dependency: &Line) -> &str {
    dependency.text.split(['.', ' ', '=']).next().unwrap_or_default()
}

/// Fails when a crate outside `allowed` depends on one of `named`.
fn only(allowed: &[&str], named: &[&str], rule: &str) {
    for (folder, _) in LAYERS.iter().filter(|(folder, _)| !allowed.contains(folder)) {
        let found = dependencies(folder, false);
        refuse(rule, found.iter().filter(|line| named.contains(&crate_name(line))));
    }
}

/// The lines of a context's modules in a layer: `orders.rs` and `orders/`.
fn of_context(layer: &str, context: &str) -> Vec<Line> {
    let prefix = Path::new(layer).join(context);
    let file = prefix.with_extension("rs");
    rust(&[layer]).into_iter().filter(|line| line.file == file || line.file.starts_with(&prefix)).collect()
}

/// The service in whose database a context lives.
fn service_of(context: &str) -> &str {
    if context == "carts" { "orders" } else { context }
}

#[test]
fn a_crate_depends_on_the_layers_below_it_only() {
    for (folder, allowed) in LAYERS {
        let found = dependencies(folder, false);
        let foreign = |line: &&Line| OURS.contains(&crate_name(line)) && !allowed.contains(&crate_name(line));
        refuse(&format!("{folder} may depend on {allowed:?} of ours"), found.iter().filter(foreign));
    }
    // Tests of the lower layers may start a database and benchmarks keep figures; they know no more than the code
    // they are about.
    for (folder, allowed) in LAYERS {
        let found = dependencies(folder, true);
        let foreign = |line: &&Line| {
            let name = crate_name(line);
            OURS.contains(&name) && !["embedded", "figures"].contains(&name) && !allowed.contains(&name)
        };
        refuse(&format!("tests of {folder} may not see other layers"), found.iter().filter(foreign));
    }
}

#[test]
fn sql_is_spoken_by_the_event_store_and_the_projections_alone() {
    let rule = "SQL belongs to event-store and projections";
    only(&["event-store", "event-store/embedded", "projections"], &["sqlx", "postgres-es"], rule);
    let statements = ["insert into ", "delete from ", "create table ", "for update", "sqlx::"];
    let lines = rust(&["aggregates/src", "proto/src", "api/src"]);
    let is_statement = |line: &&Line| {
        let code = line.code().to_lowercase();
        let selects = code.contains("select ") && code.contains(" from ");
        let updates = code.contains("update ") && code.contains(" set ");
        selects || updates || statements.iter().any(|statement| code.contains(statement))
    };
    refuse(rule, lines.iter().filter(is_statement));
}

#[test]
fn http_is_spoken_by_the_api_alone() {
    let servers =
        ["axum", "hyper", "hyper-util", "tower", "tower-http", "utoipa", "utoipa-axum", "reqwest", "lettre"];
    only(&["api"], &servers, "HTTP and mail belong to api");
    only(&["api", "proto"], &["tonic"], "gRPC belongs to proto and api");
    let lines = rust(&["aggregates/src", "event-store/src", "proto/src", "projections/src"]);
    let names = ["axum", "hyper", "reqwest", "StatusCode", "HeaderMap", "IntoResponse"];
    let speaks = |line: &&Line| names.iter().any(|name| has_word(line.code(), name));
    refuse("HTTP belongs to api", lines.iter().filter(speaks));
}

#[test]
fn kafka_is_spoken_by_the_event_store_alone() {
    only(&["event-store", "event-store/embedded"], &["rdkafka"], "Kafka belongs to event-store");
}

#[test]
fn progress_is_never_kept_as_an_offset_of_kafka() {
    let lines = rust(&["event-store/src"]);
    let offsets =
        ["commit_message", "commit_consumer_state", "store_offset", "\"enable.auto.commit\", \"true\""];
    let keeps = |line: &&Line| offsets.iter().any(|name| line.code().contains(name));
    refuse("progress is a checkpoint in PostgreSQL (docs/adr/0004)", lines.iter().filter(keeps));
}

#[test]
fn the_domain_has_no_clock_no_randomness_and_no_io() {
    let pure = ["chrono", "cqrs-es", "serde", "serde_json", "thiserror", "uuid", "unicode-normalization"];
    let found = dependencies("aggregates", false);
    let impure = |line: &&Line| !pure.contains(&crate_name(line));
    refuse("the domain depends on nothing that could do I/O", found.iter().filter(impure));
    let impure = [
        "Utc::now",
        "Local::now",
        "SystemTime",
        "Instant::now",
        "new_v4",
        "now_v7",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "std::io",
        "println!",
        "tokio::",
    ];
    let lines = rust(&["aggregates/src"]);
    let acts = |line: &&Line| impure.iter().any(|name| line.code().contains(name));
    refuse("time and ids come in with commands", lines.iter().filter(acts));
}

#[test]
fn the_domain_knows_no_floats() {
    let lines = rust(&["aggregates/src", "proto/src"]);
    let floats = |line: &&Line| ["f32", "f64"].iter().any(|name| has_word(line.code(), name));
    refuse("money is integer minor units", lines.iter().filter(floats));
    let published: Vec<Line> =
        files("proto/mart", &["proto"]).iter().flat_map(|path| lines_of(path)).collect();
    let floats = |line: &&Line| ["float", "double"].iter().any(|name| has_word(line.code(), name));
    refuse("money is integer minor units on the wire too", published.iter().filter(floats));
}

#[test]
fn the_event_store_knows_no_product_and_no_order() {
    let aggregates = ["User", "Product", "StockItem", "Cart", "Order", "Payment", "Notification"];
    let lines = rust(&["event-store/src"]);
    let knows = |line: &&Line| {
        let code = line.code();
        let named = aggregates.iter().any(|name| has_word(code, name));
        named
            || has_word(code, "aggregates::")
            || CONTEXTS.iter().any(|name| code.contains(&format!("\"{name}\"")))
    };
    refuse("the engine takes what it must know of an aggregate as functions", lines.iter().filter(knows));
}

#[test]
fn contexts_of_the_domain_meet_in_process_managers_only() {
    for own in CONTEXTS {
        let joins = |line: &Line| {
            PROCESS_MANAGERS.iter().any(|name| line.file.file_name().is_some_and(|file| file == *name))
        };
        // The command enum of a service names the aggregates that live in it.
        let names_its_service = |line: &Line| line.file == Path::new("aggregates/src/orders.rs");
        let lines = of_context("aggregates/src", own);
        assert!(!lines.is_empty(), "there is no context {own}: is the list in this test up to date?");
        for other in CONTEXTS.into_iter().filter(|other| *other != own) {
            let imports = |line: &&Line| {
                let exempt = joins(line) || (names_its_service(line) && other == "carts");
                !exempt && line.code().contains(&format!("crate::{other}::"))
            };
            refuse(&format!("{own} does not know {other}"), lines.iter().filter(imports));
        }
    }
}

#[test]
fn read_models_and_messages_of_a_service_do_not_know_those_of_another() {
    for layer in ["projections/src", "proto/src"] {
        for own in CONTEXTS {
            let lines = of_context(layer, own);
            for other in CONTEXTS.into_iter().filter(|other| service_of(other) != service_of(own)) {
                let imports = |line: &&Line| line.code().contains(&format!("crate::{other}::"));
                refuse(&format!("{layer}: {own} does not know {other}"), lines.iter().filter(imports));
            }
        }
    }
}

#[test]
fn routes_of_a_service_do_not_know_those_of_another() {
    for own in CONTEXTS {
        let lines = of_context("api/src/routes", own);
        for other in CONTEXTS.into_iter().filter(|other| service_of(other) != service_of(own)) {
            let imports = |line: &&Line| has_word(line.code(), &format!("routes::{other}"));
            refuse(
                &format!("the routes of {own} do not know those of {other}"),
                lines.iter().filter(imports),
            );
        }
    }
}

#[test]
fn personal_data_is_read_by_the_models_of_its_own_service_only() {
    for context in CONTEXTS {
        let lines = of_context("projections/src", context);
        let mut service = String::new();
        let mut foreign = Vec::new();
        for line in &lines {
            if let Some(named) = line.code().split("service: \"").nth(1) {
                service = named.split('"').next().unwrap_or_default().to_owned();
            }
            let opened = line.code().contains("personal: PersonalData::")
                && !line.code().contains("PersonalData::Withheld");
            if opened && service != service_of(context) {
                foreign.push(line);
            }
        }
        refuse("personal fields stay within their service (docs/adr/0005)", foreign);
    }
}

#[test]
fn folds_have_no_clock() {
    for context in CONTEXTS {
        let lines = of_context("projections/src", context);
        let clock = |line: &&Line| {
            ["Utc::now", "Instant::now", "SystemTime", "now_v7", "new_v4"]
                .iter()
                .any(|name| line.code().contains(name))
        };
        refuse("a rebuilt row must equal the live one", lines.iter().filter(clock));
    }
}

#[test]
fn no_event_is_swallowed_by_a_wildcard() {
    for path in files("aggregates/src", &["rs"]) {
        let mut depth = None;
        let mut swallowing = Vec::new();
        let lines = lines_of(&path);
        for line in &lines {
            let code = line.code();
            if code.contains("fn evolve(") || code.contains("fn apply(") {
                depth = Some(0);
            }
            let Some(open) = depth.as_mut() else { continue };
            if code.trim_start().starts_with("_ =>") {
                swallowing.push(line);
            }
            *open += code.matches('{').count();
            *open = open.saturating_sub(code.matches('}').count());
            if *open == 0 && code.contains('}') {
                depth = None;
            }
        }
        refuse("an event that is not applied is named", swallowing);
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in files("", &["rs"]) {
        let lines = lines_of(&path);
        let first = lines.iter().find(|line| !line.text.trim().is_empty() && !line.text.starts_with("#!"));
        refuse("a file begins with `//!`", first.filter(|line| !line.text.starts_with("//!")));
    }
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for path in files("", &["rs", "sql", "proto", "feature", "md"]) {
        let lines = lines_of(&path);
        refuse(
            &format!("a file has less than {LONGEST_FILE_LINES} lines"),
            lines.get(LONGEST_FILE_LINES - 1),
        );
    }
}

#[test]
fn no_module_is_a_box_for_odds_and_ends() {
    let names = ["util", "utils", "helper", "helpers", "common", "misc", "shared", "mod"];
    for path in files("", &["rs"]) {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        assert!(!names.contains(&stem), "{}: a module is named for what it is about", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let marks = [
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    let lines = rust(&[""]);
    let left = |line: &&Line| marks.iter().any(|mark| line.code().contains(mark));
    refuse("no test is skipped and nothing is unfinished", lines.iter().filter(left));
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let noted = |line: &&Line| notes.iter().any(|note| has_word(&line.text, note));
    refuse("what is to be done is an issue, not a comment", lines.iter().filter(noted));
}
