//! What the mart cannot start on is told in one sentence; what it can, it finds again.

use std::net::TcpListener;
use std::process::Output;

use features::eventually::eventually;
use features::mart::Setup;
use features::shop::{customer, order_now, paid_order, product, stock};
use nix::sys::signal::Signal;

use crate::room;

/// One sentence that tells what to do, and a code that is not 0.
#[track_caller]
fn refuses(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    let told: Vec<&str> = told.lines().filter(|line| line.starts_with("mart: ")).collect();
    assert!(!output.status.success(), "it succeeded");
    assert_eq!(told.len(), 1, "it does not tell one sentence: {}", String::from_utf8_lossy(&output.stderr));
    assert!(told[0].contains(words), "{} does not say `{words}`", told[0]);
    assert!(!told[0].contains("panicked"), "{}", told[0]);
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it listens").to_string();
    let output = Setup::embedded().with("MART_HTTP_ADDR", &address).run().await;
    refuses(&output, "is taken");
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = closed.local_addr().expect("it listens");
    drop(closed);
    let url = format!("postgres://mart@{address}/postgres");
    let output = Setup::embedded().with("MART_DATABASE_URL", &url).run().await;
    refuses(&output, "database");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("postgres://"), "the URL may hold a password");
}

#[tokio::test]
async fn a_missing_postgresql_is_told() {
    let output = Setup::embedded().with("MART_POSTGRES_BIN", "/nonexistent").run().await;
    refuses(&output, "/nonexistent");
}

#[tokio::test]
async fn a_data_folder_that_is_no_folder_or_holds_a_broken_key_is_told() {
    let setup = Setup::embedded();
    let file = setup.data_dir().join("file");
    std::fs::write(&file, "in the way").expect("it can be written");
    let inside = file.join("data").display().to_string();
    refuses(&setup.with("MART_DATA_DIR", &inside).run().await, "--data-dir");

    let setup = Setup::embedded();
    std::fs::create_dir(setup.data_dir().join("keys")).expect("it can be made");
    std::fs::write(setup.data_dir().join("keys/master.key"), "half").expect("it can be written");
    refuses(&setup.run().await, "master key");
}

#[tokio::test]
async fn a_key_that_was_named_and_is_not_there_is_told_and_not_made() {
    for variable in ["MART_MASTER_KEY_FILE", "MART_TOKEN_KEY_FILE"] {
        let setup = Setup::new().await;
        let path = setup.data_dir().join("named.key");
        let setup = setup.with(variable, &path.display().to_string());
        refuses(&setup.run().await, "there is no key");
        assert!(!path.exists(), "{variable}");
    }
}

#[tokio::test]
async fn the_mart_needs_nothing_stops_cleanly_and_finds_everything_again() {
    let _room = room().await;
    let mut mart = Setup::embedded().start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "3.00", 9).await);
    let order = paid_order(&ann, &product, 2).await;
    let before = order_now(&ann, &order).await;
    mart.stop().await;

    mart.start().await;
    let ann = mart.client().with_token(ann.token().unwrap_or_default());
    assert_eq!(order_now(&ann, &order).await, before);
    let admin = mart.admin().await;
    assert_eq!(stock(&admin, &product).await, [9, 7, 0, 2]);
    mart.stop_by(Signal::SIGINT).await;

    // A power failure takes nothing that was there, and leaves nothing behind that keeps it from starting.
    mart.start().await;
    mart.restart().await;
    let ann = mart.client().with_token(ann.token().unwrap_or_default());
    eventually(features::PATIENCE, async || {
        let now = order_now(&ann, &order).await;
        if now == before { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    mart.stop().await;
}
