//! The gRPC service of the users service (`mart.users.v1.UserAuth`), for the other services: whose token is
//! this, and where to write to a user. Mutual TLS when certificates are given.

mod client;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::mart::users::v1::user_auth_server::{UserAuth, UserAuthServer};
use proto::mart::users::v1::{
    GetContactRequest, GetContactResponse, ValidateTokenRequest, ValidateTokenResponse,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::auth::{AuthenticationError, Authenticator, role};
use crate::contacts::Contacts;

pub use client::{ClientOptions, RemoteAuthenticator, RemoteContacts};

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often a connection that is idle is asked whether it still leads anywhere.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
/// The longest message: both requests are a token or an id.
const MESSAGE_MAX_BYTES: usize = 16 * 1024;
/// Calls that a connection may have open at the same time.
const CALLS_PER_CONNECTION: usize = 1_024;

/// The certificates of one side: with them both sides prove who they are (mutual TLS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// This side's certificate chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The certificate authority that must have signed the other side's certificate, in PEM.
    pub authority: PathBuf,
}

/// Why gRPC cannot be served or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// A certificate or key cannot be read.
    #[error("{path} cannot be read: name the certificate, its key and the authority as PEM files")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The address of the users service is none.
    #[error(
        "`{0}` is no address of the users service: write one such as http://users:9090, or with certificates https://users:9090"
    )]
    Address(String),
    /// The certificates do not go together, or the server could not go on.
    #[error("gRPC failed")]
    Transport(#[from] tonic::transport::Error),
}

impl TlsFiles {
    fn read(&self) -> Result<(Identity, Certificate), GrpcError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| GrpcError::File { path: path.display().to_string(), source })
        };
        let identity = Identity::from_pem(read(&self.certificate)?, read(&self.key)?);
        Ok((identity, Certificate::from_pem(read(&self.authority)?)))
    }
}

/// What the users service answers to the other services.
pub struct UserAuthService {
    auth: Arc<dyn Authenticator>,
    contacts: Arc<dyn Contacts>,
}

impl UserAuthService {
    /// Answers with what `auth` and `contacts` know. `auth` should not believe old answers: the callers do.
    pub fn new(auth: Arc<dyn Authenticator>, contacts: Arc<dyn Contacts>) -> Self {
        Self { auth, contacts }
    }
}

#[tonic::async_trait]
impl UserAuth for UserAuthService {
    async fn validate_token(
        &self,
        request: Request<ValidateTokenRequest>,
    ) -> Result<Response<ValidateTokenResponse>, Status> {
        let token = request.into_inner().token;
        // A text with a space is a whole header, which is an error of the caller and not of its user.
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(Status::invalid_argument("token must be an access token without its scheme"));
        }
        match self.auth.authenticate(&token).await {
            Ok(caller) => Ok(Response::new(ValidateTokenResponse {
                user_id: caller.user_id.to_string(),
                email: caller.email,
                role: role::name_of(caller.role).to_owned(),
            })),
            Err(AuthenticationError::Invalid) => Err(Status::unauthenticated("the token is not valid")),
            Err(AuthenticationError::Unavailable(error)) => {
                tracing::warn!(%error, "a session could not be checked");
                Err(Status::unavailable("sessions cannot be checked right now"))
            }
        }
    }

    async fn get_contact(
        &self,
        request: Request<GetContactRequest>,
    ) -> Result<Response<GetContactResponse>, Status> {
        let user_id = Uuid::try_parse(&request.into_inner().user_id)
            .map_err(|_| Status::invalid_argument("user_id must be a UUID"))?;
        match self.contacts.contact(user_id).await {
            Ok(Some(contact)) => Ok(Response::new(GetContactResponse {
                email: contact.email,
                phone: contact.phone.unwrap_or_default(),
                name: contact.name,
            })),
            Ok(None) => Err(Status::not_found("there is no such user")),
            Err(error) => {
                tracing::warn!(error = ?error, "a contact could not be looked up");
                Err(Status::unavailable("contacts cannot be looked up right now"))
            }
        }
    }
}

/// Serves the users' gRPC service until `stop` is cancelled and the calls under way are answered.
///
/// # Errors
/// When a certificate cannot be used, or the server cannot go on.
pub async fn serve(
    listener: TcpListener,
    service: UserAuthService,
    tls: Option<&TlsFiles>,
    stop: CancellationToken,
) -> Result<(), GrpcError> {
    let mut server = Server::builder()
        .timeout(DEADLINE)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY));
    if let Some(files) = tls {
        let (identity, authority) = files.read()?;
        server = server.tls_config(ServerTlsConfig::new().identity(identity).client_ca_root(authority))?;
    }
    let service = UserAuthServer::new(service).max_decoding_message_size(MESSAGE_MAX_BYTES);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server.add_service(service).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
    Ok(())
}
