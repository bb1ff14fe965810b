//! Giving money back.

use std::time::Duration;

use event_store::Target;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::identifiers::RefundId;
use aggregates::money::{Currency, Money};
use aggregates::payments::{Payment, PaymentCommand, PaymentEvent, RefundStage};

use crate::check::{Check, Field};
use crate::decimal::Decimal;
use crate::extract::Freshness;
use crate::problem::Problem;
use crate::routes::executed::{event_at, position_of};
use crate::routes::payments::view::RefundBody;
use crate::routes::payments::{give, heard_by_orders};
use crate::service::{Answer, Write, created, engine};
use crate::services::PaymentsService;
use crate::text;

/// How long an answer waits for the gateway.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// A refund to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefundDraft {
    /// How much; all that is left unless it is said.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "10.00")]
    amount: Field<Decimal>,
    /// Why.
    #[serde(default)]
    #[schema(value_type = String, required)]
    reason: Field<String>,
}

/// A refund to be made, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    amount: Option<Money>,
    reason: String,
}

impl RefundDraft {
    /// Checks a refund of a payment that is in `currency`.
    pub(super) fn check(self, currency: Currency) -> Result<Wanted, Problem> {
        let mut check = Check::new();
        let amount = check.optional("amount", self.amount, |value| {
            let minor = value.minor(u32::from(currency.exponent()))?;
            (minor > 0)
                .then_some(Money::new(minor, currency))
                .ok_or_else(|| "must be greater than 0".to_owned())
        });
        let reason = check.required("reason", self.reason, |value| text::line(&value, 1..=MAX_REASON_CHARS));
        check.finish(|| Some(Wanted { amount: amount?, reason: reason? }))
    }
}

/// Gives money back, and answers when the gateway did, within bounds.
///
/// # Errors
/// 409 when nothing was received, or less is left than is wanted.
pub(super) async fn refund(
    service: &PaymentsService,
    payment_id: Uuid,
    wanted: Wanted,
    write: &Write,
) -> Result<Answer<RefundBody>, Problem> {
    let refund_id = RefundId(Uuid::now_v7());
    let command = PaymentCommand::RequestRefund { refund_id, amount: wanted.amount, reason: wanted.reason };
    let target = Target::Existing(payment_id.to_string());
    let done = give(service, target, command, write.context()).await?;
    let recorded = event_at(&service.payments, &done.id, done.sequence).await?;
    let event = recorded.decode().map_err(engine)?;
    let PaymentEvent::RefundRequested { order_id, refund_id, amount, reason, .. } = event else {
        return Err(Problem::internal("a refund asked nobody"));
    };
    let limit = match write.freshness {
        Freshness::Wait => ANSWERED_WITHIN,
        Freshness::RespondAsync => Duration::ZERO,
    };
    let stage = |payment: &Payment| {
        let account = payment.account();
        account.and_then(|account| account.refunds.get(&refund_id)).map(|refund| refund.stage)
    };
    let answered = |payment: &Payment| stage(payment) != Some(RefundStage::Requested);
    let waited = service.arrivals.wait_for(&service.payments, &done.id, limit, answered).await;
    let waited = waited.map_err(engine)?;
    let status = stage(&waited.aggregate).unwrap_or(RefundStage::Requested);
    let position = position_of(&service.payments, &done.id, &waited).await?;
    if status == RefundStage::Succeeded && write.freshness == Freshness::Wait {
        // How much of an order was given back before, and how much since, its state does not tell apart.
        heard_by_orders(service, order_id, &done.id, position, |_| false).await?;
    }
    let body = RefundBody {
        id: refund_id.0,
        payment_id,
        amount: amount.to_string(),
        currency: amount.currency.code().to_owned(),
        status,
        reason,
        created_at: recorded.recorded_at,
    };
    let answer = created(&format!("/v1/payments/{payment_id}"), body);
    Ok(answer.with_version(waited.version).with_position("payments", &done.id, position))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_refund_needs_a_reason_and_may_name_an_amount() {
        let check = |body: Value| {
            let draft: RefundDraft = serde_json::from_value(body).expect("the body can be read");
            draft.check(Currency::USD).map_err(|problem| json!(problem.errors()))
        };
        let reason = "damaged".to_owned();
        let all = Wanted { amount: None, reason: reason.clone() };
        assert_eq!(check(json!({"reason": "damaged"})), Ok(all));
        let part = Wanted { amount: Some(Money::new(1050, Currency::USD)), reason };
        assert_eq!(check(json!({"reason": "damaged", "amount": "10.50"})), Ok(part));
        assert_eq!(
            check(json!({"amount": "0"})),
            Err(json!({"amount": ["must be greater than 0"], "reason": ["is required"]}))
        );
    }
}
