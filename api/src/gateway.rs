//! The payment gateway: what the mart asks of it, one behind HTTP, and a simulated one.
//!
//! Every request carries a key derived from the order; a gateway answers the same key with the same charge,
//! so a request may be repeated until its outcome is known.

mod http;
mod simulated;

use async_trait::async_trait;
use secrecy::SecretString;

use aggregates::money::Money;

pub use http::{HttpGateway, HttpGatewayError};
pub use simulated::SimulatedGateway;

/// A card, in memory only, between the request and the gateway's answer.
#[derive(Debug)]
pub struct Card {
    /// The number, digits only.
    pub number: SecretString,
    /// 1 to 12.
    pub exp_month: u32,
    /// Four digits.
    pub exp_year: u32,
    /// Three or four digits.
    pub cvc: SecretString,
}

/// What stands for a card from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardToken {
    /// The gateway's token.
    pub token: String,
    /// The brand, in lower case.
    pub brand: String,
    /// The last four digits.
    pub last4: String,
}

/// What a gateway says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is done; the gateway's reference for what follows.
    Approved {
        /// What the gateway calls the charge.
        reference: String,
    },
    /// It is refused for good.
    Declined {
        /// Why, in a word.
        reason: String,
    },
    /// The card's owner has to do something first.
    ActionRequired,
}

/// Why nothing is known of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The card cannot be read.
    #[error("the gateway does not accept the card")]
    InvalidCard,
    /// No answer: it may or may not have happened.
    #[error("the gateway did not answer")]
    NoAnswer,
}

/// A payment gateway.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Its name, in webhook routes and logs.
    fn name(&self) -> &'static str;

    /// Takes a card and gives the token that stands for it.
    ///
    /// # Errors
    /// See [`GatewayError`].
    async fn tokenise(&self, card: Card) -> Result<CardToken, GatewayError>;

    /// What is known of a token that a client brings.
    ///
    /// # Errors
    /// See [`GatewayError`].
    async fn describe(&self, token: &str) -> Result<CardToken, GatewayError>;

    /// Asks for the promise of an amount.
    ///
    /// # Errors
    /// See [`GatewayError`].
    async fn authorise(&self, key: &str, token: &str, amount: Money) -> Result<Reply, GatewayError>;

    /// Takes what was promised.
    ///
    /// # Errors
    /// See [`GatewayError`].
    async fn capture(&self, key: &str, reference: &str, amount: Money) -> Result<Reply, GatewayError>;

    /// Gives a promise back.
    ///
    /// # Errors
    /// See [`GatewayError`].
    async fn void(&self, key: &str, reference: &str) -> Result<Reply, GatewayError>;

    /// Gives money back.
    ///
    /// # Errors
    /// See [`GatewayError`].
    async fn refund(&self, key: &str, reference: &str, amount: Money) -> Result<Reply, GatewayError>;
}
