//! Payments as payers and admins see them: one row for each order that can or could be paid.

use chrono::{DateTime, Utc};
use event_store::Result;
use event_store::subscription::ApplyError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use aggregates::identifiers::{OrderId, PaymentId, RefundId};
use aggregates::payments::{PaymentEvent, RefundStage};

use crate::event::{Event, Happened};
use crate::live::{Live, Page, TimeCursor};
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of payments.
pub struct Payments;

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Nobody has tried to pay.
    Open,
    /// The gateway was asked.
    Requested,
    /// The card's owner has to do something.
    RequiresAction,
    /// The money is promised.
    Authorized,
    /// The money is received.
    Captured,
    /// The last attempt failed.
    Declined,
    /// The gateway did not answer.
    Unknown,
    /// The promise was given back.
    Voided,
    /// Some of the money went back.
    PartiallyRefunded,
    /// All of it went back.
    Refunded,
}

/// Money that goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundRow {
    /// The refund.
    pub id: RefundId,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// Why.
    pub reason: String,
    /// How far it got.
    pub status: RefundStage,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
}

/// A payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRow {
    /// The payment.
    pub id: Uuid,
    /// For which order.
    pub order_id: Uuid,
    /// Whose order.
    pub user_id: Uuid,
    /// Where it stands.
    pub status: PaymentState,
    /// What is due, or what the latest attempt is to pay, in minor units.
    pub amount_minor: i64,
    /// In which currency.
    pub currency: String,
    /// The brand of the card tried last.
    pub card_brand: Option<String>,
    /// The last four digits of that card.
    pub card_last4: Option<String>,
    /// The number of the latest attempt, 0 before the first.
    pub attempt: u32,
    /// What was received, in minor units.
    pub captured_minor: i64,
    /// What went back, in minor units.
    pub refunded_minor: i64,
    /// What goes back, in the order it was asked for.
    pub refunds: Vec<RefundRow>,
    /// When the order could first be paid.
    pub created_at: DateTime<Utc>,
    /// The version of the aggregate.
    pub version: i64,
}

impl ReadModel for Payments {
    const NAME: &'static str = "payments";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] =
        &[Feed { service: "payments", aggregates: &["payment"], personal: PersonalData::Withheld }];
    const KEY: &'static str = "id";
    const COLUMNS: &'static str = "id uuid primary key,
        order_id uuid not null,
        user_id uuid not null,
        status text not null,
        amount_minor bigint not null,
        currency text not null,
        card_brand text,
        card_last4 text,
        attempt bigint not null,
        captured_minor bigint not null,
        refunded_minor bigint not null,
        refunds json not null,
        created_at timestamptz not null,
        version bigint not null";
    // Listed is what somebody has tried to pay. The number of the attempt tells it as the status does, and seldom
    // changes: an update that changes nothing an index knows of needs no new entry in any.
    const INDEXES: &'static [&'static str] =
        &["(user_id, created_at, id) where attempt > 0", "(created_at, id) where attempt > 0"];

    type Row = PaymentRow;

    fn fold(
        row: Option<PaymentRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<PaymentRow>, ApplyError> {
        let Event::Payment(event) = &happened.event else { return Ok(row) };
        if let PaymentEvent::PaymentOpened { order_id, user_id, amount } = event {
            let id =
                key.parse().map_err(|_| ApplyError::Event(format!("{key} is not the id of a payment")))?;
            return Ok(Some(PaymentRow {
                id,
                order_id: order_id.0,
                user_id: user_id.0,
                status: PaymentState::Open,
                amount_minor: amount.minor,
                currency: amount.currency.code().to_owned(),
                card_brand: None,
                card_last4: None,
                attempt: 0,
                captured_minor: 0,
                refunded_minor: 0,
                refunds: Vec::new(),
                created_at: happened.recorded_at,
                version: happened.sequence,
            }));
        }
        let Some(mut row) = row else {
            // When the order ended before it could be paid, there is nothing to show, and never will be.
            let ended =
                matches!(event, PaymentEvent::PaymentClosing { .. } | PaymentEvent::PaymentClosed { .. });
            let opened_never = ApplyError::Event(format!("payment {key} was never opened"));
            return if ended { Ok(None) } else { Err(opened_never) };
        };
        row.version = happened.sequence;
        evolve(&mut row, event, happened.recorded_at);
        Ok(Some(row))
    }
}

fn evolve(row: &mut PaymentRow, event: &PaymentEvent, recorded_at: DateTime<Utc>) {
    match event {
        PaymentEvent::PaymentAmountChanged { amount, .. } => row.amount_minor = amount.minor,
        PaymentEvent::PaymentAttemptRequested { attempt, amount, card_brand, card_last4, .. } => {
            row.status = PaymentState::Requested;
            row.attempt = *attempt;
            row.amount_minor = amount.minor;
            row.card_brand = Some(card_brand.clone());
            row.card_last4 = Some(card_last4.clone());
        }
        PaymentEvent::PaymentActionRequired { .. } => row.status = PaymentState::RequiresAction,
        PaymentEvent::PaymentAttemptUnknown { .. } => row.status = PaymentState::Unknown,
        PaymentEvent::PaymentAuthorised { amount, .. } => {
            row.status = PaymentState::Authorized;
            row.amount_minor = amount.minor;
        }
        PaymentEvent::PaymentDeclined { .. } => row.status = PaymentState::Declined,
        PaymentEvent::PaymentCaptured { amount, .. } => {
            row.status = PaymentState::Captured;
            row.amount_minor = amount.minor;
            row.captured_minor = amount.minor;
        }
        PaymentEvent::PaymentVoided { .. } => row.status = PaymentState::Voided,
        PaymentEvent::RefundRequested { refund_id, amount, reason, .. } => row.refunds.push(RefundRow {
            id: *refund_id,
            amount_minor: amount.minor,
            reason: reason.clone(),
            status: RefundStage::Requested,
            created_at: recorded_at,
        }),
        PaymentEvent::PaymentRefunded { refund_id, refunded, captured, .. } => {
            row.status = if refunded.minor < captured.minor {
                PaymentState::PartiallyRefunded
            } else {
                PaymentState::Refunded
            };
            row.refunded_minor = refunded.minor;
            settle(row, *refund_id, RefundStage::Succeeded);
        }
        PaymentEvent::RefundFailed { refund_id, .. } => settle(row, *refund_id, RefundStage::Failed),
        PaymentEvent::PaymentOpened { .. }
        | PaymentEvent::CaptureRequested { .. }
        | PaymentEvent::CaptureFailed { .. }
        | PaymentEvent::VoidRequested { .. }
        | PaymentEvent::PaymentClosing { .. }
        | PaymentEvent::PaymentClosed { .. } => {}
    }
}

fn settle(row: &mut PaymentRow, refund_id: RefundId, status: RefundStage) {
    for refund in row.refunds.iter_mut().filter(|refund| refund.id == refund_id) {
        refund.status = status;
    }
}

/// Payments that somebody has tried to make, newest first: those of one user's orders, or all.
///
/// # Errors
/// When the database is unreachable.
pub async fn list_payments(
    live: &Live<Payments>,
    user_id: Option<Uuid>,
    after: Option<TimeCursor>,
    limit: u32,
) -> Result<Page<PaymentRow, TimeCursor>> {
    let statement = live
        .select(
            "where t.attempt > 0 and ($1::uuid is null or t.user_id = $1) \
             and ($2::timestamptz is null or (t.created_at, t.id) < ($2, $3::uuid)) \
             order by t.created_at desc, t.id desc limit $4",
        )
        .await?;
    let found = sqlx::query(&statement)
        .bind(user_id)
        .bind(after.map(|cursor| cursor.created_at))
        .bind(after.map(|cursor| cursor.id))
        .bind(i64::from(limit) + 1)
        .fetch_all(live.connections())
        .await?;
    Ok(Page::cut(live.rows(&found).await?, limit as usize, |row| TimeCursor {
        created_at: row.created_at,
        id: row.id,
    }))
}

/// The payment with an id, also one that nobody has tried to make yet.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_payment(live: &Live<Payments>, id: Uuid) -> Result<Option<PaymentRow>> {
    live.find(&id.to_string()).await
}

/// The payment of an order, also one that nobody has tried to make yet.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_payment_of_order(live: &Live<Payments>, order_id: Uuid) -> Result<Option<PaymentRow>> {
    find_payment(live, PaymentId::of(OrderId(order_id)).0).await
}
