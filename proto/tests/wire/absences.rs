//! What the published language does not know: the log, Kafka, the database, HTTP.

#[test]
fn the_published_language_depends_on_the_domain_alone() {
    let manifest = include_str!("../../Cargo.toml");
    let ours = ["event-store", "embedded", "projections", "api", "features"];
    let others = ["sqlx", "postgres-es", "rdkafka", "axum", "reqwest"];
    for line in manifest.lines() {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        assert!(!ours.contains(&name) && !others.contains(&name), "proto depends on {name}");
    }
    assert!(manifest.contains("aggregates.workspace"));
}
