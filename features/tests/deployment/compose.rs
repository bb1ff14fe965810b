//! `compose.yml` against the program and the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use api::cli::{Cli, Command};
use api::config::{Selection, Service};
use clap::{ArgAction, CommandFactory};
use serde_json::{Map, Value};

use crate::gateway::{PORT, kong, url_of};
use crate::{path_of, read, texts, variables, yaml};

/// Where containers find their secrets.
const SECRETS: &str = "/run/secrets/";

struct Container {
    name: String,
    arguments: Vec<String>,
    variables: BTreeMap<String, Option<String>>,
    secrets: BTreeSet<String>,
}

impl Container {
    fn of(name: &str, container: &Value) -> Self {
        let environment = container["environment"].as_object().cloned().unwrap_or_default();
        let value = |value: Value| value.as_str().map(str::to_owned);
        Self {
            name: name.to_owned(),
            arguments: texts(&container["command"]).into_iter().map(str::to_owned).collect(),
            variables: environment.into_iter().map(|(name, set)| (name, value(set))).collect(),
            secrets: texts(&container["secrets"]).into_iter().map(str::to_owned).collect(),
        }
    }

    /// What the program makes of the arguments and variables, the variables given as the flags that they stand for:
    /// those of this process are everybody's. Secrets are taken from `folder`.
    fn read(&self, folder: &Path) -> Command {
        let program = Cli::command();
        let (role, _) = self.arguments.split_first().expect("a container of the mart has a command");
        let command = program.find_subcommand(role).expect("it is a command of the program");
        let mut arguments = vec!["mart".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        for (name, value) in self.variables.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            // A variable that this command does not read is of no use to it.
            let flag = command
                .get_arguments()
                .find(|argument| argument.get_env().is_some_and(|env| env == name.as_str()));
            let flag = flag.unwrap_or_else(|| panic!("`mart {role}` of {} does not read {name}", self.name));
            arguments.push(format!("--{}", flag.get_long().expect("variables stand for flags")));
            if !matches!(flag.get_action(), ArgAction::SetTrue) {
                arguments.push(value.replace(SECRETS, &format!("{}/", folder.display())));
            }
        }
        use clap::Parser;
        Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{}: {error}", self.name)).command
    }
}

fn compose() -> Value {
    yaml(&read("compose.yml"))
}

/// The containers that run the mart.
fn containers(compose: &Value) -> Vec<Container> {
    let services = compose["services"].as_object().expect("there are services");
    let ours = services.iter().filter(|(_, container)| container["build"] == ".");
    ours.map(|(name, container)| Container::of(name, container)).collect()
}

#[test]
fn containers_name_only_roles_variables_and_values_that_the_program_takes() {
    let compose = compose();
    let folder = tempfile::tempdir().expect("a folder");
    for secret in compose["secrets"].as_object().expect("there are secrets").keys() {
        std::fs::write(folder.path().join(secret), "a secret").expect("the folder is ours");
    }
    let containers = containers(&compose);
    assert!(containers.len() > 8, "there are containers of the mart");
    let known = variables();
    for container in containers {
        let unknown: Vec<&String> =
            container.variables.keys().filter(|name| !known.contains(*name)).collect();
        assert!(unknown.is_empty(), "{} sets {unknown:?}, which nothing reads", container.name);
        drop(container.read(folder.path()));
    }
}

#[test]
fn containers_read_the_secrets_that_they_are_given_and_only_those() {
    let compose = compose();
    let declared = compose["secrets"].as_object().expect("there are secrets");
    for (name, secret) in declared {
        let file = secret["file"].as_str().unwrap_or_default();
        assert!(file.starts_with("secrets/"), "{name} is baked in");
    }
    for container in containers(&compose) {
        let read = container.variables.values().flatten().filter_map(|value| value.strip_prefix(SECRETS));
        assert_eq!(read.map(str::to_owned).collect::<BTreeSet<_>>(), container.secrets, "{}", container.name);
        assert!(container.secrets.iter().all(|secret| declared.contains_key(secret)), "{}", container.name);
    }
    let made = read("deploy/make-secrets");
    for secret in declared.values() {
        let file = secret["file"].as_str().unwrap_or_default();
        assert!(made.contains(&format!("make_once {file}")), "nobody makes {file}");
    }
    assert!(read(".gitignore").lines().any(|line| line == "/secrets"), "secrets would be committed");
    assert!(read(".dockerignore").lines().any(|line| line == "secrets"), "secrets would be in the image");
}

#[test]
fn every_service_is_served_worked_and_projected_and_the_gateway_finds_it() {
    let compose = compose();
    let folder = tempfile::tempdir().expect("a folder");
    for secret in compose["secrets"].as_object().expect("there are secrets").keys() {
        std::fs::write(folder.path().join(secret), "a secret").expect("the folder is ours");
    }
    let mut serving: BTreeMap<Service, String> = BTreeMap::new();
    let (mut worked, mut projected) = (Vec::new(), Vec::new());
    for container in containers(&compose) {
        match container.read(folder.path()) {
            Command::Serve(options) => {
                let asks = options.listen.users_grpc.as_deref();
                let services = Selection::services(&options.services);
                let has_users = services.contains(&Service::Users);
                assert_eq!(asks, (!has_users).then_some("http://users:9090"), "{}", container.name);
                assert_eq!(options.listen.grpc_addr.is_some(), has_users, "{}", container.name);
                serving.extend(services.into_iter().map(|service| (service, container.name.clone())));
            }
            Command::Work(options) => worked.extend(Selection::services(&options.services)),
            Command::Project(options) => projected.extend(Selection::services(&options.services)),
            _ => {}
        }
    }
    assert_eq!((worked.as_slice(), projected.as_slice()), (&Service::ALL[..], &Service::ALL[..]));
    let upstreams: BTreeSet<String> = kong()["services"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|service| service["url"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(serving.keys().copied().collect::<Vec<_>>(), Service::ALL);
    assert_eq!(serving.values().map(|container| url_of(container)).collect::<BTreeSet<_>>(), upstreams);
    assert!(read("Dockerfile").contains(&format!("MART_HTTP_ADDR=0.0.0.0:{PORT} ")));
}

#[test]
fn containers_may_do_little_and_use_no_more_than_they_are_given() {
    let compose = compose();
    let services: &Map<String, Value> = compose["services"].as_object().expect("there are services");
    for (name, container) in services {
        let limits = &container["deploy"]["resources"]["limits"];
        for limit in ["cpus", "memory", "pids"] {
            assert!(!limits[limit].is_null(), "{name} has no limit of {limit}");
        }
        assert_eq!(texts(&container["security_opt"]), ["no-new-privileges:true"], "{name}");
        let published = container["ports"].as_array().map_or(0, Vec::len);
        assert_eq!(published, usize::from(name == "kong"), "{name}");
        // The databases' own entry point gives its folder to its user.
        if name != "postgres" {
            assert_eq!(texts(&container["cap_drop"]), ["ALL"], "{name}");
        }
        let checked = container["healthcheck"]["test"].is_array();
        let ends =
            texts(&container["command"]).first().is_some_and(|role| ["migrate", "seed"].contains(role));
        // The image of the mart brings its check along.
        assert!(checked || ends || container["build"] == ".", "{name} has no health check");
    }
    assert!(path_of("Dockerfile").exists());
}
