//! What holds for every route: shapes of refusals, media types, sizes, headers.

use features::shop::{ADDRESS, GOOD_CARD, customer, order, order_of, product, registration, unique};
use features::{Client, PATIENCE, TestMart};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::MISSING;

#[tokio::test]
async fn refusals_of_the_router_are_problem_documents_too() {
    let client = TestMart::shared().await.client();
    client.get("/nowhere").await.refuses(404, "not_found");
    client.get("/v1/users/").await.refuses(404, "not_found");
    // T-U27
    let reply = client.get("/v1/auth/login").await.refuses(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), Some("POST"));
    drop(client.patch("/v1/products").await.refuses(405, "method_not_allowed"));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_by_what_is_wrong_with_it() {
    let client = TestMart::shared().await.client();
    let send = |media_type: &str, body: String| client.post("/v1/users").body(media_type, body);
    send("application/json", "{".to_owned()).await.refuses(400, "malformed_json");
    drop(send("application/json", String::new()).await.is(400));
    send("text/plain", "{}".to_owned()).await.refuses(415, "unsupported_media_type");
    let mut body = registration(&unique("typed"));
    body["first_name"] = json!(7);
    let mistyped = client.post("/v1/users").json(&body).await;
    mistyped.refuses_fields(422, "validation_failed", &["first_name"]);
    let mut body = registration(&unique("extra"));
    body["surprise"] = json!(true);
    client.post("/v1/users").json(&body).await.refuses_fields(422, "validation_failed", &["surprise"]);
    // A field that nobody knows hides nothing else that is wrong.
    body["first_name"] = json!(7);
    body["password"] = json!("short");
    body["another"] = json!({});
    let all = ["another", "first_name", "password", "surprise"];
    client.post("/v1/users").json(&body).await.refuses_fields(422, "validation_failed", &all);
    let ann = customer(TestMart::shared().await).await;
    let order = json!({"items": [{"product_id": MISSING, "quantity": 0, "price": 1}], "coupon": "x"});
    let all = ["coupon", "items.0.price", "items.0.quantity", "shipping_address"];
    ann.post("/v1/orders").json(&order).await.refuses_fields(422, "validation_failed", &all);
}

#[tokio::test]
async fn a_list_is_no_object_wherever_it_stands() {
    let mart = TestMart::shared().await;
    let (ann, product) = tokio::join!(customer(mart), product(mart, "2.00", 3));
    let listed = json!({"items": [[product, 1]], "shipping_address": "Here 1"});
    let refused = ann.post("/v1/orders").json(&listed).await;
    refused.refuses_fields(422, "validation_failed", &["items.0"]);
    let id = order(&ann, &product, 1).await.is(201).text_of("id");
    let card = json!({"card": [GOOD_CARD, 12, 2030, "123"]});
    let refused = ann.post(&format!("/v1/orders/{id}/payments")).json(&card).await;
    refused.refuses_fields(422, "validation_failed", &["card"]);
}

/// The status of a request of which only the beginning is sent: who sends too much may be cut off before all of
/// it is written, and a client that still writes does not read.
async fn status_of_beginning(base: &str, beginning: &str) -> String {
    let address = base.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("the mart listens");
    connection.write_all(beginning.as_bytes()).await.expect("it can be written");
    let mut answer = BufReader::new(connection);
    let mut status = String::new();
    let read = tokio::time::timeout(PATIENCE, answer.read_line(&mut status)).await;
    read.expect("it is answered in time").expect("it can be read");
    status
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let mart = TestMart::shared().await;
    let head = "POST /v1/users HTTP/1.1\r\nhost: mart\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: {}\r\n\r\n", (1 << 20) + 1);
    let status = status_of_beginning(mart.base(), &announced).await;
    assert!(status.starts_with("HTTP/1.1 413 "), "{status}");
    let size = (1 << 20) + 1;
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n{}\r\n", "a".repeat(size));
    let status = status_of_beginning(mart.base(), &chunked).await;
    assert!(status.starts_with("HTTP/1.1 413 "), "{status}");
}

#[tokio::test]
async fn texts_that_deceive_are_refused() {
    let mart = TestMart::shared().await;
    let (ann, id) = tokio::join!(customer(mart), product(mart, "1.00", 5));
    for name in ["a\u{0}b", "a\u{202e}b", "a\nb"] {
        let reply = ann.patch("/v1/users/me").json(&json!({"first_name": name})).await;
        reply.refuses_fields(422, "validation_failed", &["first_name"]);
    }
    // B08: a card number has no place in any text.
    let mut order = order_of(&id, 1);
    order["customer_notes"] = json!("my card is 4242 4242 4242 4242");
    ann.post("/v1/orders").json(&order).await.refuses_fields(422, "validation_failed", &["customer_notes"]);
    order["customer_notes"] = json!("n");
    order["shipping_address"] = json!("x".repeat(501));
    ann.post("/v1/orders").json(&order).await.refuses_fields(422, "validation_failed", &["shipping_address"]);
    // Composed and decomposed letters are the same text.
    let named = ann.patch("/v1/users/me").json(&json!({"first_name": "Jose\u{301}"})).await.is(200);
    assert_eq!(named.body["first_name"], "Jos\u{e9}");
}

#[tokio::test]
async fn every_answer_is_secured_and_has_a_request_id() {
    let mart = TestMart::shared().await;
    let ann = customer(mart).await;
    let nobody = mart.client();
    let asked: [(&Client, &str, u16); 5] = [
        (&ann, "/v1/users/me", 200),
        (&nobody, "/v1/users/me", 401),
        (&nobody, "/nowhere", 404),
        (&nobody, "/v1/auth/login", 405),
        (&nobody, "/v1/products", 200),
    ];
    for (client, path, status) in asked {
        let reply = client.get(path).await.is(status);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{reply}");
        let policy = "default-src 'none'; frame-ancestors 'none'";
        assert_eq!(reply.header("content-security-policy"), Some(policy), "{reply}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{reply}");
        assert!(reply.header("x-request-id").is_some(), "{reply}");
    }
    let private = ann.get("/v1/users/me").await.is(200);
    assert_eq!(private.header("cache-control"), Some("no-store"));
    let own = "01940000-0000-7000-8000-00000000abcd";
    assert_eq!(nobody.get("/nowhere").header("x-request-id", own).await.header("x-request-id"), Some(own));
}

#[tokio::test]
async fn who_asks_is_looked_at_before_what_is_asked() {
    let mart = TestMart::shared().await;
    let ann = customer(mart).await;
    let nonsense = json!({"surprise": 1});
    let path = format!("/v1/orders/{MISSING}");
    mart.client().patch(&path).json(&nonsense).await.refuses(401, "unauthorized");
    ann.post("/v1/products").json(&nonsense).await.refuses(403, "forbidden");
    ann.patch(&path).json(&nonsense).await.refuses(404, "not_found");
    let empty = json!({"shipping_address": ADDRESS, "items": []});
    ann.post("/v1/orders").json(&empty).await.refuses_fields(422, "validation_failed", &["items"]);
}

#[tokio::test]
async fn the_mart_tells_how_it_is_and_what_it_can() {
    let client = TestMart::shared().await.client();
    for path in ["/livez", "/readyz", "/metrics", "/docs"] {
        assert!(client.get(path).await.status < 400, "{path}");
    }
    let document = client.get("/v1/openapi.json").await.is(200);
    for path in
        ["/v1/users", "/v1/orders/{id}/payments", "/v1/carts/{user_id}/items", "/v1/inventory/{product_id}"]
    {
        assert!(document.body["paths"][path].is_object(), "{path} is not in the document");
    }
}
