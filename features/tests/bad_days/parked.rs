//! An event that a read model cannot take is parked, shown, and put back on the command line.

use features::PATIENCE;
use features::eventually::eventually;
use features::mart::{Setup, TestMart};
use features::shop::{product, unique};
use serde_json::json;
use sqlx::{Executor, PgConnection};

use crate::room;

/// What `mart parked list` prints.
async fn parked(mart: &TestMart) -> String {
    let output = mart.run(&["parked", "list", "catalog"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The live table of the products, with its schema.
async fn listing(catalog: &mut PgConnection) -> String {
    let table = "select format('%I.%I', table_schema, table_name) from information_schema.tables \
                 where table_name = 'product_listing'";
    sqlx::query_scalar(table).fetch_one(catalog).await.expect("there is one")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_is_parked_with_its_stream_and_retried_by_hand() {
    let _room = room().await;
    let mut mart = Setup::new().await.start().await;
    let admin = mart.admin().await;
    let name = unique("Unlucky");
    let mut catalog = mart.databases().connect("catalog").await;
    let table = listing(&mut catalog).await;
    let refuse = format!("alter table {table} add constraint unlucky check (name not like 'Unlucky%')");
    catalog.execute(refuse.as_str()).await.expect("the table can be changed");

    let body = json!({"name": name, "price": "5.00"});
    let id = admin.post("/v1/products").json(&body).await.is(201).text_of("id");
    eventually(PATIENCE, async || {
        let told = parked(&mart).await;
        let all = ["product_listing@", "ProductListed", &id, "unlucky"];
        if all.iter().all(|word| told.contains(word)) { Ok(()) } else { Err(told) }
    })
    .await;
    let raised = json!({"price": "6.00"});
    drop(admin.patch(&format!("/v1/products/{id}")).json(&raised).await.is(200));
    eventually(PATIENCE, async || {
        let told = parked(&mart).await;
        if told.contains("waits behind the one before") { Ok(()) } else { Err(told) }
    })
    .await;
    let search = format!("/v1/products?search={name}");
    assert_eq!(mart.client().get(&search).await.is(200).body["data"], json!([]));
    // The others go on.
    let other = product(&mart, "7.00", 1).await;
    drop(mart.client().get(&format!("/v1/products/{other}")).await.is(200));

    let early = mart.run(&["parked", "retry", "catalog"]).await;
    let told = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(!early.status.success() && told.contains("1 streams still wait"), "{told}");

    let accept = format!("alter table {table} drop constraint unlucky");
    catalog.execute(accept.as_str()).await.expect("the table can be changed");
    let retried = mart.run(&["parked", "retry", "catalog"]).await;
    assert!(retried.status.success(), "{}", String::from_utf8_lossy(&retried.stderr));
    assert_eq!(String::from_utf8_lossy(&retried.stdout), "2 events were applied\n");
    assert_eq!(parked(&mart).await, "nothing is parked\n");
    let found = mart.client().get(&search).await.is(200);
    assert_eq!(found.body["data"][0]["price"], "6.00", "{found}");
    let verified = mart.run(&["verify", "catalog"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    mart.stop().await;
}
