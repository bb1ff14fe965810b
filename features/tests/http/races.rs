//! Many at once: copies of a request, versions, stock; and reading what was written.

use features::shop::{
    DECLINED_CARD, customer, order, order_of, pay, product, registration, stock, stock_becomes, unique,
};
use features::{Client, Reply, TestMart};
use futures::future::join_all;
use serde_json::{Value, json};

#[tokio::test]
async fn twenty_copies_of_an_order_are_one_order() {
    let mart = TestMart::shared().await;
    let (ann, product) = tokio::join!(customer(mart), product(mart, "2.00", 30));
    let key = unique("key");
    let copy = |quantity: i64| {
        ann.post("/v1/orders").header("idempotency-key", &key).json(&order_of(&product, quantity))
    };
    let replies = join_all((0..20).map(|_| copy(1).into_future())).await;
    for reply in &replies {
        assert_eq!((reply.status, &reply.body), (201, &replies[0].body), "{reply}");
    }
    assert_eq!(ann.all("/v1/orders").await.len(), 1);
    assert_eq!(copy(1).await.is(201).header("idempotency-replayed"), Some("true"));
    copy(2).await.refuses(422, "idempotency_key_reused");
    // A key belongs to who uses it.
    let bob = customer(mart).await;
    let other =
        bob.post("/v1/orders").header("idempotency-key", &key).json(&order_of(&product, 1)).await.is(201);
    assert_ne!(other.body["id"], replies[0].body["id"]);
    for wrong in ["", &"k".repeat(256), "with space"] {
        let reply =
            ann.post("/v1/orders").header("idempotency-key", wrong).json(&order_of(&product, 1)).await;
        reply.refuses(400, "bad_header");
    }
}

/// Each sends its own body under the same key, at the same time; gives the winner's place and answer.
async fn race(path: &str, client: &Client, bodies: [Value; 2]) -> (usize, Reply) {
    let key = unique("key");
    let send = |body: &Value| client.post(path).header("idempotency-key", &key).json(body).into_future();
    let replies: [Reply; 2] = join_all(bodies.iter().map(send)).await.try_into().expect("there are two");
    let won = replies.iter().position(|reply| reply.status == 201).expect("one is done");
    let [first, second] = replies;
    let (winner, loser) = if won == 0 { (first, second) } else { (second, first) };
    loser.refuses(422, "idempotency_key_reused");
    let again = send(&bodies[won]).await.is(201);
    assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &winner.body));
    send(&bodies[1 - won]).await.refuses(422, "idempotency_key_reused");
    (won, winner)
}

#[tokio::test]
async fn of_two_requests_with_one_key_one_is_done_and_keeps_its_answer() {
    let mart = TestMart::shared().await;
    let (ann, product) = tokio::join!(customer(mart), product(mart, "2.00", 30));
    for _race in 0..5 {
        let (won, order) = race("/v1/orders", &ann, [order_of(&product, 1), order_of(&product, 2)]).await;
        assert_eq!(order.body["items"][0]["quantity"], won + 1, "{order}");
        let people = [registration(&unique("ann")), registration(&unique("bob"))];
        let emails = people.clone().map(|person| person["email"].clone());
        let (won, user) = race("/v1/users", &mart.client(), people).await;
        assert_eq!(user.body["email"], emails[won], "somebody else's answer");
    }
    assert_eq!(ann.all("/v1/orders").await.len(), 5);
}

#[tokio::test]
async fn what_is_refused_after_it_was_written_down_is_in_the_next_read_too() {
    let mart = TestMart::shared().await;
    let (ann, product) = tokio::join!(customer(mart), product(mart, "2.00", 1));
    for _order in 0..10 {
        let refused = order(&ann, &product, 2).await;
        let position = refused.header("mart-position").unwrap_or_default().to_owned();
        assert!(position.starts_with("orders:"), "{refused}");
        refused.refuses(409, "insufficient_stock");
        let newest = ann.get("/v1/orders?limit=1").await.is(200);
        assert_eq!(newest.body["data"][0]["order_status"], "rejected", "{newest}");
    }
    let id = order(&ann, &product, 1).await.is(201).text_of("id");
    for _attempt in 0..5 {
        let declined = pay(&ann, &id, DECLINED_CARD).await;
        assert!(declined.header("mart-position").is_some_and(|place| place.starts_with("payments:")));
        declined.refuses(402, "card_declined");
        assert_eq!(ann.all("/v1/payments").await[0]["status"], "declined");
    }
}

#[tokio::test]
async fn what_another_service_wrote_is_waited_for_by_whoever_reacts_to_it() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    for _product in 0..10 {
        let draft = json!({"name": unique("lamp"), "price": "2.00", "opening_stock": 7});
        let listed = admin.post("/v1/products").json(&draft).await.is(201);
        let position = listed.header("mart-position").expect("a write has a position").to_owned();
        let path = format!("/v1/inventory/{}", listed.text_of("id"));
        let level = admin.get(&path).header("mart-min-position", &position).await.is(200);
        assert_eq!(level.body["on_hand"], 7);
    }
    let ahead = admin.get("/v1/inventory").header("mart-min-position", "catalog:999999999").await;
    ahead.refuses(503, "service_unavailable");
    drop(admin.get("/v1/products").header("mart-min-position", "notifications:999999999").await.is(200));
}

#[tokio::test]
async fn of_parallel_writes_of_one_version_one_succeeds() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    let id = product(mart, "2.00", 0).await;
    let path = format!("/v1/products/{id}");
    let version = admin.get(&path).await.is(200).header("etag").unwrap_or_default().to_owned();
    let write = |cents: usize| {
        let body = json!({"price": format!("3.{cents:02}")});
        admin.patch(&path).header("if-match", &version).json(&body).into_future()
    };
    let replies = join_all((10..18).map(write)).await;
    let (won, lost): (Vec<Reply>, Vec<Reply>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for reply in lost {
        reply.refuses(412, "version_changed");
    }
    assert_eq!(admin.get(&path).await.is(200).body, won[0].body);
    admin
        .patch(&path)
        .header("if-match", "abc")
        .json(&json!({"price": "1.00"}))
        .await
        .refuses(400, "bad_header");
}

#[tokio::test]
async fn one_product_sold_to_fifty_at_once_is_never_oversold() {
    let mart = TestMart::shared().await;
    let product = product(mart, "2.00", 20).await;
    let buyers = join_all((0..5).map(|_| customer(mart))).await;
    let replies = join_all((0..50).map(|buyer| order(&buyers[buyer % buyers.len()], &product, 1))).await;
    let sold = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(sold, 20);
    for reply in replies.into_iter().filter(|reply| reply.status != 201) {
        reply.refuses(409, "insufficient_stock");
    }
    let admin = mart.admin().await;
    stock_becomes(&admin, &product, [20, 0, 20, 0]).await;
}

#[tokio::test]
async fn every_write_is_in_the_next_read() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    let (ann, id) = tokio::join!(customer(mart), product(mart, "2.00", 0));
    for pieces in 1..=10 {
        let added =
            admin.post(&format!("/v1/inventory/{id}/additions")).json(&json!({"quantity": 1})).await.is(200);
        assert_eq!(stock(&admin, &id).await[0], pieces, "{added}");
        let name = json!({"first_name": format!("Ann{pieces}")});
        let patched = ann.patch("/v1/users/me").json(&name).await.is(200);
        let position = patched.header("mart-position").expect("a write has a position").to_owned();
        assert!(position.starts_with("users:"), "{position}");
        let read = ann.get("/v1/users/me").header("mart-min-position", &position).await.is(200);
        assert_eq!(read.body["first_name"], name["first_name"]);
        let price = json!({"price": format!("2.{pieces:02}")});
        drop(admin.patch(&format!("/v1/products/{id}")).json(&price).await.is(200));
        let listed = admin.get(&format!("/v1/products/{id}")).await.is(200);
        assert_eq!(listed.body["price"], price["price"]);
    }
    let cart = json!({"product_id": id, "quantity": 1});
    drop(ann.post("/v1/carts/me/items").json(&cart).await.is(201));
    let placed = order(&ann, &id, 2).await.is(201);
    assert_eq!(ann.all("/v1/orders").await, [placed.body]);
}

#[tokio::test]
async fn a_position_that_is_not_there_yet_is_waited_for_in_vain() {
    let ann = customer(TestMart::shared().await).await;
    let read = async |position: &str| ann.get("/v1/users/me").header("mart-min-position", position).await;
    let reply = read("users:999999999").await.refuses(503, "service_unavailable");
    assert!(reply.header("retry-after").is_some());
    for wrong in ["users", "users:x", "users:-1", ":1"] {
        read(wrong).await.refuses(400, "bad_header");
    }
}
