//! Other services ask the users service over gRPC.

use std::sync::Arc;

use aggregates::users::Role;
use api::auth::{AuthenticationError, Authenticator};
use api::contacts::{Contact, Contacts, LocalContacts};
use api::grpc::{self, ClientOptions, RemoteAuthenticator, RemoteContacts, TlsFiles, UserAuthService};
use axum::http::Method;
use proto::mart::users::v1::user_auth_client::UserAuthClient;
use proto::mart::users::v1::{GetContactRequest, ValidateTokenRequest};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::certificates::Authority;
use crate::shop::Shop;

struct Serving {
    options: ClientOptions,
    stop: CancellationToken,
    task: JoinHandle<Result<(), grpc::GrpcError>>,
}

async fn serve(shop: &Shop) -> Serving {
    serve_with(shop, None).await
}

async fn serve_with(shop: &Shop, tls: Option<TlsFiles>) -> Serving {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().expect("it is bound"));
    let contacts = Arc::new(LocalContacts::new(shop.service.users.clone()));
    let service = UserAuthService::new(Arc::clone(&shop.service.surroundings.auth), contacts);
    let stop = CancellationToken::new();
    let token = stop.clone();
    let task = tokio::spawn(async move { grpc::serve(listener, service, tls.as_ref(), token).await });
    Serving { options: ClientOptions { url, tls: None }, stop, task }
}

#[tokio::test]
async fn a_token_is_valid_until_its_session_ends() {
    let shop = Shop::open().await;
    let id = shop.register("ann@example.org", "ann").await;
    let (token, _) = shop.tokens("ann").await;
    let serving = serve(&shop).await;
    let remote = RemoteAuthenticator::new(&serving.options).expect("the address is right");
    let caller = remote.authenticate(&token).await.expect("the session lives");
    let local = shop.service.surroundings.auth.authenticate(&token).await.expect("the session lives");
    assert_eq!(caller, local);
    assert_eq!((caller.user_id.to_string(), caller.role), (id, Role::Customer));

    for wrong in ["garbage", "", "Bearer x"] {
        let refused = remote.authenticate(wrong).await;
        assert!(matches!(refused, Err(AuthenticationError::Invalid)), "{wrong}");
    }
    shop.send(Method::POST, "/v1/auth/logout", Some(&token), None, None).await;
    assert!(matches!(remote.authenticate(&token).await, Err(AuthenticationError::Invalid)));

    serving.stop.cancel();
    serving.task.await.expect("it does not panic").expect("it ends in order");
    assert!(matches!(remote.authenticate(&token).await, Err(AuthenticationError::Unavailable(_))));
}

#[tokio::test]
async fn a_contact_is_told_until_the_user_is_erased() {
    let shop = Shop::open().await;
    let id = shop.register("ann@example.org", "ann").await;
    let (token, _) = shop.tokens("ann").await;
    let serving = serve(&shop).await;
    let remote = RemoteContacts::new(&serving.options).expect("the address is right");
    let user_id: Uuid = id.parse().expect("it is a UUID");
    let expected = Contact { email: "ann@example.org".to_owned(), phone: None, name: "ann".to_owned() };
    assert_eq!(remote.contact(user_id).await.expect("it answers"), Some(expected));
    assert_eq!(remote.contact(Uuid::now_v7()).await.expect("it answers"), None);
    let erased = shop.send(Method::DELETE, "/v1/users/me", Some(&token), None, None).await;
    assert_eq!(erased.status, 204);
    assert_eq!(remote.contact(user_id).await.expect("it answers"), None);
}

#[tokio::test]
async fn refusals_have_the_codes_of_the_interface() {
    let shop = Shop::open().await;
    let serving = serve(&shop).await;
    let endpoint = Endpoint::from_shared(serving.options.url.clone()).expect("the address is right");
    let mut client = UserAuthClient::new(endpoint.connect_lazy());
    for (token, code) in [("garbage", Code::Unauthenticated), ("Bearer x", Code::InvalidArgument)] {
        let status = client.validate_token(ValidateTokenRequest { token: token.to_owned() }).await;
        assert_eq!(status.expect_err("it is refused").code(), code, "{token}");
    }
    for (user_id, code) in
        [("x".to_owned(), Code::InvalidArgument), (Uuid::now_v7().to_string(), Code::NotFound)]
    {
        let status = client.get_contact(GetContactRequest { user_id }).await;
        assert_eq!(status.expect_err("it is refused").code(), code);
    }
}

#[tokio::test]
async fn with_certificates_both_sides_prove_who_they_are() {
    api::tls::install_provider();
    let shop = Shop::open().await;
    shop.register("ann@example.org", "ann").await;
    let (token, _) = shop.tokens("ann").await;
    let folder = tempfile::tempdir().expect("there is room");
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let serving = serve_with(&shop, Some(ours.signs(folder.path(), "users"))).await;
    let url = serving.options.url.clone();
    let asks = async |url: &str, tls: Option<TlsFiles>| {
        let options = ClientOptions { url: url.to_owned(), tls };
        RemoteAuthenticator::new(&options).expect("the address is right").authenticate(&token).await
    };

    let orders = ours.signs(folder.path(), "orders");
    let caller = asks(&url, Some(orders.clone())).await.expect("both are who they say");
    assert_eq!(caller.email, "ann@example.org");

    let stranger = others.signs(folder.path(), "stranger");
    let pretending = TlsFiles { authority: orders.authority.clone(), ..stranger.clone() };
    let misled = TlsFiles { authority: stranger.authority.clone(), ..orders.clone() };
    for (who, tls) in
        [("a client of another authority", pretending), ("a client that trusts another", misled)]
    {
        let refused = asks(&url, Some(tls)).await;
        assert!(matches!(refused, Err(AuthenticationError::Unavailable(_))), "{who}: {refused:?}");
    }
    let plain = asks(&url.replace("https", "http"), None).await;
    assert!(matches!(plain, Err(AuthenticationError::Unavailable(_))), "without certificates: {plain:?}");
    // None of them kept the server from going on.
    asks(&url, Some(orders)).await.expect("both are who they say");
}
