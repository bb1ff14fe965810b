//! A gateway for laptops and tests. Its answers follow from the card and the key alone, so that every process
//! gives the same ones, and a repeated request is the same charge.

use std::collections::HashSet;
use std::sync::Mutex;

use async_trait::async_trait;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use aggregates::money::Money;

use super::{Card, CardToken, Gateway, GatewayError, Reply};

/// The card that is always declined.
const DECLINED: &str = "4000000000000002";
/// The card whose first authorisation gets no answer, although the charge is made.
const SILENT: &str = "4000000000000119";
/// The card that is always approved.
const APPROVED: &str = "4242424242424242";

/// The simulated gateway.
#[derive(Debug)]
pub struct SimulatedGateway {
    /// Out of a thousand, how many other cards are approved.
    approved_per_mille: u32,
    /// Keys of silent cards that were asked for once.
    asked: Mutex<HashSet<String>>,
}

impl SimulatedGateway {
    /// A gateway that approves so many out of a thousand cards that are not test cards.
    pub fn new(approved_per_mille: u32) -> Self {
        Self { approved_per_mille, asked: Mutex::default() }
    }

    fn is_lucky(&self, key: &str) -> bool {
        let digest = Sha256::digest(key.as_bytes());
        u32::from(u16::from_be_bytes([digest[0], digest[1]])) % 1000 < self.approved_per_mille
    }
}

fn brand(number: &str) -> &'static str {
    match number.as_bytes() {
        [b'4', ..] => "visa",
        [b'5', b'1'..=b'5', ..] | [b'2', b'2'..=b'7', ..] => "mastercard",
        [b'3', b'4' | b'7', ..] => "amex",
        [b'6', ..] => "discover",
        _ => "unknown",
    }
}

#[async_trait]
impl Gateway for SimulatedGateway {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn tokenise(&self, card: Card) -> Result<CardToken, GatewayError> {
        let number = card.number.expose_secret();
        let kind = match number {
            APPROVED => "approved",
            DECLINED => "declined",
            SILENT => "silent",
            _ => "other",
        };
        let (Some(last4), brand) = (number.get(number.len().saturating_sub(4)..), brand(number)) else {
            return Err(GatewayError::InvalidCard);
        };
        let token = format!("tok_{kind}_{brand}_{last4}");
        Ok(CardToken { token, brand: brand.to_owned(), last4: last4.to_owned() })
    }

    async fn describe(&self, token: &str) -> Result<CardToken, GatewayError> {
        let mut parts = token.split('_');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (
                Some("tok"),
                Some("approved" | "declined" | "silent" | "other"),
                Some(brand),
                Some(last4),
                None,
            ) if last4.len() == 4 && last4.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(CardToken { token: token.to_owned(), brand: brand.to_owned(), last4: last4.to_owned() })
            }
            _ => Err(GatewayError::InvalidCard),
        }
    }

    async fn authorise(&self, key: &str, token: &str, _amount: Money) -> Result<Reply, GatewayError> {
        let approved = Reply::Approved { reference: format!("ch_{key}") };
        let declined = Reply::Declined { reason: "card_declined".to_owned() };
        match token.split('_').nth(1) {
            Some("approved") => Ok(approved),
            Some("silent") => {
                let first = self.asked.lock().map_or(true, |mut asked| asked.insert(key.to_owned()));
                if first { Err(GatewayError::NoAnswer) } else { Ok(approved) }
            }
            Some("other") if self.is_lucky(key) => Ok(approved),
            _ => Ok(declined),
        }
    }

    async fn capture(&self, key: &str, _reference: &str, _amount: Money) -> Result<Reply, GatewayError> {
        Ok(Reply::Approved { reference: key.to_owned() })
    }

    async fn void(&self, key: &str, _reference: &str) -> Result<Reply, GatewayError> {
        Ok(Reply::Approved { reference: key.to_owned() })
    }

    async fn refund(&self, key: &str, _reference: &str, _amount: Money) -> Result<Reply, GatewayError> {
        Ok(Reply::Approved { reference: key.to_owned() })
    }
}
