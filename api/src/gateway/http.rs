//! A payment gateway behind HTTP, as docs/gateway.md describes it. Whatever is not a clear answer is none: the
//! caller asks again under the same key, and the gateway answers the same key with the same charge.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use aggregates::money::Money;

use super::{Card, CardToken, Gateway, GatewayError, Reply};

/// How long the gateway may take to answer: less than who calls it waits, so that the answer is the gateway's.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);
/// How long it may take to take a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// The longest reason of a refusal that is kept, in characters.
const REASON_MAX_CHARS: usize = 100;

/// A gateway behind HTTP.
#[derive(Debug)]
pub struct HttpGateway {
    client: Client,
    base: Url,
    key: Option<SecretString>,
}

/// Why a gateway cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpGatewayError {
    /// The address is none.
    #[error("MART_GATEWAY must be simulated, or the address of a gateway such as https://pay.example.org")]
    Address,
    /// No client can be made.
    #[error("no connection to a payment gateway can be prepared")]
    Client(#[source] reqwest::Error),
}

impl HttpGateway {
    /// The gateway at an address, asked with a key as bearer token when there is one. Nothing is connected yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &str, key: Option<SecretString>) -> Result<Self, HttpGatewayError> {
        let mut base: Url = address.parse().map_err(|_| HttpGatewayError::Address)?;
        if !["http", "https"].contains(&base.scheme()) || base.cannot_be_a_base() {
            return Err(HttpGatewayError::Address);
        }
        // A path without a slash at its end would lose its last part when another is joined to it.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let client = Client::builder()
            .timeout(ANSWERED_WITHIN)
            .connect_timeout(CONNECTED_WITHIN)
            // A gateway that sends elsewhere could send a charge there twice.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(HttpGatewayError::Client)?;
        Ok(Self { client, base, key })
    }

    fn url(&self, path: &[&str]) -> Result<Url, GatewayError> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| GatewayError::NoAnswer)?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// Sends a request; gives the status and the body.
    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), GatewayError> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        };
        // The error is not logged: it names the address, which may hold a token of a card.
        let mut answer = request.send().await.map_err(|_| GatewayError::NoAnswer)?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|_| GatewayError::NoAnswer)? {
            if body.len() + part.len() > ANSWER_MAX_BYTES {
                return Err(GatewayError::NoAnswer);
            }
            body.extend_from_slice(&part);
        }
        Ok((answer.status(), body))
    }

    /// Asks for something to be done with money, under a key.
    async fn ask(&self, what: &str, key: &str, asked: &impl Serialize) -> Result<Reply, GatewayError> {
        let request = self.client.post(self.url(&[what])?).header("idempotency-key", key).json(asked);
        match self.send(request).await? {
            (StatusCode::OK | StatusCode::CREATED, body) => read(&body).map(Outcome::reply),
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Err(GatewayError::InvalidCard),
            (status, _) => {
                tracing::warn!(%status, what, "the payment gateway did not say what it did");
                Err(GatewayError::NoAnswer)
            }
        }
    }

    async fn card(&self, request: RequestBuilder) -> Result<CardToken, GatewayError> {
        match self.send(request).await? {
            (StatusCode::OK | StatusCode::CREATED, body) => read::<Token>(&body).map(Token::card),
            (StatusCode::UNPROCESSABLE_ENTITY | StatusCode::NOT_FOUND, _) => Err(GatewayError::InvalidCard),
            (status, _) => {
                tracing::warn!(%status, "the payment gateway did not take a card");
                Err(GatewayError::NoAnswer)
            }
        }
    }
}

fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, GatewayError> {
    serde_json::from_slice(body).map_err(|_| {
        tracing::warn!("the answer of the payment gateway cannot be read");
        GatewayError::NoAnswer
    })
}

#[derive(Serialize)]
struct AskedToken<'a> {
    number: &'a str,
    exp_month: u32,
    exp_year: u32,
    cvc: &'a str,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    brand: String,
    last4: String,
}

impl Token {
    fn card(self) -> CardToken {
        CardToken { token: self.token, brand: self.brand, last4: self.last4 }
    }
}

#[derive(Serialize)]
struct AskedAuthorisation<'a> {
    token: &'a str,
    amount_minor: i64,
    currency: &'a str,
}

#[derive(Serialize)]
struct AskedMovement<'a> {
    reference: &'a str,
    amount_minor: i64,
    currency: &'a str,
}

#[derive(Serialize)]
struct AskedVoid<'a> {
    reference: &'a str,
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    Approved { reference: String },
    Declined { reason: String },
    ActionRequired,
}

impl Outcome {
    fn reply(self) -> Reply {
        match self {
            Self::Approved { reference } => Reply::Approved { reference },
            Self::Declined { reason } => {
                Reply::Declined { reason: reason.chars().take(REASON_MAX_CHARS).collect() }
            }
            Self::ActionRequired => Reply::ActionRequired,
        }
    }
}

#[async_trait]
impl Gateway for HttpGateway {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn tokenise(&self, card: Card) -> Result<CardToken, GatewayError> {
        let asked = AskedToken {
            number: card.number.expose_secret(),
            exp_month: card.exp_month,
            exp_year: card.exp_year,
            cvc: card.cvc.expose_secret(),
        };
        // The bytes of the card are wiped when the request has gone.
        let body = Zeroizing::new(serde_json::to_vec(&asked).map_err(|_| GatewayError::InvalidCard)?);
        let request = self.client.post(self.url(&["tokens"])?).header("content-type", "application/json");
        self.card(request.body(Bytes::from_owner(body))).await
    }

    async fn describe(&self, token: &str) -> Result<CardToken, GatewayError> {
        self.card(self.client.get(self.url(&["tokens", token])?)).await
    }

    async fn authorise(&self, key: &str, token: &str, amount: Money) -> Result<Reply, GatewayError> {
        let currency = amount.currency.code();
        self.ask("authorisations", key, &AskedAuthorisation { token, amount_minor: amount.minor, currency })
            .await
    }

    async fn capture(&self, key: &str, reference: &str, amount: Money) -> Result<Reply, GatewayError> {
        let currency = amount.currency.code();
        self.ask("captures", key, &AskedMovement { reference, amount_minor: amount.minor, currency }).await
    }

    async fn void(&self, key: &str, reference: &str) -> Result<Reply, GatewayError> {
        self.ask("voids", key, &AskedVoid { reference }).await
    }

    async fn refund(&self, key: &str, reference: &str, amount: Money) -> Result<Reply, GatewayError> {
        let currency = amount.currency.code();
        self.ask("refunds", key, &AskedMovement { reference, amount_minor: amount.minor, currency }).await
    }
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::extract::{Path, State};
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use aggregates::money::Currency;

    use super::*;

    type Asked = (String, String, Value);

    /// A gateway that gives one answer to everything, and what it was asked: on which path, under which key and
    /// authority, with what.
    async fn gateway(status: u16, answer: &str) -> (HttpGateway, UnboundedReceiver<Asked>) {
        async fn answered(
            State((status, answer, asked)): State<(u16, String, UnboundedSender<Asked>)>,
            Path(path): Path<String>,
            headers: HeaderMap,
            Json(body): Json<Value>,
        ) -> impl IntoResponse {
            let header =
                |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
            let about = format!("{} {}", header("idempotency-key"), header("authorization"));
            asked.send((path, about, body)).expect("the test listens");
            (StatusCode::from_u16(status).expect("it is a status"), answer)
        }
        crate::tls::install_provider();
        let (asked, listening) = unbounded_channel();
        let routes = axum::Router::new().route("/v2/{*path}", post(answered)).with_state((
            status,
            answer.to_owned(),
            asked,
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let key = Some(SecretString::from("s3cret"));
        (HttpGateway::new(&format!("http://{address}/v2"), key).expect("it is an address"), listening)
    }

    fn dollars() -> Money {
        Money::new(1_250, Currency::USD)
    }

    #[tokio::test]
    async fn money_is_asked_for_under_the_key_and_in_minor_units() {
        let (gateway, mut asked) = gateway(200, r#"{"outcome": "approved", "reference": "ch_1"}"#).await;
        let reply = gateway.authorise("pay:1:1", "tok_1", dollars()).await;
        assert_eq!(reply, Ok(Reply::Approved { reference: "ch_1".to_owned() }));
        let body = json!({"token": "tok_1", "amount_minor": 1250, "currency": "USD"});
        let told = asked.recv().await.expect("it was asked");
        assert_eq!(told, ("authorisations".to_owned(), "pay:1:1 Bearer s3cret".to_owned(), body));
        gateway.capture("cap:1:1", "ch_1", dollars()).await.expect("it is approved");
        let body = json!({"reference": "ch_1", "amount_minor": 1250, "currency": "USD"});
        let told = asked.recv().await.expect("it was asked");
        assert_eq!(told, ("captures".to_owned(), "cap:1:1 Bearer s3cret".to_owned(), body));
    }

    #[tokio::test]
    async fn only_a_clear_answer_is_one() {
        for (status, answer, expected) in [
            (
                200,
                r#"{"outcome": "declined", "reason": "no money"}"#,
                Ok(Reply::Declined { reason: "no money".to_owned() }),
            ),
            (201, r#"{"outcome": "action_required"}"#, Ok(Reply::ActionRequired)),
            (422, "{}", Err(GatewayError::InvalidCard)),
            (200, "a page of some proxy", Err(GatewayError::NoAnswer)),
            (200, r#"{"outcome": "perhaps"}"#, Err(GatewayError::NoAnswer)),
            (302, "{}", Err(GatewayError::NoAnswer)),
            (404, "{}", Err(GatewayError::NoAnswer)),
            (503, "{}", Err(GatewayError::NoAnswer)),
        ] {
            let (gateway, _asked) = gateway(status, answer).await;
            assert_eq!(gateway.authorise("key", "tok", dollars()).await, expected, "{status} {answer}");
        }
        let (gateway, _asked) = gateway(200, &" ".repeat(ANSWER_MAX_BYTES + 1)).await;
        assert_eq!(gateway.authorise("key", "tok", dollars()).await, Err(GatewayError::NoAnswer));
    }

    #[tokio::test]
    async fn a_card_becomes_a_token() {
        let (gateway, mut asked) =
            gateway(200, r#"{"token": "tok_1", "brand": "visa", "last4": "4242"}"#).await;
        let card = Card {
            number: "4242424242424242".to_owned().into(),
            exp_month: 7,
            exp_year: 2031,
            cvc: "042".to_owned().into(),
        };
        let token =
            CardToken { token: "tok_1".to_owned(), brand: "visa".to_owned(), last4: "4242".to_owned() };
        assert_eq!(gateway.tokenise(card).await, Ok(token));
        let (path, _, body) = asked.recv().await.expect("it was asked");
        assert_eq!(path, "tokens");
        assert_eq!(
            body,
            json!({"number": "4242424242424242", "exp_month": 7, "exp_year": 2031, "cvc": "042"})
        );
    }

    #[test]
    fn what_is_no_address_is_told_at_the_start() {
        for wrong in ["pay.example.org", "ftp://pay.example.org", "http://", ""] {
            assert!(matches!(HttpGateway::new(wrong, None), Err(HttpGatewayError::Address)), "{wrong}");
        }
    }

    #[test]
    fn a_token_cannot_lead_elsewhere() {
        crate::tls::install_provider();
        let gateway = HttpGateway::new("https://pay.example.org/v2", None).expect("it is an address");
        let url = gateway.url(&["tokens", "../refunds?x=1"]).expect("it has a path");
        assert_eq!(url.as_str(), "https://pay.example.org/v2/tokens/..%2Frefunds%3Fx=1");
    }
}
