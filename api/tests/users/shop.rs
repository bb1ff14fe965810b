//! A users service of its own for each test, with its projector running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aggregates::identifiers::UserId;
use aggregates::users::{Role, User, UserCommand};
use api::auth::Authenticator;
use api::auth::local::LocalAuthenticator;
use api::keys::KeyFile;
use api::limits::{Limits, RateLimits};
use api::passwords::Passwords;
use api::reads::ServiceReads;
use api::routes;
use api::service::Surroundings;
use api::services::{UsersService, bus};
use api::tokens::Tokens;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use embedded::testing::{self, TestDatabase};
use event_store::{Context, Log, Target};
use projections::projector::Sources;
use projections::{Live, registry};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;
use uuid::Uuid;

/// The password of everybody in these tests.
pub(crate) const PASSWORD: &str = "testPass123";

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A running users service.
pub(crate) struct Shop {
    pub(crate) service: UsersService,
    router: Router,
    _stop: DropGuard,
    _keys: tempfile::TempDir,
    _database: TestDatabase,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let database = testing::database("users_routes").await;
        let log = Log::open("users", &database.url, [7; 32]).expect("the URL is right");
        log.migrate().await.expect("the migrations are applied");
        let sources = Sources { logs: BTreeMap::from([("users", log.clone())]), broker: None };
        registry::ensure_all("users", &log).await.expect("the read models are made");
        let stop = CancellationToken::new();
        // They end with the token.
        drop(registry::run_projectors("users", &log, &sources, &stop));

        let keys = tempfile::tempdir().expect("a folder");
        let tokens = Tokens::load(&KeyFile::Own(keys.path().join("token.pem"))).expect("a key is made");
        let (tokens, users) = (Arc::new(tokens), bus::<User>(&log));
        let auth: Arc<dyn Authenticator> =
            Arc::new(LocalAuthenticator::new(Arc::clone(&tokens), users.clone()));
        let service = UsersService {
            surroundings: Surroundings {
                log: log.clone(),
                auth,
                reads: Arc::new(ServiceReads::new(&log, sources)),
            },
            users,
            directory: Live::new(log),
            tokens,
            passwords: Passwords::cheap_for_tests(),
            limits: Arc::new(Limits::new(RateLimits::OFF)),
            access_token_ttl: Duration::from_secs(900),
        };
        let router = routes::users::routes(service.clone()).split_for_parts().0;
        Self { service, router, _stop: stop.drop_guard(), _keys: keys, _database: database }
    }

    /// Sends a request; `token` is an access token, `key` an `Idempotency-Key`.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = match body {
            Some(body) => {
                request.header("content-type", "application/json").body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        self.answer(request.expect("the request is right")).await
    }

    /// Sends any request.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.expect("a router always answers");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("the body is in memory");
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).expect("answers are JSON")
        };
        Answered { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answered {
        self.send(Method::GET, path, Some(token), None, None).await
    }

    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answered {
        self.send(Method::POST, path, token, None, Some(body)).await
    }

    /// Registers a customer; gives the id.
    pub(crate) async fn register(&self, email: &str, username: &str) -> String {
        let body = json!({"email": email, "username": username, "password": PASSWORD});
        let answered = self.post("/v1/users", None, body).await;
        assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
        answered.body["id"].as_str().expect("a user has an id").to_owned()
    }

    /// Registers an admin, which no route does; gives the id.
    pub(crate) async fn register_admin(&self, email: &str) -> String {
        let user_id = Uuid::now_v7();
        let hash = self.service.passwords.hash(PASSWORD.into()).await.expect("it is hashed");
        let command = UserCommand::Register {
            user_id: UserId(user_id),
            email: email.to_owned(),
            username: None,
            first_name: String::new(),
            last_name: String::new(),
            phone: None,
            password_hash: hash,
            role: Role::Admin,
        };
        let target = Target::New(user_id.to_string());
        let committed =
            self.service.users.execute(target, command, Context::default()).await.expect("it is right");
        let place = event_store::read_your_writes::Place {
            source: "users".to_owned(),
            partition: None,
            position: committed.position,
        };
        let reads = &self.service.surroundings.reads;
        assert!(reads.wait(&place, Duration::from_secs(10)).await.expect("the database is up"));
        user_id.to_string()
    }

    pub(crate) async fn log_in(&self, username: &str, password: &str) -> Answered {
        self.post("/v1/auth/login", None, json!({"username": username, "password": password})).await
    }

    /// Logs in; gives the access token and the refresh token.
    pub(crate) async fn tokens(&self, username: &str) -> (String, String) {
        let answered = self.log_in(username, PASSWORD).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        let text = |name: &str| answered.body[name].as_str().expect("it is a text").to_owned();
        (text("access_token"), text("refresh_token"))
    }
}
