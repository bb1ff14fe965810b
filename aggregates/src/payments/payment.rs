//! The payment: state, decisions, and what follows from events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identifiers::{OrderId, RefundId, UserId};
use crate::money::Money;
use crate::payments::commands::PaymentCommand;
use crate::payments::events::PaymentEvent;
use crate::payments::refusals::PaymentError;
use crate::records::{Recorded, decided_aggregate};
use crate::text;

/// The longest reason of a refund, in characters.
const MAX_REASON_CHARS: usize = 500;
/// The reason of a refund that nobody asked for: the payment was closed.
const CLOSED_REASON: &str = "order closed";

/// The payment of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Payment {
    /// Nothing yet.
    #[default]
    Unopened,
    /// Closed before it was opened: the order ended first.
    NeverOpened,
    /// The order can be paid, or could.
    Opened(Box<Account>),
}

/// What is known of a payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// For which order.
    pub order_id: OrderId,
    /// Whose order.
    pub user_id: UserId,
    /// What is due.
    pub amount: Money,
    /// How far it got.
    pub stage: Stage,
    /// How many attempts there were.
    pub attempts: u32,
    /// What went back, or is to, in the order of the ids.
    pub refunds: BTreeMap<RefundId, Refund>,
    /// Nobody may pay any more, and what was paid goes back.
    pub closing: bool,
    /// No money of the customer is with us any more.
    pub closed: bool,
}

/// An attempt to pay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// What it is to pay.
    pub amount: Money,
    /// The gateway's token of the card.
    pub token: String,
    /// The card's brand.
    pub card_brand: String,
    /// The card's last four digits.
    pub card_last4: String,
    /// The gateway's name for it, once it answered.
    pub gateway_reference: String,
}

/// How far a payment got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// Nobody is paying.
    Payable,
    /// The gateway was asked.
    Requested(Attempt),
    /// The card's owner has to do something.
    ActionRequired(Attempt),
    /// The gateway did not answer.
    Unknown(Attempt),
    /// The money is promised.
    Authorised(Attempt),
    /// The promised money is being taken.
    Capturing(Attempt),
    /// The money is received.
    Captured(Attempt),
    /// The promise is being given back.
    Voiding(Attempt),
    /// The promise was given back.
    Voided(Attempt),
}

/// Money that goes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refund {
    /// How much.
    pub amount: Money,
    /// How far it got.
    pub stage: RefundStage,
}

/// How far a refund got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStage {
    /// The gateway was asked.
    Requested,
    /// The money is back.
    Succeeded,
    /// The gateway refused.
    Failed,
}

impl Payment {
    /// The opened payment.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        match self {
            Self::Opened(account) => Some(account),
            Self::Unopened | Self::NeverOpened => None,
        }
    }

    /// What a command leads to, by the rules.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn decide(&self, command: PaymentCommand) -> Result<Vec<PaymentEvent>, PaymentError> {
        match (self, command) {
            (Self::Unopened, PaymentCommand::Open { order_id, user_id, amount }) => {
                if amount.minor < 0 {
                    return Err(PaymentError::AmountNotPositive);
                }
                Ok(vec![PaymentEvent::PaymentOpened { order_id, user_id, amount }])
            }
            (Self::Unopened, PaymentCommand::Close { order_id }) => {
                Ok(vec![PaymentEvent::PaymentClosing { order_id }, PaymentEvent::PaymentClosed { order_id }])
            }
            (Self::Unopened, _) => Err(PaymentError::NotOpen),
            (
                Self::NeverOpened,
                PaymentCommand::Open { .. }
                | PaymentCommand::ChangeAmount { .. }
                | PaymentCommand::Close { .. },
            ) => Ok(Vec::new()),
            (Self::NeverOpened, _) => Err(PaymentError::Closed),
            (Self::Opened(account), command) => account.decide(command),
        }
    }

    fn evolve(&mut self, event: PaymentEvent) {
        match event {
            PaymentEvent::PaymentOpened { order_id, user_id, amount } => {
                *self = Self::Opened(Box::new(Account {
                    order_id,
                    user_id,
                    amount,
                    stage: Stage::Payable,
                    attempts: 0,
                    refunds: BTreeMap::new(),
                    closing: false,
                    closed: false,
                }));
            }
            PaymentEvent::PaymentAmountChanged { amount, .. } => {
                self.change(|account| account.amount = amount)
            }
            PaymentEvent::PaymentAttemptRequested {
                attempt, amount, token, card_brand, card_last4, ..
            } => self.change(|account| {
                account.attempts = attempt;
                account.stage = Stage::Requested(Attempt {
                    number: attempt,
                    amount,
                    token,
                    card_brand,
                    card_last4,
                    gateway_reference: String::new(),
                });
            }),
            PaymentEvent::PaymentActionRequired { .. } => self.advance(Stage::ActionRequired),
            PaymentEvent::PaymentAttemptUnknown { .. } => self.advance(Stage::Unknown),
            PaymentEvent::PaymentAuthorised { gateway_reference, .. } => {
                self.advance(|attempt| Stage::Authorised(Attempt { gateway_reference, ..attempt }));
            }
            PaymentEvent::PaymentDeclined { .. } => self.change(|account| account.stage = Stage::Payable),
            PaymentEvent::CaptureRequested { .. } => self.advance(Stage::Capturing),
            PaymentEvent::PaymentCaptured { .. } => self.advance(Stage::Captured),
            PaymentEvent::CaptureFailed { .. } => self.advance(Stage::Authorised),
            PaymentEvent::VoidRequested { .. } => self.advance(Stage::Voiding),
            PaymentEvent::PaymentVoided { .. } => self.advance(Stage::Voided),
            PaymentEvent::RefundRequested { refund_id, amount, .. } => self.change(|account| {
                account.refunds.insert(refund_id, Refund { amount, stage: RefundStage::Requested });
            }),
            PaymentEvent::PaymentRefunded { refund_id, .. } => {
                self.settle_refund(refund_id, RefundStage::Succeeded);
            }
            PaymentEvent::RefundFailed { refund_id, .. } => {
                self.settle_refund(refund_id, RefundStage::Failed)
            }
            PaymentEvent::PaymentClosing { .. } => match self {
                Self::Opened(account) => account.closing = true,
                Self::Unopened | Self::NeverOpened => *self = Self::NeverOpened,
            },
            PaymentEvent::PaymentClosed { .. } => self.change(|account| account.closed = true),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Account)) {
        if let Self::Opened(account) = self {
            change(account);
        }
    }

    fn advance(&mut self, next: impl FnOnce(Attempt) -> Stage) {
        self.change(|account| {
            account.stage = match account.stage.attempt().cloned() {
                Some(attempt) => next(attempt),
                None => Stage::Payable,
            };
        });
    }

    fn settle_refund(&mut self, refund_id: RefundId, stage: RefundStage) {
        self.change(|account| {
            if let Some(refund) = account.refunds.get_mut(&refund_id) {
                refund.stage = stage;
            }
        });
    }
}

impl Stage {
    /// The attempt that this stage is about.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Payable => None,
            Self::Requested(attempt)
            | Self::ActionRequired(attempt)
            | Self::Unknown(attempt)
            | Self::Authorised(attempt)
            | Self::Capturing(attempt)
            | Self::Captured(attempt)
            | Self::Voiding(attempt)
            | Self::Voided(attempt) => Some(attempt),
        }
    }

    /// The attempt that the gateway has not decided.
    fn unresolved(&self) -> Option<&Attempt> {
        match self {
            Self::Requested(attempt) | Self::ActionRequired(attempt) | Self::Unknown(attempt) => {
                Some(attempt)
            }
            Self::Payable
            | Self::Authorised(_)
            | Self::Capturing(_)
            | Self::Captured(_)
            | Self::Voiding(_)
            | Self::Voided(_) => None,
        }
    }
}

impl Account {
    /// What was received; nothing before the capture.
    #[must_use]
    pub fn captured(&self) -> Money {
        match &self.stage {
            Stage::Captured(attempt) => attempt.amount,
            Stage::Payable
            | Stage::Requested(_)
            | Stage::ActionRequired(_)
            | Stage::Unknown(_)
            | Stage::Authorised(_)
            | Stage::Capturing(_)
            | Stage::Voiding(_)
            | Stage::Voided(_) => Money::zero(self.amount.currency),
        }
    }

    /// What went back.
    #[must_use]
    pub fn refunded(&self) -> Money {
        self.refunds_in(&[RefundStage::Succeeded])
    }

    /// What was received and is not on its way back.
    #[must_use]
    pub fn refundable(&self) -> Money {
        let gone = self.refunds_in(&[RefundStage::Succeeded, RefundStage::Requested]);
        Money::new(self.captured().minor.saturating_sub(gone.minor), self.amount.currency)
    }

    fn refunds_in(&self, stages: &[RefundStage]) -> Money {
        let counted = self.refunds.values().filter(|refund| stages.contains(&refund.stage));
        // Refunds never exceed the capture, so their sum cannot overflow.
        let minor = counted.fold(0_i64, |sum, refund| sum.saturating_add(refund.amount.minor));
        Money::new(minor, self.amount.currency)
    }

    fn decide(&self, command: PaymentCommand) -> Result<Vec<PaymentEvent>, PaymentError> {
        match command {
            PaymentCommand::Open { .. } => Ok(Vec::new()),
            PaymentCommand::ChangeAmount { amount } => self.change_amount(amount),
            PaymentCommand::RequestAttempt { token, card_brand, card_last4, paid_by, by_admin, amount } => {
                if paid_by != self.user_id && !by_admin {
                    return Err(PaymentError::NotYours);
                }
                self.check_payable(amount)?;
                Ok(vec![PaymentEvent::PaymentAttemptRequested {
                    order_id: self.order_id,
                    attempt: self.attempts.saturating_add(1),
                    amount: self.amount,
                    token,
                    card_brand,
                    card_last4,
                    paid_by,
                }])
            }
            PaymentCommand::RecordActionRequired { attempt } => self.record_open(
                attempt,
                matches!(self.stage, Stage::ActionRequired(_)),
                PaymentEvent::PaymentActionRequired { order_id: self.order_id, attempt },
            ),
            PaymentCommand::RecordUnknown { attempt } => self.record_open(
                attempt,
                matches!(self.stage, Stage::Unknown(_)),
                PaymentEvent::PaymentAttemptUnknown { order_id: self.order_id, attempt },
            ),
            PaymentCommand::RecordAuthorised { attempt, gateway_reference } => {
                self.record_authorised(attempt, gateway_reference)
            }
            PaymentCommand::RecordDeclined { attempt, reason } => self.record_declined(attempt, reason),
            PaymentCommand::Capture => self.capture(),
            PaymentCommand::RecordCaptured { attempt } => self.record_captured(attempt),
            PaymentCommand::RecordCaptureFailed { attempt, reason } => {
                self.record_capture_failed(attempt, reason)
            }
            PaymentCommand::RecordVoided { attempt } => self.record_voided(attempt),
            PaymentCommand::RequestRefund { refund_id, amount, reason } => {
                self.request_refund(refund_id, amount, &reason)
            }
            PaymentCommand::RefundUpTo { refund_id, amount, reason } => {
                self.refund_up_to(refund_id, amount, &reason)
            }
            PaymentCommand::RecordRefunded { refund_id } => self.record_refunded(refund_id),
            PaymentCommand::RecordRefundFailed { refund_id, reason } => match self.refund(refund_id)?.stage {
                RefundStage::Requested => {
                    Ok(vec![PaymentEvent::RefundFailed { order_id: self.order_id, refund_id, reason }])
                }
                RefundStage::Failed => Ok(Vec::new()),
                RefundStage::Succeeded => Err(PaymentError::RefundResolved),
            },
            PaymentCommand::Close { .. } => Ok(self.close()),
        }
    }

    /// An attempt that is under way keeps its amount; the order compares it with its total when it succeeds.
    fn change_amount(&self, amount: Money) -> Result<Vec<PaymentEvent>, PaymentError> {
        if amount == self.amount || self.closing {
            return Ok(Vec::new());
        }
        if amount.minor < 0 {
            return Err(PaymentError::AmountNotPositive);
        }
        let (order_id, previous) = (self.order_id, self.amount);
        Ok(vec![PaymentEvent::PaymentAmountChanged { order_id, amount, previous }])
    }

    fn check_payable(&self, offered: Option<Money>) -> Result<(), PaymentError> {
        match &self.stage {
            Stage::Authorised(_) | Stage::Capturing(_) | Stage::Captured(_) => {
                return Err(PaymentError::AlreadyPaid);
            }
            Stage::Requested(_) | Stage::ActionRequired(_) | Stage::Unknown(_) => {
                return Err(PaymentError::PaymentInProgress);
            }
            Stage::Voiding(_) | Stage::Voided(_) => return Err(PaymentError::Closed),
            Stage::Payable => {}
        }
        if self.closing {
            return Err(PaymentError::Closed);
        }
        match offered {
            Some(offered) if offered != self.amount => Err(PaymentError::AmountMismatch { due: self.amount }),
            Some(_) | None => Ok(()),
        }
    }

    /// The gateway's word on an attempt that leaves it open.
    fn record_open(
        &self,
        attempt: u32,
        holds: bool,
        event: PaymentEvent,
    ) -> Result<Vec<PaymentEvent>, PaymentError> {
        self.check_attempt(attempt)?;
        match self.stage.unresolved().filter(|open| open.number == attempt) {
            Some(_) if holds => Ok(Vec::new()),
            Some(_) => Ok(vec![event]),
            None => Err(PaymentError::AttemptResolved),
        }
    }

    /// A promise that comes after the order ended goes back in the same decision.
    fn record_authorised(
        &self,
        attempt: u32,
        gateway_reference: String,
    ) -> Result<Vec<PaymentEvent>, PaymentError> {
        self.check_attempt(attempt)?;
        let order_id = self.order_id;
        let Some(open) = self.stage.unresolved().filter(|open| open.number == attempt) else {
            let authorised = self.stage.attempt().is_some_and(|made| made.number == attempt);
            return if authorised { Ok(Vec::new()) } else { Err(PaymentError::AttemptResolved) };
        };
        let amount = open.amount;
        let void = self.closing.then(|| PaymentEvent::VoidRequested {
            order_id,
            attempt,
            amount,
            gateway_reference: gateway_reference.clone(),
        });
        let authorised = PaymentEvent::PaymentAuthorised { order_id, attempt, amount, gateway_reference };
        Ok([authorised].into_iter().chain(void).collect())
    }

    fn record_declined(&self, attempt: u32, reason: String) -> Result<Vec<PaymentEvent>, PaymentError> {
        self.check_attempt(attempt)?;
        let order_id = self.order_id;
        if self.stage.unresolved().is_none_or(|open| open.number != attempt) {
            let other = self.stage.attempt().is_some_and(|made| made.number == attempt);
            return if other { Err(PaymentError::AttemptResolved) } else { Ok(Vec::new()) };
        }
        let closed = self.closing.then_some(PaymentEvent::PaymentClosed { order_id });
        let declined = PaymentEvent::PaymentDeclined { order_id, attempt, reason };
        Ok([declined].into_iter().chain(closed).collect())
    }

    fn capture(&self) -> Result<Vec<PaymentEvent>, PaymentError> {
        match &self.stage {
            Stage::Capturing(_) | Stage::Captured(_) => Ok(Vec::new()),
            Stage::Authorised(attempt) => Ok(vec![PaymentEvent::CaptureRequested {
                order_id: self.order_id,
                attempt: attempt.number,
                amount: attempt.amount,
                gateway_reference: attempt.gateway_reference.clone(),
            }]),
            Stage::Payable
            | Stage::Requested(_)
            | Stage::ActionRequired(_)
            | Stage::Unknown(_)
            | Stage::Voiding(_)
            | Stage::Voided(_) => Err(PaymentError::NotAuthorised),
        }
    }

    /// Money that comes after the order ended goes back in the same decision.
    fn record_captured(&self, number: u32) -> Result<Vec<PaymentEvent>, PaymentError> {
        match &self.stage {
            Stage::Capturing(attempt) if attempt.number == number => {
                let captured = PaymentEvent::PaymentCaptured {
                    order_id: self.order_id,
                    user_id: self.user_id,
                    attempt: number,
                    amount: attempt.amount,
                };
                let refund = self.closing.then(|| self.closing_refund(attempt, attempt.amount));
                Ok([captured].into_iter().chain(refund).collect())
            }
            Stage::Captured(attempt) if attempt.number == number => Ok(Vec::new()),
            _ => Err(PaymentError::NotAuthorised),
        }
    }

    fn record_capture_failed(&self, number: u32, reason: String) -> Result<Vec<PaymentEvent>, PaymentError> {
        match &self.stage {
            Stage::Capturing(attempt) if attempt.number == number => {
                let failed = PaymentEvent::CaptureFailed { order_id: self.order_id, attempt: number, reason };
                let void = self.closing.then(|| self.void(attempt));
                Ok([failed].into_iter().chain(void).collect())
            }
            Stage::Authorised(attempt) if attempt.number == number => Ok(Vec::new()),
            _ => Err(PaymentError::NotAuthorised),
        }
    }

    fn record_voided(&self, number: u32) -> Result<Vec<PaymentEvent>, PaymentError> {
        let order_id = self.order_id;
        match &self.stage {
            Stage::Voiding(attempt) if attempt.number == number => Ok(vec![
                PaymentEvent::PaymentVoided { order_id, attempt: number },
                PaymentEvent::PaymentClosed { order_id },
            ]),
            Stage::Voided(attempt) if attempt.number == number => Ok(Vec::new()),
            _ => Err(PaymentError::NotAuthorised),
        }
    }

    fn request_refund(
        &self,
        refund_id: RefundId,
        amount: Option<Money>,
        reason: &str,
    ) -> Result<Vec<PaymentEvent>, PaymentError> {
        let Stage::Captured(attempt) = &self.stage else { return Err(PaymentError::NotCaptured) };
        if self.refunds.contains_key(&refund_id) {
            return Ok(Vec::new());
        }
        let reason = text::normalise(reason);
        text::check_line(&reason, 0, MAX_REASON_CHARS)
            .map_err(|why| PaymentError::Invalid { field: "reason", reason: why })?;
        let left = self.refundable();
        let amount = amount.unwrap_or(left);
        if amount.currency != left.currency || amount.minor > left.minor {
            return Err(PaymentError::RefundExceedsPayment { left });
        }
        if amount.minor <= 0 {
            return Err(if left.minor == 0 {
                PaymentError::RefundExceedsPayment { left }
            } else {
                PaymentError::AmountNotPositive
            });
        }
        let gateway_reference = attempt.gateway_reference.clone();
        Ok(vec![PaymentEvent::RefundRequested {
            order_id: self.order_id,
            refund_id,
            amount,
            reason,
            gateway_reference,
        }])
    }

    /// What an admin gave back before, or what is on its way, is not given back again.
    fn refund_up_to(
        &self,
        refund_id: RefundId,
        amount: Money,
        reason: &str,
    ) -> Result<Vec<PaymentEvent>, PaymentError> {
        let left = self.refundable();
        if left.minor == 0 && matches!(self.stage, Stage::Captured(_)) {
            return Ok(Vec::new());
        }
        let amount =
            if amount.currency == left.currency && amount.minor > left.minor { left } else { amount };
        self.request_refund(refund_id, Some(amount), reason)
    }

    fn record_refunded(&self, refund_id: RefundId) -> Result<Vec<PaymentEvent>, PaymentError> {
        let refund = self.refund(refund_id)?;
        match refund.stage {
            RefundStage::Succeeded => Ok(Vec::new()),
            RefundStage::Failed => Err(PaymentError::RefundResolved),
            RefundStage::Requested => {
                let captured = self.captured();
                let refunded =
                    Money::new(self.refunded().minor.saturating_add(refund.amount.minor), captured.currency);
                let event = PaymentEvent::PaymentRefunded {
                    order_id: self.order_id,
                    user_id: self.user_id,
                    refund_id,
                    amount: refund.amount,
                    refunded,
                    captured,
                };
                let closed = (self.closing && refunded == captured)
                    .then_some(PaymentEvent::PaymentClosed { order_id: self.order_id });
                Ok([event].into_iter().chain(closed).collect())
            }
        }
    }

    fn close(&self) -> Vec<PaymentEvent> {
        if self.closing {
            return Vec::new();
        }
        let order_id = self.order_id;
        let consequence = match &self.stage {
            Stage::Payable | Stage::Voided(_) => Some(PaymentEvent::PaymentClosed { order_id }),
            Stage::Authorised(attempt) => Some(self.void(attempt)),
            Stage::Captured(attempt) => match self.refundable() {
                left if left.minor > 0 => Some(self.closing_refund(attempt, left)),
                _ if self.refunded() == self.captured() => Some(PaymentEvent::PaymentClosed { order_id }),
                _ => None,
            },
            Stage::Requested(_)
            | Stage::ActionRequired(_)
            | Stage::Unknown(_)
            | Stage::Capturing(_)
            | Stage::Voiding(_) => None,
        };
        [PaymentEvent::PaymentClosing { order_id }].into_iter().chain(consequence).collect()
    }

    fn void(&self, attempt: &Attempt) -> PaymentEvent {
        PaymentEvent::VoidRequested {
            order_id: self.order_id,
            attempt: attempt.number,
            amount: attempt.amount,
            gateway_reference: attempt.gateway_reference.clone(),
        }
    }

    fn closing_refund(&self, attempt: &Attempt, amount: Money) -> PaymentEvent {
        PaymentEvent::RefundRequested {
            order_id: self.order_id,
            refund_id: RefundId(self.order_id.derive("closing refund")),
            amount,
            reason: CLOSED_REASON.to_owned(),
            gateway_reference: attempt.gateway_reference.clone(),
        }
    }

    fn check_attempt(&self, attempt: u32) -> Result<(), PaymentError> {
        if (1..=self.attempts).contains(&attempt) { Ok(()) } else { Err(PaymentError::AttemptUnknown) }
    }

    fn refund(&self, refund_id: RefundId) -> Result<&Refund, PaymentError> {
        self.refunds.get(&refund_id).ok_or(PaymentError::RefundUnknown)
    }
}

decided_aggregate!(Payment, "payment", PaymentCommand, PaymentEvent, PaymentError);

impl Recorded for Payment {}
