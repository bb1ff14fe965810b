//! The users service as the other services see it: one connection each, made when it is first needed, and
//! every call with a deadline.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::mart::users::v1::user_auth_client::UserAuthClient;
use proto::mart::users::v1::{GetContactRequest, ValidateTokenRequest, ValidateTokenResponse};
use serde::Deserialize;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};
use uuid::Uuid;

use super::{DEADLINE, GrpcError, KEEP_ALIVE_EVERY, TlsFiles};
use crate::auth::{AuthenticationError, Authenticator, Caller, role};
use crate::contacts::{Contact, Contacts, ContactsError};
use crate::trace_context;

/// Where the users service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Its address: `http://users:9090`, or with certificates `https://users:9090`.
    pub url: String,
    /// The certificates, when the connection is to be made with mutual TLS.
    pub tls: Option<TlsFiles>,
}

impl ClientOptions {
    /// A connection that is made when it is first needed, and made again when it breaks.
    fn channel(&self) -> Result<Channel, GrpcError> {
        // A scheme that does not go with the certificates would only fail at the first call.
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(self.url.clone())
            .ok()
            .filter(|endpoint| endpoint.uri().scheme_str() == Some(scheme))
            .ok_or_else(|| GrpcError::Address(self.url.clone()))?
            .connect_timeout(DEADLINE)
            .timeout(DEADLINE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(DEADLINE)
            .keep_alive_while_idle(true);
        if let Some(files) = &self.tls {
            let (identity, authority) = files.read()?;
            endpoint =
                endpoint.tls_config(ClientTlsConfig::new().identity(identity).ca_certificate(authority))?;
        }
        Ok(endpoint.connect_lazy())
    }
}

/// Asks the users service whose token it is.
#[derive(Clone)]
pub struct RemoteAuthenticator {
    client: UserAuthClient<Channel>,
}

impl RemoteAuthenticator {
    /// Asks the users service at an address. Must be made within a runtime; nothing is contacted yet.
    ///
    /// # Errors
    /// When the address or a certificate is none.
    pub fn new(options: &ClientOptions) -> Result<Self, GrpcError> {
        Ok(Self { client: UserAuthClient::new(options.channel()?) })
    }
}

#[async_trait]
impl Authenticator for RemoteAuthenticator {
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthenticationError> {
        let asked = request(ValidateTokenRequest { token: token.to_owned() });
        let answer = match self.client.clone().validate_token(asked).await {
            Ok(response) => response.into_inner(),
            Err(status) if matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument) => {
                return Err(AuthenticationError::Invalid);
            }
            Err(status) => return Err(AuthenticationError::Unavailable(Box::new(status))),
        };
        caller(token, answer).ok_or_else(|| {
            AuthenticationError::Unavailable("the users service answered what cannot be read".into())
        })
    }
}

/// Asks the users service where to write to a user.
#[derive(Clone)]
pub struct RemoteContacts {
    client: UserAuthClient<Channel>,
}

impl RemoteContacts {
    /// Asks the users service at an address. Must be made within a runtime; nothing is contacted yet.
    ///
    /// # Errors
    /// When the address or a certificate is none.
    pub fn new(options: &ClientOptions) -> Result<Self, GrpcError> {
        Ok(Self { client: UserAuthClient::new(options.channel()?) })
    }
}

#[async_trait]
impl Contacts for RemoteContacts {
    async fn contact(&self, user_id: Uuid) -> Result<Option<Contact>, ContactsError> {
        let asked = request(GetContactRequest { user_id: user_id.to_string() });
        match self.client.clone().get_contact(asked).await {
            Ok(response) => {
                let contact = response.into_inner();
                let phone = Some(contact.phone).filter(|phone| !phone.is_empty());
                Ok(Some(Contact { email: contact.email, phone, name: contact.name }))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(ContactsError(Box::new(status))),
        }
    }
}

/// A request with its deadline, which the other side is told too, and the trace it belongs to.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    let trace = trace_context::current().and_then(|trace| MetadataValue::try_from(trace.to_string()).ok());
    if let Some(trace) = trace {
        request.metadata_mut().insert("traceparent", trace);
    }
    request
}

/// The part of a token that the users service does not repeat in its answer.
#[derive(Deserialize)]
struct SessionClaim {
    sub: Uuid,
    sid: Uuid,
}

/// The caller behind a token that the users service has just accepted: only therefore may the session be read
/// from it without looking at the signature again.
fn caller(token: &str, answer: ValidateTokenResponse) -> Option<Caller> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claim: SessionClaim = serde_json::from_slice(&payload).ok()?;
    let user_id = Uuid::try_parse(&answer.user_id).ok().filter(|user_id| *user_id == claim.sub)?;
    Some(Caller { user_id, session_id: claim.sid, role: role::named(&answer.role)?, email: answer.email })
}

#[cfg(test)]
mod tests {
    use aggregates::users::Role;

    use super::*;

    fn token(user: Uuid, session: Uuid) -> String {
        let payload = serde_json::json!({ "sub": user, "sid": session, "role": "customer" });
        format!("header.{}.signature", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    fn answer(user_id: &str, role: &str) -> ValidateTokenResponse {
        ValidateTokenResponse {
            user_id: user_id.to_owned(),
            email: "ann@example.org".to_owned(),
            role: role.to_owned(),
        }
    }

    #[test]
    fn the_caller_is_who_the_users_service_says_with_the_session_of_the_token() {
        let (user, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let expected = Caller {
            user_id: user,
            session_id: session,
            role: Role::Staff,
            email: "ann@example.org".to_owned(),
        };
        assert_eq!(caller(&token(user, session), answer(&user.to_string(), "staff")), Some(expected));
    }

    #[test]
    fn an_answer_that_does_not_fit_the_token_is_not_believed() {
        let (user, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let token = token(user, session);
        assert_eq!(caller(&token, answer(&session.to_string(), "staff")), None);
        assert_eq!(caller(&token, answer(&user.to_string(), "owner")), None);
        assert_eq!(caller("no token", answer(&user.to_string(), "staff")), None);
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_at_once() {
        for url in ["", "users:9090", "not an address", "/path", "https://users:9090"] {
            let options = ClientOptions { url: url.to_owned(), tls: None };
            assert!(matches!(options.channel(), Err(GrpcError::Address(_))), "{url}");
        }
        let options = ClientOptions { url: "http://users:9090".to_owned(), tls: None };
        assert!(options.channel().is_ok());
    }
}
