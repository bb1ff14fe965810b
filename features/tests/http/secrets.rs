//! Secrets are in no table, topic or log (B08, B09, B32).

use features::databases::SERVICES;
use features::eventually::eventually;
use features::shop::{GOOD_CARD, customer, order, pay, product, registration, unique};
use features::{PATIENCE, TestMart, topics};
use serde_json::json;

#[tokio::test]
async fn card_numbers_passwords_and_tokens_are_kept_nowhere() {
    let mart = TestMart::shared().await;
    let password = unique("Secret9pass");
    let mut body = registration(&unique("carol"));
    body["password"] = json!(password);
    drop(mart.client().post("/v1/users").json(&body).await.is(201));
    let log_in = json!({"username": body["email"], "password": password});
    let tokens = mart.client().post("/v1/auth/login").json(&log_in).await.is(200);
    let (access, refresh) = (tokens.text_of("access_token"), tokens.text_of("refresh_token"));

    let (ann, id) = tokio::join!(customer(mart), product(mart, "1.00", 5));
    let order = order(&ann, &id, 1).await.is(201).text_of("id");
    drop(pay(&ann, &order, GOOD_CARD).await.is(200));

    let kafka = mart.kafka();
    let published = tokio::task::spawn_blocking(move || {
        let records = SERVICES.iter().flat_map(|service| topics::read(&kafka, &mart.topic_of(service)));
        records.map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect::<String>()
    });
    let published = published.await.expect("topics can be read");
    assert!(published.contains(order.as_str()), "the order was published");
    let kept = mart.databases().dump().await;
    assert!(kept.contains(order.as_str()), "the order was stored");
    let grouped = "4242 4242 4242 4242";
    for secret in [GOOD_CARD, grouped, password.as_str(), access.as_str(), refresh.as_str()] {
        let hexadecimal: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret, hexadecimal.as_str()] {
            assert!(!kept.contains(form), "a database holds {form}");
            assert!(!mart.log().contains(form), "the log holds {form}");
            assert!(!published.contains(form), "a topic holds {form}");
        }
    }
    // Personal data is published to nobody, and kept under the person's key only.
    let email = body["email"].as_str().expect("it is a text");
    assert!(!mart.log().contains(email), "the log holds an e-mail address");
    assert!(!published.contains(email), "a topic holds an e-mail address");
}

#[tokio::test]
async fn nothing_is_left_of_who_was_erased() {
    let mart = TestMart::shared().await;
    let (address, product) = (unique("Hideaway"), product(mart, "1.00", 5).await);
    let body = registration(&unique("dora"));
    let key = || unique("key");
    drop(mart.client().post("/v1/users").header("idempotency-key", &key()).json(&body).await.is(201));
    let log_in = json!({"username": body["email"], "password": body["password"]});
    let token = mart.client().post("/v1/auth/login").json(&log_in).await.is(200).text_of("access_token");
    let dora = mart.client().with_token(&token);
    let name = unique("Theodora");
    let named = json!({"first_name": name});
    drop(dora.patch("/v1/users/me").header("idempotency-key", &key()).json(&named).await.is(200));
    let wanted = json!({"items": [{"product_id": product, "quantity": 1}], "shipping_address": address});
    drop(dora.post("/v1/orders").header("idempotency-key", &key()).json(&wanted).await.is(201));
    let email = body["email"].as_str().expect("it is a text");
    let personal = [email, name.as_str(), address.as_str()];
    let before = mart.databases().dump().await;
    assert!(personal.iter().all(|text| before.contains(text)), "it is looked for in the right place");
    drop(dora.delete("/v1/users/me").await.is(204));
    eventually(PATIENCE, async || {
        let left = mart.databases().dump().await;
        personal.iter().find(|text| left.contains(**text)).map_or(Ok(()), |text| Err((*text).to_owned()))
    })
    .await;
}
