//! Payments and refunds as clients see them, made of the aggregate after a write and of the read model otherwise.

use chrono::{DateTime, Utc};
use projections::payments::payments::{PaymentRow, PaymentState, RefundRow};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::identifiers::PaymentId;
use aggregates::payments::{Account, RefundStage, Stage};

use crate::problem::Problem;
use crate::routes::amounts::money;

/// A payment.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PaymentBody {
    /// The payment.
    pub id: Uuid,
    /// For which order.
    pub order_id: Uuid,
    /// Whose order.
    pub user_id: Uuid,
    /// Where it stands: `open`, `requested`, `requires_action`, `authorized`, `captured`, `declined`, `unknown`,
    /// `voided`, `partially_refunded` or `refunded`.
    #[schema(value_type = String, example = "captured")]
    pub status: PaymentState,
    /// What is paid, or due.
    #[schema(example = "999.99")]
    pub amount: String,
    /// In which currency.
    #[schema(example = "USD")]
    pub currency: String,
    /// The brand of the card, in lower case.
    #[schema(example = "visa")]
    pub card_brand: Option<String>,
    /// The last four digits of the card.
    #[schema(example = "4242")]
    pub card_last4: Option<String>,
    /// What went back.
    #[schema(example = "0.00")]
    pub refunded: String,
    /// What goes back, in the order it was asked for.
    pub refunds: Vec<RefundBody>,
    /// When the order could first be paid.
    pub created_at: DateTime<Utc>,
    /// The version, also in `ETag`.
    pub version: i64,
}

/// Money that goes back.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RefundBody {
    /// The refund.
    pub id: Uuid,
    /// Of which payment.
    pub payment_id: Uuid,
    /// How much.
    #[schema(example = "10.00")]
    pub amount: String,
    /// In which currency.
    #[schema(example = "USD")]
    pub currency: String,
    /// How far it got: `requested`, `succeeded` or `failed`.
    #[schema(value_type = String, example = "succeeded")]
    pub status: RefundStage,
    /// Why.
    pub reason: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
}

impl PaymentBody {
    /// Made of a row of the read model.
    pub(super) fn of_row(row: PaymentRow) -> Result<Self, Problem> {
        let refunds = row.refunds.iter().map(|refund| refund_of_row(refund, row.id, &row.currency));
        Ok(Self {
            id: row.id,
            order_id: row.order_id,
            user_id: row.user_id,
            status: row.status,
            amount: money(row.amount_minor, &row.currency)?.to_string(),
            card_brand: row.card_brand.clone(),
            card_last4: row.card_last4.clone(),
            refunded: money(row.refunded_minor, &row.currency)?.to_string(),
            refunds: refunds.collect::<Result<_, _>>()?,
            currency: row.currency,
            created_at: row.created_at,
            version: row.version,
        })
    }

    /// Made of the aggregate while an attempt is being made or has just succeeded: nothing went back yet.
    pub(super) fn of(account: &Account, created_at: DateTime<Utc>, version: i64) -> Self {
        let attempt = account.stage.attempt();
        let amount = attempt.map_or(account.amount, |attempt| attempt.amount);
        Self {
            id: PaymentId::of(account.order_id).0,
            order_id: account.order_id.0,
            user_id: account.user_id.0,
            status: state_of(account),
            amount: amount.to_string(),
            currency: amount.currency.code().to_owned(),
            card_brand: attempt.map(|attempt| attempt.card_brand.clone()),
            card_last4: attempt.map(|attempt| attempt.card_last4.clone()),
            refunded: account.refunded().to_string(),
            refunds: Vec::new(),
            created_at,
            version,
        }
    }
}

fn refund_of_row(row: &RefundRow, payment_id: Uuid, currency: &str) -> Result<RefundBody, Problem> {
    Ok(RefundBody {
        id: row.id.0,
        payment_id,
        amount: money(row.amount_minor, currency)?.to_string(),
        currency: currency.to_owned(),
        status: row.status,
        reason: row.reason.clone(),
        created_at: row.created_at,
    })
}

/// Where a payment stands, as the read model says it too.
fn state_of(account: &Account) -> PaymentState {
    match &account.stage {
        Stage::Payable if account.attempts == 0 => PaymentState::Open,
        Stage::Payable => PaymentState::Declined,
        Stage::Requested(_) => PaymentState::Requested,
        Stage::ActionRequired(_) => PaymentState::RequiresAction,
        Stage::Unknown(_) => PaymentState::Unknown,
        Stage::Authorised(_) | Stage::Capturing(_) | Stage::Voiding(_) => PaymentState::Authorized,
        Stage::Voided(_) => PaymentState::Voided,
        Stage::Captured(_) => match account.refunded().minor {
            0 => PaymentState::Captured,
            refunded if refunded < account.captured().minor => PaymentState::PartiallyRefunded,
            _ => PaymentState::Refunded,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aggregates::identifiers::{OrderId, RefundId, UserId};
    use aggregates::money::{Currency, Money};
    use aggregates::payments::{Attempt, Refund};

    use super::*;

    fn account(stage: Stage, attempts: u32, refunded: &[i64]) -> Account {
        let refund = |(index, minor): (usize, &i64)| {
            let id = RefundId(Uuid::from_u128(u128::try_from(index).expect("it is small")));
            (id, Refund { amount: Money::new(*minor, Currency::USD), stage: RefundStage::Succeeded })
        };
        Account {
            order_id: OrderId(Uuid::from_u128(1)),
            user_id: UserId(Uuid::from_u128(2)),
            amount: Money::new(1000, Currency::USD),
            stage,
            attempts,
            refunds: refunded.iter().enumerate().map(refund).collect::<BTreeMap<_, _>>(),
            closing: false,
            closed: false,
        }
    }

    fn attempt() -> Attempt {
        Attempt {
            number: 1,
            amount: Money::new(1000, Currency::USD),
            token: "tok".to_owned(),
            card_brand: "visa".to_owned(),
            card_last4: "4242".to_owned(),
            gateway_reference: String::new(),
        }
    }

    #[test]
    fn a_payment_says_where_it_stands() {
        let state = |stage, attempts, refunded: &[i64]| state_of(&account(stage, attempts, refunded));
        assert_eq!(state(Stage::Payable, 0, &[]), PaymentState::Open);
        assert_eq!(state(Stage::Payable, 1, &[]), PaymentState::Declined);
        assert_eq!(state(Stage::Capturing(attempt()), 1, &[]), PaymentState::Authorized);
        assert_eq!(state(Stage::Captured(attempt()), 1, &[]), PaymentState::Captured);
        assert_eq!(state(Stage::Captured(attempt()), 1, &[400]), PaymentState::PartiallyRefunded);
        assert_eq!(state(Stage::Captured(attempt()), 1, &[400, 600]), PaymentState::Refunded);
    }

    #[test]
    fn the_aggregate_and_the_read_model_show_the_same_payment() {
        let created_at = DateTime::UNIX_EPOCH;
        let account = account(Stage::Captured(attempt()), 1, &[]);
        let row = PaymentRow {
            id: PaymentId::of(account.order_id).0,
            order_id: account.order_id.0,
            user_id: account.user_id.0,
            status: PaymentState::Captured,
            amount_minor: 1000,
            currency: "USD".to_owned(),
            card_brand: Some("visa".to_owned()),
            card_last4: Some("4242".to_owned()),
            attempt: 1,
            captured_minor: 1000,
            refunded_minor: 0,
            refunds: Vec::new(),
            created_at,
            version: 5,
        };
        let shown = PaymentBody::of_row(row).expect("it can be shown");
        assert_eq!(PaymentBody::of(&account, created_at, 5), shown);
    }
}
