//! A private server starts, is found again, survives every way of dying, and refuses to be run twice.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use embedded::{EmbeddedPostgres, PostgresError, PostgresOptions, testing};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("mart-start-")
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .expect("a temporary folder can be made")
}

async fn start(folder: &Path) -> EmbeddedPostgres {
    EmbeddedPostgres::start(PostgresOptions::new(folder)).await.expect("the server starts")
}

async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    connection.execute(statement).await.expect("the statement is right");
}

async fn ask(url: &str, query: &str) -> String {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("the query is right")
}

fn kill_server(server: &EmbeddedPostgres) {
    let pid = i32::try_from(server.process_id()).expect("process ids fit");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the server runs");
}

#[tokio::test]
async fn a_second_start_finds_the_data_of_the_first() {
    let folder = folder();
    let first = start(folder.path()).await;
    execute(&first.server_url(), "create table kept (value text); insert into kept values ('here')").await;
    first.stop().await;

    let second = start(folder.path()).await;
    assert_eq!(ask(&second.server_url(), "select value from kept").await, "here");
    second.stop().await;
}

#[tokio::test]
async fn the_server_is_durable_and_answers_on_both_its_addresses() {
    let folder = folder();
    let server = start(folder.path()).await;
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("jit", "off"),
    ] {
        assert_eq!(ask(&server.tcp_url("postgres"), &format!("show {setting}")).await, value, "{setting}");
    }
    assert_eq!(ask(&server.server_url(), "select lower('ÄÖÜ')").await, "äöü");
    assert_eq!(
        ask(&server.server_url(), "select min(letter) from (values ('a'), ('B')) as t (letter)").await,
        "B"
    );

    let password = folder.path().join("postgres.password").metadata().expect("the password is kept");
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    let wrong = format!("postgres://mart:wrong@127.0.0.1:{}/postgres", server.port());
    PgConnection::connect(&wrong).await.expect_err("a wrong password is refused");
    server.stop().await;
}

#[tokio::test]
async fn a_killed_server_starts_again_with_everything_acknowledged() {
    let folder = folder();
    let mut server = start(folder.path()).await;
    execute(&server.server_url(), "create table kept (value text); insert into kept values ('here')").await;
    kill_server(&server);
    drop(server);

    server = start(folder.path()).await;
    assert_eq!(ask(&server.server_url(), "select value from kept").await, "here");
    server.stop().await;
}

#[tokio::test]
async fn two_marts_on_one_folder_are_refused_in_one_sentence() {
    let folder = folder();
    let server = start(folder.path()).await;
    let error =
        EmbeddedPostgres::start(PostgresOptions::new(folder.path())).await.expect_err("the folder is in use");
    assert!(matches!(error, PostgresError::InUse(_)));
    assert!(error.to_string().starts_with("another mart is running on "), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_whose_mart_was_killed_is_adopted_and_stopped() {
    let folder = folder();
    let orphan = start(folder.path()).await;
    let process_id = orphan.process_id();
    execute(&orphan.server_url(), "create table kept (value text); insert into kept values ('here')").await;
    // A killed mart runs no destructor, and the system releases its lock: as when the lock file is a new one.
    std::mem::forget(orphan);
    std::fs::remove_file(folder.path().join("mart.lock")).expect("the lock file is there");

    let server = start(folder.path()).await;
    assert!(server.adopted());
    assert_eq!(server.process_id(), process_id);
    assert_eq!(ask(&server.server_url(), "select value from kept").await, "here");
    server.stop().await;
    assert!(!folder.path().join("postgres/postmaster.pid").exists());
}

#[tokio::test]
async fn a_half_made_cluster_is_put_aside_and_made_anew() {
    let folder = folder();
    std::fs::create_dir_all(folder.path().join("postgres/base")).expect("the folder is ours");
    std::fs::write(folder.path().join("postgres/PG_VERSION"), "15\n").expect("the folder is ours");
    std::fs::create_dir_all(folder.path().join("postgres.making-0/base")).expect("the folder is ours");

    let server = start(folder.path()).await;
    assert_eq!(ask(&server.server_url(), "select 'works'").await, "works");
    assert!(folder.path().join("postgres.incomplete/PG_VERSION").exists());
    assert!(!folder.path().join("postgres.making-0").exists());
    server.stop().await;
}

#[tokio::test]
async fn a_deep_data_folder_gets_a_short_socket() {
    let folder = folder();
    let deep = folder.path().join("a-folder-with-a-long-name/".repeat(5));
    std::fs::create_dir_all(&deep).expect("the folder is ours");
    let server = start(&deep).await;
    assert_eq!(ask(&server.server_url(), "select 'works'").await, "works");
    server.stop().await;
}

#[tokio::test]
async fn binaries_that_are_none_are_named() {
    let folder = folder();
    let mut options = PostgresOptions::new(folder.path());
    options.bin = Some(folder.path().to_owned());
    let error = EmbeddedPostgres::start(options).await.expect_err("there is no server");
    assert!(error.to_string().contains("MART_POSTGRES_BIN"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_named_by_the_server() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let mut options = PostgresOptions::new(folder.path());
    options.port = Some(taken.local_addr().expect("it listens").port());
    let error = EmbeddedPostgres::start(options).await.expect_err("the port is taken");
    assert!(matches!(error, PostgresError::Start { .. }), "{error}");
}

#[tokio::test]
async fn every_test_gets_a_database_of_its_own_and_loses_it() {
    let (first, second) = tokio::join!(testing::database("orders"), testing::database("orders"));
    assert_ne!(first.name, second.name);
    execute(&first.url, "create table one ()").await;
    execute(&second.url, "create table one ()").await;

    let name = first.name.clone();
    drop(first);
    let gone = async {
        let query = format!("select count(*)::text from pg_database where datname = '{name}'");
        while ask(&second.url, &query).await != "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the database is dropped");
}
