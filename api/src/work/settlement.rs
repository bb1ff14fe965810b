//! The calls of the payment gateway. Every call has a derived key, so that calling again asks the same.

use std::sync::Arc;
use std::time::Duration;

use event_store::append::CommandKey;
use event_store::timers::{Done, Due, Queue};
use event_store::{CommandBus, Context, ExecuteError, Target, crash_point, planted};
use uuid::Uuid;

use aggregates::identifiers::{OrderId, derive};
use aggregates::payments::settlement::{GatewayCall, Settlement, SettlementJob};
use aggregates::payments::{Account, Attempt, Payment, PaymentCommand, RefundStage, Stage, gateway_keys};
use aggregates::process::ProcessManager;

use crate::gateway::{Gateway, GatewayError, Reply};
use crate::services::PaymentsService;
use crate::work::Workers;

/// Calls of the gateway, each within its patience.
const QUEUE: Queue = Queue { name: Settlement::NAME, concurrency: 64, patience: Duration::from_secs(20) };
/// How long a gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a gateway is asked whether the owner of a card has done what was required of him.
const ACTION_ASKED_EVERY: Duration = Duration::from_secs(5);
/// How often it is asked at most: for ten minutes. Then the attempt is given up, so that the order can be paid otherwise,
/// or end.
const ACTION_ASKED_AT_MOST: i32 = 120;

pub(super) fn work(workers: &mut Workers, service: PaymentsService, gateway: Arc<dyn Gateway>) {
    let log = service.surroundings.log.clone();
    let handle = move |due: Due| {
        let (service, gateway) = (service.clone(), Arc::clone(&gateway));
        async move { call(&service.payments, gateway.as_ref(), due).await }
    };
    workers.work_off(&log, QUEUE, handle);
}

async fn call(payments: &CommandBus<Payment>, gateway: &dyn Gateway, due: Due) -> Done {
    let SettlementJob::CallGateway { payment_id, order_id, call } = match serde_json::from_value(due.command)
    {
        Ok(job) => job,
        Err(error) => return Done::Failed(format!("an unreadable job: {error}")),
    };
    let id = payment_id.to_string();
    let again = due.attempts > 1;
    let ask = async |payment: &Payment| {
        let asked = tokio::time::timeout(PATIENCE, ask(gateway, payment, order_id, call, due.attempts)).await;
        asked.unwrap_or(Asked::NoAnswer)
    };
    // What is remembered will do when it says that the gateway is to be called: one that was called before answers
    // the same, and what is made of its answer is decided on what the log says.
    let known = if again { None } else { payments.remembered(&id).map(|known| known.aggregate) };
    let mut asked = match &known {
        Some(known) => ask(known).await,
        None => Asked::Nothing,
    };
    if matches!(asked, Asked::Nothing) {
        asked = match payments.load(&id).await {
            Ok(loaded) => ask(&loaded.aggregate).await,
            Err(error) => return Done::Failed(error.to_string()),
        };
    }
    crash_point!("gateway-answered", gateway.name(), Done::Failed("the answer was lost".to_owned()));
    let command = match asked {
        Asked::Nothing => return Done::Finished,
        Asked::StillOpen => return Done::Again(ACTION_ASKED_EVERY),
        Asked::Answered(command) => command,
        Asked::NoAnswer => match call {
            GatewayCall::Authorise { attempt } => PaymentCommand::RecordUnknown { attempt },
            GatewayCall::Capture { .. } | GatewayCall::Void { .. } | GatewayCall::Refund { .. } => {
                return Done::Failed("the gateway did not answer".to_owned());
            }
        },
    };
    let unknown = matches!(command, PaymentCommand::RecordUnknown { .. });
    if unknown {
        // A second outage of the same attempt is news only to the log: the payment stays unknown, the job stays. What is
        // remembered may be of before the first.
        match payments.load(&id).await {
            Ok(loaded) if is_unknown(&loaded.aggregate) => {
                return Done::Failed("the gateway did not answer".to_owned());
            }
            Ok(_) => {}
            Err(error) => return Done::Failed(error.to_string()),
        }
    }
    let context = Context {
        key: Some(CommandKey {
            command_id: derive(due.id, if unknown { b"unknown" } else { b"outcome" }),
            principal: Settlement::NAME.to_owned(),
            fingerprint: Vec::new(),
            derived: true,
        }),
        ..Context::default()
    };
    match payments.execute(Target::Existing(id), command, context).await {
        Ok(_) => Done::Finished,
        Err(ExecuteError::Refused(refusal)) => {
            tracing::info!(payment.id = %payment_id, %refusal, "the payment had moved on when the gateway answered");
            Done::Finished
        }
        Err(error) => Done::Failed(error.to_string()),
    }
}

enum Asked {
    /// The payment is past the point the job is for.
    Nothing,
    Answered(PaymentCommand),
    /// The owner of the card has not done yet what is required of him.
    StillOpen,
    NoAnswer,
}

async fn ask(
    gateway: &dyn Gateway,
    payment: &Payment,
    order_id: OrderId,
    call: GatewayCall,
    tries: i32,
) -> Asked {
    let Some(account) = payment.account() else { return Asked::Nothing };
    let again = tries > 1;
    let asked_with = |key: String| {
        if again && planted!("defect-gateway-new-key") { format!("{key}:{}", Uuid::new_v4()) } else { key }
    };
    match call {
        GatewayCall::Authorise { attempt: number } => {
            let Some(attempt) = attempt_in(account, number, |stage| {
                matches!(stage, Stage::Requested(_) | Stage::Unknown(_) | Stage::ActionRequired(_))
            }) else {
                return Asked::Nothing;
            };
            let key = asked_with(gateway_keys::attempt_key(order_id, number));
            match gateway.authorise(&key, &attempt.token, attempt.amount).await {
                Ok(Reply::Approved { reference }) => answered(PaymentCommand::RecordAuthorised {
                    attempt: number,
                    gateway_reference: reference,
                }),
                Ok(Reply::Declined { reason }) => {
                    answered(PaymentCommand::RecordDeclined { attempt: number, reason })
                }
                Ok(Reply::ActionRequired) if !matches!(account.stage, Stage::ActionRequired(_)) => {
                    answered(PaymentCommand::RecordActionRequired { attempt: number })
                }
                Ok(Reply::ActionRequired) if account.closing || tries >= ACTION_ASKED_AT_MOST => {
                    let reason = "action_not_taken".to_owned();
                    answered(PaymentCommand::RecordDeclined { attempt: number, reason })
                }
                Ok(Reply::ActionRequired) => Asked::StillOpen,
                Err(GatewayError::InvalidCard) => answered(PaymentCommand::RecordDeclined {
                    attempt: number,
                    reason: "invalid_card".to_owned(),
                }),
                Err(GatewayError::NoAnswer) => Asked::NoAnswer,
            }
        }
        GatewayCall::Capture { attempt: number } => {
            let Some(attempt) = attempt_in(account, number, |stage| matches!(stage, Stage::Capturing(_)))
            else {
                return Asked::Nothing;
            };
            let key = asked_with(gateway_keys::capture_key(order_id, number));
            match gateway.capture(&key, &attempt.gateway_reference, attempt.amount).await {
                Ok(Reply::Approved { .. }) => answered(PaymentCommand::RecordCaptured { attempt: number }),
                Ok(Reply::Declined { reason }) => {
                    answered(PaymentCommand::RecordCaptureFailed { attempt: number, reason })
                }
                Ok(Reply::ActionRequired) | Err(GatewayError::InvalidCard | GatewayError::NoAnswer) => {
                    Asked::NoAnswer
                }
            }
        }
        GatewayCall::Void { attempt: number } => {
            let Some(attempt) = attempt_in(account, number, |stage| matches!(stage, Stage::Voiding(_)))
            else {
                return Asked::Nothing;
            };
            let key = asked_with(gateway_keys::void_key(order_id, number));
            match gateway.void(&key, &attempt.gateway_reference).await {
                Ok(Reply::Approved { .. }) => answered(PaymentCommand::RecordVoided { attempt: number }),
                Ok(Reply::Declined { .. } | Reply::ActionRequired)
                | Err(GatewayError::InvalidCard | GatewayError::NoAnswer) => Asked::NoAnswer,
            }
        }
        GatewayCall::Refund { refund_id } => {
            let (Some(refund), Some(attempt)) = (account.refunds.get(&refund_id), account.stage.attempt())
            else {
                return Asked::Nothing;
            };
            if refund.stage != RefundStage::Requested {
                return Asked::Nothing;
            }
            let key = asked_with(gateway_keys::refund_key(refund_id));
            match gateway.refund(&key, &attempt.gateway_reference, refund.amount).await {
                Ok(Reply::Approved { .. }) => answered(PaymentCommand::RecordRefunded { refund_id }),
                Ok(Reply::Declined { reason }) => {
                    answered(PaymentCommand::RecordRefundFailed { refund_id, reason })
                }
                Ok(Reply::ActionRequired) | Err(GatewayError::InvalidCard | GatewayError::NoAnswer) => {
                    Asked::NoAnswer
                }
            }
        }
    }
}

/// Whether it is not known what became of the payment's attempt.
fn is_unknown(payment: &Payment) -> bool {
    matches!(payment.account().map(|account| &account.stage), Some(Stage::Unknown(_)))
}

fn answered(command: PaymentCommand) -> Asked {
    Asked::Answered(command)
}

fn attempt_in(account: &Account, number: u32, wanted: impl Fn(&Stage) -> bool) -> Option<&Attempt> {
    account.stage.attempt().filter(|attempt| attempt.number == number && wanted(&account.stage))
}

#[cfg(test)]
mod tests {
    use aggregates::identifiers::{PaymentId, UserId};
    use aggregates::money::{Currency, Money};
    use async_trait::async_trait;
    use chrono::Utc;
    use embedded::testing;
    use event_store::Log;

    use super::*;
    use crate::gateway::{Card, CardToken};
    use crate::services::bus;

    /// Answers each authorisation alike, and nothing else.
    struct Answering(Result<Reply, GatewayError>);

    const SILENT: Answering = Answering(Err(GatewayError::NoAnswer));

    #[async_trait]
    impl Gateway for Answering {
        fn name(&self) -> &'static str {
            "answering"
        }

        async fn tokenise(&self, _card: Card) -> Result<CardToken, GatewayError> {
            Err(GatewayError::NoAnswer)
        }

        async fn describe(&self, _token: &str) -> Result<CardToken, GatewayError> {
            Err(GatewayError::NoAnswer)
        }

        async fn authorise(&self, _key: &str, _token: &str, _amount: Money) -> Result<Reply, GatewayError> {
            self.0.clone()
        }

        async fn capture(&self, _key: &str, _reference: &str, _amount: Money) -> Result<Reply, GatewayError> {
            Err(GatewayError::NoAnswer)
        }

        async fn void(&self, _key: &str, _reference: &str) -> Result<Reply, GatewayError> {
            Err(GatewayError::NoAnswer)
        }

        async fn refund(&self, _key: &str, _reference: &str, _amount: Money) -> Result<Reply, GatewayError> {
            Err(GatewayError::NoAnswer)
        }
    }

    /// A call of the gateway for the first attempt of a payment, in a timer of its own.
    fn due(id: u128, payment_id: PaymentId, order_id: OrderId) -> Due {
        let job =
            SettlementJob::CallGateway { payment_id, order_id, call: GatewayCall::Authorise { attempt: 1 } };
        let command = serde_json::to_value(job).expect("json");
        Due { id: Uuid::from_u128(id), command, attempts: 1, now: Some(Utc::now()) }
    }

    /// A payment of which an attempt was made.
    async fn attempted(payments: &CommandBus<Payment>) -> (PaymentId, OrderId) {
        let (payment_id, order_id) = (PaymentId(Uuid::from_u128(1)), OrderId(Uuid::from_u128(2)));
        let user_id = UserId(Uuid::from_u128(3));
        let amount = Money::new(1_999, Currency::USD);
        let opened = PaymentCommand::Open { order_id, user_id, amount };
        let attempted = PaymentCommand::RequestAttempt {
            token: "tok".to_owned(),
            card_brand: "visa".to_owned(),
            card_last4: "4242".to_owned(),
            paid_by: user_id,
            by_admin: false,
            amount: None,
        };
        for command in [opened, attempted] {
            let target = Target::Existing(payment_id.to_string());
            payments.execute(target, command, Context::default()).await.expect("accepted");
        }
        (payment_id, order_id)
    }

    #[tokio::test]
    async fn a_job_stays_for_what_another_process_found_unknown_and_is_unknown_still() {
        let database = testing::database("settlement").await;
        let open = || Log::open("payments", &database.url, [7; 32]).expect("the URL is good");
        let (here, elsewhere) = (open(), open());
        here.migrate().await.expect("the migrations apply");
        let (payments, others): (CommandBus<Payment>, CommandBus<Payment>) = (bus(&here), bus(&elsewhere));
        let (payment_id, order_id) = attempted(&payments).await;
        // The other process calls first, and notes that nothing is known.
        assert_eq!(call(&others, &SILENT, due(4, payment_id, order_id)).await, Done::Finished);
        // The job that stands for it comes to this one, which has not seen that.
        let remembered = payments.remembered(&payment_id.to_string()).expect("remembered").aggregate;
        assert!(!is_unknown(&remembered));
        let done = call(&payments, &SILENT, due(5, payment_id, order_id)).await;
        assert_eq!(done, Done::Failed("the gateway did not answer".to_owned()));
    }

    #[tokio::test]
    async fn an_action_of_the_cards_owner_is_asked_for_until_it_is_taken_or_given_up() {
        let database = testing::database("action").await;
        let log = Log::open("payments", &database.url, [7; 32]).expect("the URL is good");
        log.migrate().await.expect("the migrations apply");
        let payments: CommandBus<Payment> = bus(&log);
        let (payment_id, order_id) = attempted(&payments).await;
        let required = Answering(Ok(Reply::ActionRequired));
        let stage = async || {
            let loaded = payments.load(&payment_id.to_string()).await.expect("loaded");
            loaded.aggregate.account().expect("opened").stage.clone()
        };
        assert_eq!(call(&payments, &required, due(4, payment_id, order_id)).await, Done::Finished);
        assert!(matches!(stage().await, Stage::ActionRequired(_)));
        // The job that follows from that.
        let again = |tries| Due { attempts: tries, ..due(5, payment_id, order_id) };
        assert_eq!(call(&payments, &required, again(1)).await, Done::Again(ACTION_ASKED_EVERY));
        assert_eq!(
            call(&payments, &SILENT, again(2)).await,
            Done::Finished,
            "that the gateway is silent is told"
        );
        assert!(matches!(stage().await, Stage::Unknown(_)));
        assert_eq!(call(&payments, &required, due(6, payment_id, order_id)).await, Done::Finished);
        let given_up = Due { attempts: ACTION_ASKED_AT_MOST, ..due(7, payment_id, order_id) };
        assert_eq!(call(&payments, &required, given_up).await, Done::Finished);
        assert_eq!(stage().await, Stage::Payable, "it can be paid otherwise");
    }
}
