//! `kong/kong.yml` against the OpenAPI document.

use std::collections::BTreeMap;
use std::process::Command;

use api::tokens::ISSUER;
use serde_json::{Value, json};

use crate::{path_of, read, texts, yaml};

/// Routes of the document for those who run the mart: they stay inside.
const INSIDE: [&str; 3] = ["/livez", "/readyz", "/metrics"];
/// What is served beside the routes of the document: its pages, and itself.
const PAGES: [&str; 2] = ["~/docs(/.*)?$", r"~/v1/openapi\.json$"];
/// The container that answers for what every process has.
const ANSWERS_FOR_ALL: &str = "catalog";
/// The port of HTTP in the containers.
pub(crate) const PORT: u16 = 8080;

/// Who answers a route, and whether a token is needed.
type Routes = BTreeMap<(String, String), (String, bool)>;

pub(crate) fn kong() -> Value {
    yaml(&read("kong/kong.yml"))
}

pub(crate) fn url_of(container: &str) -> String {
    format!("http://{container}:{PORT}")
}

/// `/v1/orders/{id}` → `~/v1/orders/[^/]+$`
fn anchored(path: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => "[^/]+".to_owned(),
        false => part.replace('.', r"\."),
    });
    format!("~{}$", parts.collect::<Vec<_>>().join("/"))
}

/// The methods under which a route is reached: `HEAD` asks for the head of what `GET` answers.
fn methods(method: &str) -> Vec<String> {
    match method {
        "get" => vec!["GET".to_owned(), "HEAD".to_owned()],
        other => vec![other.to_uppercase()],
    }
}

fn documented() -> Routes {
    let document = api::documentation::document(api::routes::document()).into_openapi();
    let document = serde_json::to_value(document).expect("the document is JSON");
    let mut routes = Routes::new();
    for (path, item) in document["paths"].as_object().expect("there are paths") {
        for (method, operation) in item.as_object().expect("a path has methods") {
            let Some(tag) = operation["tags"][0].as_str().filter(|_| !INSIDE.contains(&path.as_str())) else {
                continue;
            };
            let service = match tag {
                "mart" => ANSWERS_FOR_ALL,
                "carts" => "orders",
                own => own,
            };
            // A route that takes a token and does without has an empty requirement among its own.
            let security = operation["security"].as_array().cloned().unwrap_or_default();
            let protected = !security.is_empty() && !security.contains(&json!({}));
            for method in methods(method) {
                routes.insert((anchored(path), method), (url_of(service), protected));
            }
        }
    }
    for page in PAGES {
        for method in methods("get") {
            routes.insert((page.to_owned(), method), (url_of(ANSWERS_FOR_ALL), false));
        }
    }
    routes
}

fn has_plugin(entity: &Value, name: &str) -> bool {
    entity["plugins"].as_array().into_iter().flatten().any(|plugin| plugin["name"] == name)
}

#[test]
fn every_route_of_the_document_passes_the_gateway_as_the_document_says_and_no_other_does() {
    let kong = kong();
    let mut routes = Routes::new();
    for service in kong["services"].as_array().expect("there are services") {
        let url = service["url"].as_str().expect("a service has a URL");
        for route in service["routes"].as_array().expect("a service has routes") {
            assert_eq!(route["strip_path"], false, "{route}");
            for path in texts(&route["paths"]) {
                for method in texts(&route["methods"]) {
                    let answer = (url.to_owned(), has_plugin(service, "jwt") || has_plugin(route, "jwt"));
                    let taken = routes.insert((path.to_owned(), method.to_owned()), answer);
                    assert_eq!(taken, None, "{method} {path} stands there twice");
                }
            }
        }
    }
    let documented = documented();
    assert!(documented.len() > 50, "the document has routes");
    assert_eq!(routes, documented);
}

#[test]
fn the_gateway_takes_tokens_of_the_mart_from_the_header_until_they_expire() {
    let kong = kong();
    let services = kong["services"].as_array().expect("there are services");
    let plugins = services.iter().filter_map(|service| service["plugins"].as_array()).flatten();
    let mut protected = 0;
    for plugin in plugins {
        protected += 1;
        assert_eq!(
            *plugin,
            json!({"name": "jwt", "config": {
                "key_claim_name": "iss",
                "claims_to_verify": ["exp"],
                "header_names": ["authorization"],
                "uri_param_names": [],
                "cookie_names": [],
                "run_on_preflight": true,
            }})
        );
    }
    assert_eq!(protected, services.iter().filter(|service| has_plugin(service, "jwt")).count());
    let key = &kong["consumers"][0]["jwt_secrets"][0];
    assert_eq!((&key["key"], &key["algorithm"]), (&json!(ISSUER), &json!("EdDSA")));
    // There is one issuer, so that no other key is ever asked for.
    assert_eq!(kong["consumers"].as_array().map(Vec::len), Some(1));
}

#[test]
fn nothing_passes_the_gateway_uncounted() {
    let kong = kong();
    let routes = kong["services"].as_array().into_iter().flatten().flat_map(|service| {
        service["routes"].as_array().into_iter().flatten().flat_map(|route| route["plugins"].as_array())
    });
    let limits: Vec<&Value> = kong["plugins"]
        .as_array()
        .into_iter()
        .chain(routes)
        .flatten()
        .filter(|plugin| plugin["name"] == "rate-limiting")
        .collect();
    assert_eq!(limits.len(), 2, "one for all, one for what costs a slow hash");
    for limit in limits {
        let config = &limit["config"];
        assert_eq!((&config["policy"], &config["fault_tolerant"]), (&json!("local"), &json!(false)));
    }
    let size = kong["plugins"].as_array().into_iter().flatten();
    let size = size.clone().find(|plugin| plugin["name"] == "request-size-limiting");
    assert_eq!(size.map(|plugin| &plugin["config"]["allowed_payload_size"]), Some(&json!(1)));
}

#[test]
fn the_key_of_the_tokens_comes_into_the_configuration_when_the_gateway_starts() {
    // As `openssl pkey -pubout` writes one, without a line break at its end.
    let key = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA5z3E6BFma3ol87eNF53wDCqN1PZE3Xbc4Z5rdxrc7c4=\n\
        -----END PUBLIC KEY-----";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token.pub");
    std::fs::write(&file, key).expect("the folder is ours");
    let render = || {
        let mut command = Command::new("sh");
        command.args([path_of("kong/render"), path_of("kong/kong.yml"), file.clone()]);
        command.output().expect("a shell is there")
    };
    let rendered = render();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let mut rendered = yaml(&String::from_utf8_lossy(&rendered.stdout));
    let rendered_key = rendered["consumers"][0]["jwt_secrets"][0]["rsa_public_key"].take();
    assert_eq!(rendered_key, json!(format!("{key}\n")));
    let mut template = kong();
    template["consumers"][0]["jwt_secrets"][0]["rsa_public_key"].take();
    assert_eq!(rendered, template, "nothing else changes");

    std::fs::write(&file, "").expect("the file is ours");
    assert!(!render().status.success(), "a gateway without a key does not start");
}
