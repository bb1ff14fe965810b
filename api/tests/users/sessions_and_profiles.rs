//! What users and admins see of the routes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::shop::{PASSWORD, Shop};

#[tokio::test]
async fn a_customer_registers_logs_in_and_is_shown() {
    let shop = Shop::open().await;
    let body = json!({
        "email": "John@Example.org", "username": "john", "password": PASSWORD,
        "first_name": "John", "last_name": "Doe",
    });
    let registered = shop.post("/v1/users", None, body).await;
    assert_eq!(registered.status, StatusCode::CREATED, "{registered:?}");
    assert_eq!(registered.body["role"], "customer");
    assert!(!registered.body.to_string().contains("password"));
    let id = registered.body["id"].as_str().expect("a user has an id");
    assert_eq!(registered.headers["location"], format!("/v1/users/{id}"));
    assert_eq!(registered.headers["etag"], "\"1\"");

    for name in ["john", "JOHN", "john@example.ORG"] {
        let logged_in = shop.log_in(name, PASSWORD).await;
        assert_eq!(logged_in.status, StatusCode::OK, "{name}");
        assert_eq!(logged_in.body["user"], registered.body);
        assert_eq!(
            (&logged_in.body["token_type"], &logged_in.body["expires_in"]),
            (&json!("bearer"), &json!(900))
        );
    }
    let form = Request::post("/v1/auth/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("username=john&password={PASSWORD}")));
    let logged_in = shop.answer(form.expect("the request is right")).await;
    assert_eq!(logged_in.status, StatusCode::OK);

    let token = logged_in.body["access_token"].as_str().expect("it is a text");
    assert_eq!(shop.get("/v1/users/me", token).await.body, registered.body);
    assert_eq!(shop.get(&format!("/v1/users/{id}"), token).await.body, registered.body);
    assert_eq!(shop.get("/v1/users", token).await.status, StatusCode::FORBIDDEN);
    let missing = format!("/v1/users/{}", Uuid::now_v7());
    assert_eq!(shop.get(&missing, token).await.status, StatusCode::FORBIDDEN);
    assert_eq!(shop.get("/v1/users/me", "garbage").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn unknown_users_and_wrong_passwords_are_refused_alike() {
    let shop = Shop::open().await;
    shop.register("ann@example.org", "ann").await;
    let unknown = shop.log_in("nobody", PASSWORD).await;
    let wrong = shop.log_in("ann", "testPass124").await;
    assert_eq!((unknown.status, wrong.status), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    assert_eq!(unknown.body, wrong.body);
    assert_eq!(shop.send(Method::GET, "/v1/auth/login", None, None, None).await.status, 405);
}

#[tokio::test]
async fn names_and_addresses_have_one_owner_and_are_free_again_after_erasure() {
    let shop = Shop::open().await;
    let id = shop.register("ann@example.org", "ann").await;
    let again = |email: &str, username: &str| {
        shop.post("/v1/users", None, json!({"email": email, "username": username, "password": PASSWORD}))
    };
    let taken = again("ANN@example.org", "bob").await;
    assert_eq!((taken.status, &taken.body["code"]), (StatusCode::CONFLICT, &json!("email_taken")));
    assert_eq!(taken.body["errors"], json!({"email": ["User with this email already exists."]}));
    let taken = again("bob@example.org", "Ann").await;
    assert_eq!(taken.body["errors"], json!({"username": ["User with this username already exists."]}));
    let both = again("ann@example.org", "ANN").await;
    assert_eq!(
        (both.status, &both.body["errors"]),
        (
            StatusCode::CONFLICT,
            &json!({
                "email": ["User with this email already exists."],
                "username": ["User with this username already exists."],
            })
        )
    );

    shop.register("bob@example.org", "bob").await;
    let (token, refresh) = shop.tokens("ann").await;
    let change = json!({"email": "bob@example.org"});
    let changed = shop.send(Method::PATCH, "/v1/users/me", Some(&token), None, Some(change)).await;
    assert_eq!(changed.status, StatusCode::CONFLICT);
    let change = json!({"email": "ann@new.example.org", "phone": "+49 30 123456"});
    let changed = shop.send(Method::PATCH, "/v1/users/me", Some(&token), None, Some(change)).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(shop.get("/v1/users/me", &token).await.body, changed.body);
    for field in ["role", "is_admin"] {
        let change = json!({ field: "admin" });
        let refused = shop.send(Method::PATCH, "/v1/users/me", Some(&token), None, Some(change)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.body["errors"][field].is_array());
    }

    let path = format!("/v1/users/{id}");
    assert_eq!(shop.send(Method::DELETE, &path, Some(&token), None, None).await.status, 204);
    assert_eq!(shop.get("/v1/users/me", &token).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.post("/v1/auth/refresh", None, json!({"refresh_token": refresh})).await.status, 401);
    assert_eq!(shop.log_in("ann", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    shop.register("ann@new.example.org", "ann").await;
}

#[tokio::test]
async fn an_admin_finds_changes_and_erases_users_and_the_last_one_stays() {
    let shop = Shop::open().await;
    let admin = shop.register_admin("root@example.org").await;
    let (token, _) = shop.tokens("root@example.org").await;
    let id = shop.register("ann_x@example.org", "ann").await;
    shop.register("annox@example.org", "other").await;

    let found = shop.get("/v1/users?search=ANN_X", &token).await;
    assert_eq!(found.body["data"].as_array().map(Vec::len), Some(1), "{found:?}");
    assert_eq!(found.body["data"][0]["id"], id.as_str());
    let first = shop.get("/v1/users?limit=2", &token).await;
    let cursor = first.body["next_cursor"].as_str().expect("there are more").to_owned();
    let rest = shop.get(&format!("/v1/users?limit=2&cursor={cursor}"), &token).await;
    let count = |page: &Value| page["data"].as_array().map_or(0, Vec::len);
    assert_eq!((count(&first.body), count(&rest.body), &rest.body["next_cursor"]), (2, 1, &Value::Null));

    let path = format!("/v1/users/{id}");
    let missing = format!("/v1/users/{}", Uuid::now_v7());
    let change = json!({"role": "staff"});
    let changed = shop.send(Method::PUT, &format!("{path}/role"), Some(&token), None, Some(change)).await;
    assert_eq!((changed.status, &changed.body["role"]), (StatusCode::OK, &json!("staff")));
    let demotion = json!({"role": "customer"});
    let own = format!("/v1/users/{admin}/role");
    let refused = shop.send(Method::PUT, &own, Some(&token), None, Some(demotion)).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::CONFLICT, &json!("last_admin")));
    let wrong = json!({"email": 5});
    for (path, status) in [(&path, 422), (&missing, 404)] {
        let refused = shop.send(Method::PATCH, path, Some(&token), None, Some(wrong.clone())).await;
        assert_eq!(refused.status, status, "{path}");
    }
    assert_eq!(shop.get(&missing, &token).await.status, StatusCode::NOT_FOUND);
    assert_eq!(shop.send(Method::DELETE, &missing, Some(&token), None, None).await.status, 404);
    assert_eq!(shop.send(Method::DELETE, &path, Some(&token), None, None).await.status, 204);
    assert_eq!(shop.get(&path, &token).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_second_use_ends_the_session() {
    let shop = Shop::open().await;
    shop.register("ann@example.org", "ann").await;
    let (access, refresh) = shop.tokens("ann").await;
    let rotate = |token: &str| shop.post("/v1/auth/refresh", None, json!({ "refresh_token": token }));
    assert_eq!(rotate(&access).await.status, StatusCode::UNAUTHORIZED);
    let rotated = rotate(&refresh).await;
    assert_eq!(rotated.status, StatusCode::OK, "{rotated:?}");
    let next = rotated.body["refresh_token"].as_str().expect("it is a text").to_owned();
    assert_eq!(shop.get("/v1/users/me", &access).await.status, StatusCode::OK);
    assert_eq!(rotate(&refresh).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(rotate(&next).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.get("/v1/users/me", &access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.post("/v1/auth/refresh", None, json!({})).await.status, 422);
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let shop = Shop::open().await;
    shop.register("ann@example.org", "ann").await;
    let ((first, _), (second, second_refresh), (third, _)) =
        (shop.tokens("ann").await, shop.tokens("ann").await, shop.tokens("ann").await);
    let listed = shop.get("/v1/users/me/sessions", &first).await;
    let sessions = listed.body["data"].as_array().expect("it is a list").clone();
    let current = sessions.iter().map(|session| session["current"] == true).collect::<Vec<_>>();
    assert_eq!(current, [true, false, false]);

    let last = sessions[2]["id"].as_str().expect("a session has an id");
    let path = format!("/v1/users/me/sessions/{last}");
    assert_eq!(shop.send(Method::DELETE, &path, Some(&first), None, None).await.status, 204);
    assert_eq!(shop.send(Method::DELETE, &path, Some(&first), None, None).await.status, 404);
    assert_eq!(shop.get("/v1/users/me", &third).await.status, StatusCode::UNAUTHORIZED);

    let by_refresh = json!({ "refresh_token": second_refresh });
    assert_eq!(shop.post("/v1/auth/logout", None, by_refresh).await.status, 204);
    assert_eq!(shop.get("/v1/users/me", &second).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.send(Method::POST, "/v1/auth/logout", None, None, None).await.status, 401);
    assert_eq!(shop.send(Method::POST, "/v1/auth/logout", Some(&first), None, None).await.status, 204);
    assert_eq!(shop.get("/v1/users/me", &first).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_password_change_needs_the_present_one_and_ends_the_other_sessions() {
    let shop = Shop::open().await;
    shop.register("ann@example.org", "ann").await;
    let ((mine, _), (other, _)) = (shop.tokens("ann").await, shop.tokens("ann").await);
    let path = "/v1/users/me/password";
    let body = |current: Option<&str>, confirmed: &str| json!({"current_password": current, "new_password": "newPass1234", "confirm_new_password": confirmed});
    let cases = [
        (None, "newPass1235", "confirm_new_password"),
        (None, "newPass1234", "current_password"),
        (Some("testPass124"), "newPass1234", "current_password"),
    ];
    for (current, confirmed, field) in cases {
        let refused = shop.send(Method::PUT, path, Some(&mine), None, Some(body(current, confirmed))).await;
        let fields =
            refused.body["errors"].as_object().map(|errors| errors.keys().cloned().collect::<Vec<_>>());
        assert_eq!((refused.status.as_u16(), fields), (422, Some(vec![field.to_owned()])));
    }
    let right = body(Some(PASSWORD), "newPass1234");
    assert_eq!(shop.send(Method::PUT, path, Some(&mine), None, Some(right)).await.status, 204);
    assert_eq!(shop.get("/v1/users/me", &mine).await.status, StatusCode::OK);
    assert_eq!(shop.get("/v1/users/me", &other).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.log_in("ann", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.log_in("ann", "newPass1234").await.status, StatusCode::OK);
}

#[tokio::test]
async fn copies_of_a_request_are_done_once_and_answers_with_tokens_are_not_kept() {
    let shop = Arc::new(Shop::open().await);
    let body = json!({"email": "ann@example.org", "username": "ann", "password": PASSWORD});
    let copies = (0..20).map(|_| {
        let (shop, body) = (Arc::clone(&shop), body.clone());
        tokio::spawn(
            async move { shop.send(Method::POST, "/v1/users", None, Some("key-1"), Some(body)).await },
        )
    });
    let copies = futures::future::join_all(copies.collect::<Vec<_>>()).await;
    let copies = copies.into_iter().map(|copy| copy.expect("no handler panics")).collect::<Vec<_>>();
    for copy in &copies {
        assert_eq!((copy.status, &copy.body), (StatusCode::CREATED, &copies[0].body));
    }
    let (mine, _) = shop.tokens("ann").await;
    let change = json!({
        "current_password": PASSWORD, "new_password": "newPass1234", "confirm_new_password": "newPass1234",
    });
    let copies = (0..10).map(|_| {
        let (shop, mine, change) = (Arc::clone(&shop), mine.clone(), change.clone());
        let path = "/v1/users/me/password";
        tokio::spawn(
            async move { shop.send(Method::PUT, path, Some(&mine), Some("key-2"), Some(change)).await },
        )
    });
    for copy in futures::future::join_all(copies.collect::<Vec<_>>()).await {
        let copy = copy.expect("no handler panics");
        assert_eq!(copy.status, StatusCode::NO_CONTENT, "{copy:?}");
    }

    let login = json!({"username": "ann", "password": "newPass1234"});
    let login = || shop.send(Method::POST, "/v1/auth/login", None, Some("key-3"), Some(login.clone()));
    let (first, second) = (login().await, login().await);
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
    assert_ne!(first.body["refresh_token"], second.body["refresh_token"]);
}

#[tokio::test]
async fn the_public_key_is_published() {
    let shop = Shop::open().await;
    let published = shop.send(Method::GET, "/.well-known/jwks.json", None, None, None).await;
    assert_eq!((published.status, &published.body["keys"][0]["kty"]), (StatusCode::OK, &json!("OKP")));
}
