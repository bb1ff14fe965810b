//! The files that a mart is deployed with, held against the program: a route, flag or variable that they name exists,
//! and every route of the interface passes the gateway.

mod compose;
mod gateway;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api::cli::Cli;
use api::config::Service;
use clap::{Command, CommandFactory};
use serde_json::Value;

/// Variables that are read without a flag: where the private server's programs are, and one for the database of each
/// service.
fn variables_without_flag() -> BTreeSet<String> {
    let of_service = |service: Service| format!("MART_DATABASE_URL_{}", service.name().to_uppercase());
    Service::ALL.map(of_service).into_iter().chain(["MART_POSTGRES_BIN".to_owned()]).collect()
}

/// The variables that some command of the program reads.
fn variables() -> BTreeSet<String> {
    fn collect(command: &Command, found: &mut BTreeSet<String>) {
        let named = command.get_arguments().filter_map(|argument| argument.get_env());
        found.extend(named.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|inner| collect(inner, found));
    }
    let mut found = variables_without_flag();
    collect(&Cli::command(), &mut found);
    found
}

fn path_of(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path_of(file)).expect("the file is part of the workspace")
}

fn yaml(text: &str) -> Value {
    let mut document: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).expect("it is YAML");
    // What is merged may merge others itself, which takes another round.
    loop {
        let before = document.clone();
        document.apply_merge().expect("what is merged are mappings");
        if document == before {
            break;
        }
    }
    serde_json::to_value(document).expect("its keys are texts")
}

/// The texts of a list; none when there is no list.
fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_variable_stands_in_the_example_and_no_other() {
    let example = read(".env.example");
    let named = |line: &str| {
        let (name, _) = line.strip_prefix('#').unwrap_or(line).split_once('=')?;
        name.starts_with("MART_").then(|| name.to_owned())
    };
    let for_tests = |name: &String| name.starts_with("MART_TEST_");
    let named: BTreeSet<String> = example.lines().filter_map(named).filter(|name| !for_tests(name)).collect();
    assert_eq!(named, variables());
}

#[test]
fn the_image_is_built_with_the_toolchain_of_the_workspace() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).expect("it names one");
    let version = channel.trim_matches('"');
    let dockerfile = read("Dockerfile");
    for line in [format!("FROM rust:{version}-bookworm AS toolchain"), format!("RUSTUP_TOOLCHAIN={version} ")]
    {
        assert!(dockerfile.contains(&line), "the Dockerfile does not say `{line}`");
    }
    let set = dockerfile.split_whitespace().filter_map(|word| word.split_once('='));
    let set: BTreeSet<String> =
        set.map(|(name, _)| name.to_owned()).filter(|name| name.starts_with("MART_")).collect();
    assert!(!set.is_empty() && set.is_subset(&variables()), "{set:?}");
}
