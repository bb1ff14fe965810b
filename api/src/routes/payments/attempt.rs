//! Paying: an attempt is written down, and the answer waits for what the gateway says to it.

use std::time::Duration;

use axum::http::StatusCode;
use event_store::Target;
use event_store::execute::Loaded;
use uuid::Uuid;

use aggregates::identifiers::{OrderId, PaymentId, UserId};
use aggregates::money::Money;
use aggregates::orders::Details;
use aggregates::payments::{Account, Payment, PaymentCommand, PaymentEvent, Stage};

use crate::arrivals::Seat;
use crate::auth::Caller;
use crate::extract::Freshness;
use crate::gateway::{CardToken, GatewayError};
use crate::problem::Problem;
use crate::routes::executed::{Done, begun_at, event_at, position_of};
use crate::routes::payments::card::{Means, Paying};
use crate::routes::payments::refusals::{amount_mismatch, closed, declined};
use crate::routes::payments::view::PaymentBody;
use crate::routes::payments::{give, heard_by_orders};
use crate::service::{Answer, Write, engine, ok};
use crate::services::PaymentsService;

/// How long paying waits for an order that was placed or changed a moment ago.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer waits for the gateway to decide an attempt.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);
/// How long it then waits for the money.
const CAPTURED_WITHIN: Duration = Duration::from_secs(5);

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The gateway is being asked.
    Asked,
    /// The gateway has no answer yet, or the card's owner has to do something.
    Open,
    /// The money is promised.
    Promised,
    /// The money is here.
    Paid,
    /// The gateway refused.
    Declined,
    /// The order ended meanwhile, and the money goes back.
    Undone,
}

/// The payment of an order that the caller may pay. An order that was placed or changed a moment ago is waited for; what
/// other processes have done to its payment since may be missing.
///
/// # Errors
/// 404 when there is none, or it is another user's; 503 when it is not known here in time.
pub(super) async fn payable(
    service: &PaymentsService,
    caller: &Caller,
    order_id: Uuid,
) -> Result<Account, Problem> {
    let id = PaymentId::of(OrderId(order_id)).to_string();
    let order = order_id.to_string();
    let current = service.orders.as_ref().and_then(|nearby| nearby.orders.current(&order));
    let heard = match current.and_then(|current| current.position()) {
        Some(position) => service.settlement.up_to(&order, position, HEARD_WITHIN).await.map(Some),
        None => service.settlement.all_of("order", &order, HEARD_WITHIN).await,
    };
    let heard = heard.map_err(engine)?;
    // Whose it is never changes, nor its currency; all else is looked at again when the attempt is decided.
    let remembered = service.payments.remembered(&id).filter(|known| known.aggregate.account().is_some());
    let payment = match remembered {
        Some(known) => known.aggregate,
        None => service.payments.load(&id).await.map_err(engine)?.aggregate,
    };
    if heard == Some(false) && payment == Payment::Unopened {
        let detail = "payments have not heard of this order yet";
        return Err(Problem::service_unavailable(detail).with_retry_after(Duration::from_secs(1)));
    }
    let account = payment.account().cloned();
    let may_pay = |account: &Account| account.user_id.0 == caller.user_id || caller.is_admin();
    account.filter(may_pay).ok_or_else(Problem::not_found)
}

/// Refuses an amount that is not the one due.
///
/// # Errors
/// 422 that names the amount.
pub(super) async fn check_amount(
    service: &PaymentsService,
    account: Account,
    offered: Option<Money>,
) -> Result<(), Problem> {
    let Some(offered) = offered.filter(|offered| *offered != account.amount) else { return Ok(()) };
    let id = PaymentId::of(account.order_id).to_string();
    let payment = service.payments.load(&id).await.map_err(engine)?.aggregate;
    match payment.account() {
        Some(account) if account.amount != offered => Err(amount_mismatch(account.amount)),
        Some(_) | None => Ok(()),
    }
}

/// Makes an attempt to pay.
///
/// # Errors
/// 402 when the card is declined, 409 when the order is paid, being paid or over, 422 when the gateway does not
/// know the card.
pub(super) async fn pay(
    service: &PaymentsService,
    caller: &Caller,
    order_id: OrderId,
    paying: Paying,
    write: &Write,
) -> Result<Answer<PaymentBody>, Problem> {
    let CardToken { token, brand, last4 } = token_of(service, paying.means).await?;
    let command = PaymentCommand::RequestAttempt {
        token,
        card_brand: brand,
        card_last4: last4,
        paid_by: UserId(caller.user_id),
        by_admin: caller.is_admin(),
        amount: paying.amount,
    };
    let id = PaymentId::of(order_id).to_string();
    let seat = service.arrivals.seat(&id);
    let done = give(service, Target::Existing(id), command, write.context()).await?;
    let attempt = number_of(service, &done).await?;
    let (loaded, progress) = outcome(service, &seat, &done, attempt, write.freshness).await?;
    let position = position_of(&service.payments, &done.id, &loaded).await?;
    let decided = matches!(progress, Progress::Declined | Progress::Paid);
    if decided && write.freshness == Freshness::Wait {
        let has_heard = |order: &Details| progress == Progress::Paid && order.captured.is_some();
        heard_by_orders(service, order_id, &done.id, position, has_heard).await?;
    }
    let status = match progress {
        Progress::Declined => return Err(declined().with_position("payments", &done.id, position)),
        Progress::Undone => return Err(closed().with_position("payments", &done.id, position)),
        Progress::Asked | Progress::Open | Progress::Promised => StatusCode::ACCEPTED,
        Progress::Paid => StatusCode::OK,
    };
    let account = loaded.aggregate.account().ok_or_else(Problem::not_found)?;
    // An order can be paid from the payment's first event on.
    let created_at = begun_at(&service.payments, &done.id, &loaded).await?;
    let body = PaymentBody::of(account, created_at, loaded.version);
    let location = format!("/v1/payments/{}", done.id);
    Ok(ok(body)
        .with_status(status)
        .with_location(&location)
        .with_version(loaded.version)
        .with_position("payments", &done.id, position))
}

/// The token that stands for what somebody pays with; the card is gone when this returns.
async fn token_of(service: &PaymentsService, means: Means) -> Result<CardToken, Problem> {
    let (field, answer) = match means {
        Means::Card(card) => ("card.number", service.gateway.tokenise(card).await),
        Means::Token(token) => ("payment_token", service.gateway.describe(&token).await),
    };
    answer.map_err(|error| match error {
        GatewayError::InvalidCard => Problem::invalid_field(field, "is not accepted by the payment gateway"),
        GatewayError::NoAnswer => Problem::service_unavailable("the payment gateway does not answer"),
    })
}

/// Which attempt a command made.
async fn number_of(service: &PaymentsService, done: &Done<Payment>) -> Result<u32, Problem> {
    let account = done.state.account().filter(|_| !done.repeated);
    if let Some(Stage::Requested(attempt)) = account.map(|account| &account.stage) {
        return Ok(attempt.number);
    }
    match event_at(&service.payments, &done.id, done.sequence).await?.decode().map_err(engine)? {
        PaymentEvent::PaymentAttemptRequested { attempt, .. } => Ok(attempt),
        _ => Err(Problem::internal("an attempt to pay asked nobody")),
    }
}

/// Waits for the gateway, and once the money is promised for the money.
async fn outcome(
    service: &PaymentsService,
    seat: &Seat,
    done: &Done<Payment>,
    attempt: u32,
    freshness: Freshness,
) -> Result<(Loaded<Payment>, Progress), Problem> {
    let (decided_within, captured_within) = match freshness {
        Freshness::Wait => (DECIDED_WITHIN, CAPTURED_WITHIN),
        Freshness::RespondAsync => (Duration::ZERO, Duration::ZERO),
    };
    let bus = &service.payments;
    let asked = |payment: &Payment| progress_of(payment, attempt) == Progress::Asked;
    let promised = |payment: &Payment| progress_of(payment, attempt) == Progress::Promised;
    let requested = (!done.repeated).then_some(done.sequence);
    let decided = seat.wait_for(bus, requested, decided_within, |payment| !asked(payment)).await;
    let mut loaded = decided.map_err(engine)?;
    if promised(&loaded.aggregate) {
        let version = Some(loaded.version);
        let captured = seat.wait_for(bus, version, captured_within, |payment| !promised(payment)).await;
        loaded = captured.map_err(engine)?;
    }
    let progress = progress_of(&loaded.aggregate, attempt);
    Ok((loaded, progress))
}

fn progress_of(payment: &Payment, attempt: u32) -> Progress {
    let Some(account) = payment.account() else { return Progress::Undone };
    // A further attempt is possible only after this one was declined.
    if account.attempts > attempt {
        return Progress::Declined;
    }
    match &account.stage {
        Stage::Requested(_) => Progress::Asked,
        Stage::ActionRequired(_) | Stage::Unknown(_) => Progress::Open,
        Stage::Authorised(_) | Stage::Capturing(_) => Progress::Promised,
        Stage::Captured(_) if account.closing => Progress::Undone,
        Stage::Captured(_) => Progress::Paid,
        Stage::Voiding(_) | Stage::Voided(_) => Progress::Undone,
        Stage::Payable => Progress::Declined,
    }
}

#[cfg(test)]
mod tests {
    use cqrs_es::Aggregate;

    use aggregates::money::Currency;

    use super::*;

    fn after(events: Vec<PaymentEvent>) -> Payment {
        let (order_id, user_id) = (OrderId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let amount = Money::new(1000, Currency::USD);
        let opened = PaymentEvent::PaymentOpened { order_id, user_id, amount };
        let mut payment = Payment::default();
        for event in [opened].into_iter().chain(events) {
            payment.apply(event);
        }
        payment
    }

    fn requested(attempt: u32) -> PaymentEvent {
        PaymentEvent::PaymentAttemptRequested {
            order_id: OrderId(Uuid::from_u128(1)),
            attempt,
            amount: Money::new(1000, Currency::USD),
            token: "tok".to_owned(),
            card_brand: "visa".to_owned(),
            card_last4: "4242".to_owned(),
            paid_by: UserId(Uuid::from_u128(2)),
        }
    }

    #[test]
    fn an_attempt_is_followed_until_it_is_decided() {
        let order_id = OrderId(Uuid::from_u128(1));
        let (amount, gateway_reference) = (Money::new(1000, Currency::USD), "ch_1".to_owned());
        let authorised = || PaymentEvent::PaymentAuthorised {
            order_id,
            attempt: 1,
            amount,
            gateway_reference: gateway_reference.clone(),
        };
        let captured = PaymentEvent::PaymentCaptured {
            order_id,
            user_id: UserId(Uuid::from_u128(2)),
            attempt: 1,
            amount,
        };
        let closing = PaymentEvent::PaymentClosing { order_id };
        let declined =
            || PaymentEvent::PaymentDeclined { order_id, attempt: 1, reason: "card_declined".to_owned() };
        let unknown = PaymentEvent::PaymentAttemptUnknown { order_id, attempt: 1 };
        let progress = |events| progress_of(&after(events), 1);
        assert_eq!(progress(vec![requested(1)]), Progress::Asked);
        assert_eq!(progress(vec![requested(1), unknown]), Progress::Open);
        assert_eq!(progress(vec![requested(1), authorised()]), Progress::Promised);
        assert_eq!(progress(vec![requested(1), authorised(), captured.clone()]), Progress::Paid);
        assert_eq!(progress(vec![requested(1), authorised(), closing, captured]), Progress::Undone);
        assert_eq!(progress(vec![requested(1), declined()]), Progress::Declined);
        assert_eq!(progress(vec![requested(1), declined(), requested(2)]), Progress::Declined);
    }
}
