//! Products and their stock (T-C04, T-C05, T-M07 to T-M15).

use features::shop::{customer, product, stock, stock_becomes, unique};
use features::{PATIENCE, TestMart, eventually};
use serde_json::json;

use crate::MISSING;

#[tokio::test]
async fn a_product_is_listed_at_its_exact_price_and_has_an_empty_stock() {
    let mart = TestMart::shared().await;
    let (admin, anybody) = (mart.admin().await, mart.client());
    let name = unique("Laptop");
    // B26: a number is read exactly, never through a float.
    let body = format!(r#"{{"name": "{name}", "description": "grey", "price": 999.99}}"#);
    let listed = admin.post("/v1/products").body("application/json", body).await.is(201);
    let (id, path) = (listed.text_of("id"), listed.header("location").unwrap_or_default().to_owned());
    assert_eq!(path, format!("/v1/products/{id}"));
    assert_eq!((&listed.body["price"], &listed.body["currency"]), (&json!("999.99"), &json!("USD")));
    assert_eq!(listed.body["is_available"], false);
    assert_eq!(anybody.get(&path).await.is(200).body, listed.body);
    let found = anybody.get(&format!("/v1/products?search={name}")).await.is(200);
    assert_eq!(found.body["data"], json!([listed.body]));
    // A fresh product has its stock record at once for who asks.
    assert_eq!(stock(&admin, &id).await, [0, 0, 0, 0]);
    let many = anybody.all("/v1/products").await;
    assert!(many.contains(&listed.body));
}

#[tokio::test]
async fn a_product_is_replaced_changed_and_discontinued() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    let id = product(mart, "10.00", 0).await;
    let path = format!("/v1/products/{id}");
    let whole =
        json!({"name": unique("Desk"), "price": "20.50", "description": "oak", "country_of_origin": "Italy"});
    let replaced = admin.put(&path).json(&whole).await.is(200);
    for field in ["name", "price", "description", "country_of_origin"] {
        assert_eq!(replaced.body[field], whole[field], "{replaced}");
    }
    assert_eq!(admin.get(&path).await.is(200).body, replaced.body);
    let patched = admin.patch(&path).json(&json!({"price": "19.00"})).await.is(200);
    assert_eq!((&patched.body["price"], &patched.body["name"]), (&json!("19.00"), &whole["name"]));
    drop(admin.delete(&path).await.is(204));
    admin.get(&path).await.refuses(404, "not_found");
    eventually(PATIENCE, async || {
        let level = admin.get(&format!("/v1/inventory/{id}")).await;
        if level.status == 404 { Ok(()) } else { Err(level.to_string()) }
    })
    .await;
    for missing in [MISSING, "no-id", &id] {
        let path = format!("/v1/products/{missing}");
        admin.get(&path).await.refuses(404, "not_found");
        admin.put(&path).json(&whole).await.refuses(404, "not_found");
        admin.delete(&path).await.refuses(404, "not_found");
    }
}

#[tokio::test]
async fn only_staff_changes_products_and_stock() {
    let mart = TestMart::shared().await;
    let (ann, nobody) = (customer(mart).await, mart.client());
    let id = product(mart, "1.00", 1).await;
    let body = json!({"name": unique("Free"), "price": "0.00", "quantity": 1});
    for (method, path) in [
        ("POST", "/v1/products".to_owned()),
        ("PUT", format!("/v1/products/{id}")),
        ("PATCH", format!("/v1/products/{id}")),
        ("DELETE", format!("/v1/products/{id}")),
        ("GET", "/v1/inventory".to_owned()),
        ("GET", format!("/v1/inventory/{id}")),
        ("PUT", format!("/v1/inventory/{id}")),
        ("POST", format!("/v1/inventory/{id}/additions")),
        ("POST", format!("/v1/inventory/{id}/reductions")),
        ("GET", format!("/v1/inventory/{id}/movements")),
    ] {
        let method: reqwest::Method = method.parse().expect("it is a method");
        nobody.call(method.clone(), &path).json(&body).await.refuses(401, "unauthorized");
        ann.call(method, &path).json(&body).await.refuses(403, "forbidden");
    }
}

#[tokio::test]
async fn stock_goes_up_and_down_and_never_below_nothing() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    let id = product(mart, "1.00", 0).await;
    let change = async |what: &str, quantity: i64| {
        admin.post(&format!("/v1/inventory/{id}/{what}")).json(&json!({"quantity": quantity})).await
    };
    let available = async |wanted: bool| {
        eventually(PATIENCE, async || {
            let product = admin.get(&format!("/v1/products/{id}")).await.is(200);
            if product.body["is_available"] == wanted { Ok(()) } else { Err(product.to_string()) }
        })
        .await;
    };
    assert_eq!(change("additions", 100).await.is(200).body["on_hand"], 100);
    available(true).await;
    assert_eq!(change("reductions", 100).await.is(200).body["on_hand"], 0);
    available(false).await;
    drop(change("additions", 10).await.is(200));
    // T-M14, B20
    change("reductions", 11).await.refuses_fields(409, "insufficient_stock", &["items"]);
    for wrong in [0, -1] {
        change("additions", wrong).await.refuses_fields(422, "validation_failed", &["quantity"]);
        change("reductions", wrong).await.refuses_fields(422, "validation_failed", &["quantity"]);
    }
    assert_eq!(stock(&admin, &id).await, [10, 10, 0, 0]);
    let counted = admin.put(&format!("/v1/inventory/{id}")).json(&json!({"stock_level": 7})).await.is(200);
    assert_eq!(counted.body["on_hand"], 7);
    stock_becomes(&admin, &id, [7, 7, 0, 0]).await;
    let movements = admin.all(&format!("/v1/inventory/{id}/movements")).await;
    assert!(movements.len() >= 4, "{movements:?}");
    assert!(admin.all("/v1/inventory").await.iter().any(|level| level["product_id"] == id.as_str()));
    for what in ["additions", "reductions"] {
        let missing =
            admin.post(&format!("/v1/inventory/{MISSING}/{what}")).json(&json!({"quantity": 1})).await;
        missing.refuses(404, "not_found");
    }
    admin.get(&format!("/v1/inventory/{MISSING}")).await.refuses(404, "not_found");
}
