//! Customers: registration, log-in, who may see and change whom (T-U01 to T-U28, T-M01 to T-M06).

use features::mart::Setup;
use features::shop::{self, PASSWORD, customer, registration, unique};
use features::{PATIENCE, TestMart, eventually};
use serde_json::json;

use crate::MISSING;

#[tokio::test]
async fn a_registration_names_every_field_that_is_not_right() {
    let client = TestMart::shared().await.client();
    let register = async |body| client.post("/v1/users").json(&body).await;
    let nameless = register(json!({"first_name": "John", "last_name": "Doe"})).await;
    nameless.refuses_fields(422, "validation_failed", &["email", "password"]);
    let wrong = register(json!({"email": "invalid_email.com", "password": "testP"})).await;
    wrong.refuses_fields(422, "validation_failed", &["email", "password"]);
    // B01: nobody makes himself an admin, also not by a field that is not there.
    for field in ["role", "is_admin", "id"] {
        let mut body = registration(&unique("eve"));
        body[field] = json!("admin");
        register(body).await.refuses_fields(422, "validation_failed", &[field]);
    }
}

#[tokio::test]
async fn a_registered_customer_is_shown_without_the_password_and_once() {
    let client = TestMart::shared().await.client();
    let body = registration(&unique("john"));
    let user = client.post("/v1/users").json(&body).await.is(201);
    for field in ["email", "username", "first_name", "last_name"] {
        assert_eq!(user.body[field], body[field], "{user}");
    }
    assert_eq!(user.body["role"], "customer");
    assert!(!user.text.contains("password") && !user.text.contains(PASSWORD), "{user}");

    client.post("/v1/users").json(&body).await.refuses(409, "email_taken");
    let mut other = registration(&unique("other"));
    other["username"] = body["username"].clone();
    let taken = client.post("/v1/users").json(&other).await;
    taken.refuses_fields(409, "username_taken", &["username"]);
    // B36: the case of an address makes no other account.
    let mut shouted = registration(&unique("shouted"));
    shouted["email"] = json!(body["email"].as_str().map(str::to_uppercase));
    let taken = client.post("/v1/users").json(&shouted).await;
    taken.refuses_fields(409, "email_taken", &["email"]);
}

#[tokio::test]
async fn of_many_who_register_the_same_address_at_once_one_succeeds() {
    let client = TestMart::shared().await.client();
    let email = format!("{}@example.org", unique("crowd"));
    let attempts = (0..6).map(|_| {
        let mut body = registration(&unique("crowd"));
        body["email"] = json!(email);
        client.post("/v1/users").json(&body).send()
    });
    let replies = futures::future::try_join_all(attempts).await.expect("all are answered");
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn a_log_in_is_refused_alike_for_the_unknown_and_the_wrong_password() {
    let mart = TestMart::shared().await;
    let ann = customer(mart).await;
    let client = mart.client();
    let try_in = async |name: &str, password: &str| {
        let body = json!({"username": name, "password": password});
        let mut body =
            client.post("/v1/auth/login").json(&body).await.refuses(401, "invalid_credentials").body;
        body["instance"] = json!(null);
        body
    };
    assert_eq!(try_in(&ann.email, "wrongPass1").await, try_in(&unique("nobody"), PASSWORD).await);

    // As clients of OAuth 2.0 send it.
    let form = format!("grant_type=password&username={}&password={PASSWORD}&scope=&client_id=", ann.username);
    let reply = client.post("/v1/auth/login").body("application/x-www-form-urlencoded", form).await.is(200);
    assert_eq!(reply.body["token_type"], "bearer");
    assert_eq!(reply.body["user"], ann.get("/v1/users/me").await.is(200).body);
    assert!(reply.body["expires_in"].is_u64() && reply.body["refresh_token"].is_string(), "{reply}");
}

#[tokio::test]
async fn a_refresh_token_works_once_and_only_as_what_it_is() {
    let mart = TestMart::shared().await;
    let ann = customer(mart).await;
    let client = mart.client();
    let refresh =
        async |token: &str| client.post("/v1/auth/refresh").json(&json!({"refresh_token": token})).await;
    // B02: an access token is no refresh token, and the other way round.
    refresh(ann.token().unwrap_or_default()).await.refuses(401, "unauthorized");
    client.with_token(&ann.refresh_token).get("/v1/users/me").await.refuses(401, "unauthorized");
    let pair = refresh(&ann.refresh_token).await.is(200);
    assert_ne!(pair.text_of("refresh_token"), ann.refresh_token);
    refresh(&ann.refresh_token).await.refuses(401, "unauthorized");
    // Who shows an old one may be a thief: the whole session ends.
    refresh(&pair.text_of("refresh_token")).await.refuses(401, "unauthorized");
}

#[tokio::test]
async fn customers_see_themselves_and_nobody_else() {
    let mart = TestMart::shared().await;
    let (ann, bob) = tokio::join!(customer(mart), customer(mart));
    ann.get("/v1/users").await.refuses(403, "forbidden");
    let ann_path = format!("/v1/users/{}", ann.id);
    assert_eq!(ann.get(&ann_path).await.is(200).body, ann.get("/v1/users/me").await.is(200).body);
    // T-U12 to T-U19: the same answer whether there is such a user or not.
    for other in [bob.id.as_str(), MISSING] {
        let path = format!("/v1/users/{other}");
        ann.get(&path).await.refuses(403, "forbidden");
        ann.patch(&path).json(&json!({"first_name": "Eve"})).await.refuses(403, "forbidden");
        ann.delete(&path).await.refuses(403, "forbidden");
    }
    assert_eq!(bob.get("/v1/users/me").await.is(200).body["first_name"], "John");
    let promoted = ann.put(&format!("{ann_path}/role")).json(&json!({"role": "admin"})).await;
    promoted.refuses(403, "forbidden");
    let promoted = ann.patch(&ann_path).json(&json!({"role": "admin"})).await;
    promoted.refuses_fields(422, "validation_failed", &["role"]);
}

#[tokio::test]
async fn admins_find_change_and_erase_users() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    let (ann, bob) = tokio::join!(customer(mart), customer(mart));
    let found = admin.get(&format!("/v1/users?search={}", ann.email)).await.is(200);
    assert_eq!(found.body["data"], json!([ann.get("/v1/users/me").await.is(200).body]));
    // B58: wildcards are letters like others.
    assert_eq!(admin.get("/v1/users?search=%25%25zz_").await.is(200).body["data"], json!([]));
    let everybody = admin.all("/v1/users").await;
    assert!(everybody.iter().any(|user| user["role"] == "admin"));
    assert!(everybody.iter().any(|user| user["id"] == ann.id.as_str()));

    let path = format!("/v1/users/{}", bob.id);
    let email = format!("patched.{}", bob.email);
    let patched = admin.patch(&path).json(&json!({"email": email})).await.is(200);
    assert_eq!(admin.get(&path).await.is(200).body, patched.body);
    assert_eq!(patched.body["email"], email);
    drop(admin.delete(&path).await.is(204));
    admin.get(&path).await.refuses(404, "not_found");
    for method in ["GET", "PATCH", "DELETE"] {
        let method = method.parse().expect("it is a method");
        let call = admin.call(method, &format!("/v1/users/{MISSING}")).json(&json!({"first_name": "X"}));
        call.await.refuses(404, "not_found");
    }
}

#[tokio::test]
async fn customers_change_their_own_profile_and_nothing_else_changes() {
    let mart = TestMart::shared().await;
    let (ann, bob) = tokio::join!(customer(mart), customer(mart));
    let before = ann.get("/v1/users/me").await.is(200).body;
    let taken = ann.patch("/v1/users/me").json(&json!({"email": bob.email})).await;
    taken.refuses_fields(409, "email_taken", &["email"]);
    let email = format!("patched.{}", ann.email);
    let patched = ann.patch("/v1/users/me").json(&json!({"email": email})).await.is(200);
    let mut wanted = before;
    wanted["email"] = json!(email);
    assert_eq!(patched.body, wanted);
    assert_eq!(ann.get("/v1/users/me").await.is(200).body, wanted);
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_ends_other_sessions() {
    let mart = TestMart::shared().await;
    let ann = customer(mart).await;
    let client = mart.client();
    let elsewhere = client.with_token(&shop::log_in(&client, &ann.email, PASSWORD).await);
    let change = async |current: &str, new: &str, confirmed: &str| {
        let body =
            json!({"current_password": current, "new_password": new, "confirm_new_password": confirmed});
        ann.put("/v1/users/me/password").json(&body).await
    };
    let new = "aBetterPass9";
    change(PASSWORD, new, "another9").await.refuses_fields(
        422,
        "validation_failed",
        &["confirm_new_password"],
    );
    change("wrongPass1", new, new).await.refuses_fields(422, "validation_failed", &["current_password"]);
    drop(change(PASSWORD, new, new).await.is(204));
    elsewhere.get("/v1/users/me").await.refuses(401, "unauthorized");
    let old = json!({"username": ann.email, "password": PASSWORD});
    client.post("/v1/auth/login").json(&old).await.refuses(401, "invalid_credentials");
    shop::log_in(&client, &ann.email, new).await;
}

#[tokio::test]
async fn who_logs_out_or_leaves_is_out_everywhere() {
    let mart = TestMart::shared().await;
    let (ann, bob) = tokio::join!(customer(mart), customer(mart));
    drop(ann.post("/v1/auth/logout").await.is(204));
    drop(bob.delete("/v1/users/me").await.is(204));
    for gone in [&ann, &bob] {
        gone.get("/v1/users/me").await.refuses(401, "unauthorized");
        eventually(PATIENCE, async || {
            let reply = gone.get("/v1/orders").await;
            if reply.status == 401 { Ok(()) } else { Err(reply.to_string()) }
        })
        .await;
    }
    // B43: the cart goes with its owner.
    let admin = mart.admin().await;
    eventually(PATIENCE, async || {
        let reply = admin.get(&format!("/v1/carts/{}", bob.id)).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn tokens_that_are_missing_forged_or_of_the_wrong_scheme_are_refused_alike() {
    let mart = TestMart::shared().await;
    let ann = customer(mart).await;
    let token = ann.token().unwrap_or_default();
    let (head, signature) = token.rsplit_once('.').expect("a token has three parts");
    let forged = format!("Bearer {head}.{}", signature.chars().rev().collect::<String>());
    let unsigned = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.";
    let client = mart.client();
    for path in ["/v1/users", "/v1/users/me", "/v1/carts/me", "/v1/orders", "/v1/payments", "/v1/inventory"] {
        let reply = client.get(path).await.refuses(401, "unauthorized");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        for header in ["qwasddqwd", "Beareraaa qwasddqwd", "Bearer qwasddqwd", "Bearer", &forged, unsigned] {
            client.get(path).header("authorization", header).await.refuses(401, "unauthorized");
        }
    }
    // T-M34: who pays is looked at first, whatever is paid.
    let reply =
        client.post(&format!("/v1/orders/{MISSING}/payments")).json(&shop::card(shop::GOOD_CARD)).await;
    reply.refuses(401, "unauthorized");
}

#[tokio::test]
async fn an_expired_token_is_refused_and_guessing_is_slowed_down() {
    let mart = Setup::new().await.with("MART_ACCESS_TOKEN_TTL", "1s").with("MART_RATE_LIMITS", "login=3/h");
    let mart = mart.start().await;
    let ann = customer(&mart).await;
    eventually(PATIENCE, async || {
        let reply = ann.get("/v1/users/me").await;
        if reply.status == 401 { Ok(()) } else { Err(reply.to_string()) }
    })
    .await;
    // B38: the customer's own log-in was the first of three.
    let body = json!({"username": ann.username, "password": "wrongPass1"});
    let attempts = [401, 401, 429].map(|_| mart.client().post("/v1/auth/login").json(&body));
    let mut statuses = Vec::new();
    for attempt in attempts {
        statuses.push(attempt.await);
    }
    assert_eq!(statuses.iter().map(|reply| reply.status).collect::<Vec<_>>(), [401, 401, 429]);
    assert!(statuses[2].header("retry-after").is_some());
}
