//! Payments: paying an order, reading payments, and giving money back.

mod attempt;
mod card;
mod refunds;
mod refusals;
mod view;

use axum::extract::State;
use event_store::event::partition_of;
use event_store::read_your_writes::Place;
use event_store::{Context, Target};
use projections::live::TimeCursor;
use projections::payments::payments::{find_payment, list_payments};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use aggregates::identifiers::OrderId;
use aggregates::orders::Details;
use aggregates::payments::{Payment, PaymentCommand};

use crate::auth::Caller;
use crate::clock;
use crate::extract::{Json, Page, PageDraft, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::routes::executed::{Done, carry_out};
use crate::service::{self, Answer, READ_WITHIN, Write, engine, ok};
use crate::services::PaymentsService;

use card::PayingDraft;
use refunds::RefundDraft;
use refusals::problem;

pub use view::{PaymentBody, RefundBody};

/// The routes of payments.
pub fn paths() -> OpenApiRouter<PaymentsService> {
    OpenApiRouter::new()
        .routes(routes!(pay_order))
        .routes(routes!(list))
        .routes(routes!(read_payment))
        .routes(routes!(refund_payment))
        .routes(routes!(receive_webhook))
}

/// The routes of payments with what surrounds them.
pub fn routes(service: PaymentsService) -> OpenApiRouter {
    let surroundings = service.surroundings.clone();
    service::surround(paths().with_state(service), surroundings)
}

/// Pays an order.
///
/// Answers when the money is received or the card is declined. While the gateway has not answered it is 202, and
/// the payment goes on without the client.
#[utoipa::path(post, path = "/v1/orders/{id}/payments", tag = "payments", params(("id" = Uuid, Path)),
    request_body = PayingDraft, security(("bearer" = [])),
    responses((status = OK, body = PaymentBody, description = "the money is received"),
        (status = ACCEPTED, body = PaymentBody, description = "the gateway has not answered yet"),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = PAYMENT_REQUIRED, body = ProblemBody, description = "`card_declined`"),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`already_paid`, `payment_in_progress`, `payment_closed`"),
        (status = PRECONDITION_FAILED, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn pay_order(
    State(service): State<PaymentsService>,
    caller: Caller,
    Path(order_id): Path<Uuid>,
    write: Write,
    draft: Result<Json<PayingDraft>, Problem>,
) -> Result<Answer<PaymentBody>, Problem> {
    let account = attempt::payable(&service, &caller, order_id).await?;
    let paying = draft?.0.check(account.amount.currency, clock::now().date_naive())?;
    attempt::check_amount(&service, account, paying.amount).await?;
    attempt::pay(&service, &caller, OrderId(order_id), paying, &write).await
}

/// Lists payments that somebody has tried to make, newest first: those of one's own orders, or for admins all.
#[utoipa::path(get, path = "/v1/payments", tag = "payments", params(PageDraft), security(("bearer" = [])),
    responses((status = OK, body = Listed<PaymentBody>), (status = UNAUTHORIZED, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn list(
    State(service): State<PaymentsService>,
    caller: Caller,
    Query(draft): Query<PageDraft>,
) -> Result<Answer<Listed<PaymentBody>>, Problem> {
    let page = Page::try_from(draft)?;
    let after = page.cursor.map(|cursor| cursor.key::<TimeCursor>()).transpose()?;
    let whose = (!caller.is_admin()).then_some(caller.user_id);
    let found = list_payments(&service.listing, whose, after, page.limit).await.map_err(engine)?;
    let payments = found.rows.into_iter().map(PaymentBody::of_row).collect::<Result<Vec<_>, _>>()?;
    Ok(ok(Listed::new(payments, found.next)))
}

/// Shows a payment.
#[utoipa::path(get, path = "/v1/payments/{id}", tag = "payments", params(("id" = Uuid, Path)),
    security(("bearer" = [])),
    responses((status = OK, body = PaymentBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody)))]
async fn read_payment(
    State(service): State<PaymentsService>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Answer<PaymentBody>, Problem> {
    let row = find_payment(&service.listing, id).await.map_err(engine)?;
    let seen = row.filter(|row| row.user_id == caller.user_id || caller.is_admin());
    let row = seen.ok_or_else(Problem::not_found)?;
    let version = row.version;
    Ok(ok(PaymentBody::of_row(row)?).with_version(version))
}

/// Gives money back: an amount, or all that is left.
#[utoipa::path(post, path = "/v1/payments/{id}/refunds", tag = "payments", params(("id" = Uuid, Path)),
    request_body = RefundDraft, security(("bearer" = [])),
    responses((status = CREATED, body = RefundBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody), (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`refund_exceeds_payment`, `not_captured`"),
        (status = PRECONDITION_FAILED, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn refund_payment(
    State(service): State<PaymentsService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    write: Write,
    draft: Result<Json<RefundDraft>, Problem>,
) -> Result<Answer<RefundBody>, Problem> {
    caller.must_be_admin()?;
    let payment = service.payments.load(&id.to_string()).await.map_err(engine)?.aggregate;
    let currency = payment.account().ok_or_else(Problem::not_found)?.amount.currency;
    let wanted = draft?.0.check(currency)?;
    refunds::refund(&service, id, wanted, &write).await
}

/// Takes what a gateway has to say. The simulated gateway says nothing by itself, so there is none yet.
#[utoipa::path(post, path = "/v1/webhooks/{gateway}", tag = "payments", params(("gateway" = String, Path)),
    responses((status = NOT_FOUND, body = ProblemBody, description = "there is no such gateway, or it sends nothing")))]
async fn receive_webhook(Path(_gateway): Path<String>) -> Problem {
    Problem::not_found()
}

/// Gives a payment a command.
async fn give(
    service: &PaymentsService,
    target: Target,
    command: PaymentCommand,
    context: Context<Payment>,
) -> Result<Done<Payment>, Problem> {
    carry_out(&service.payments, target, command, context, problem).await
}

/// Waits, within bounds, until the orders service shows what happened to a payment, where it runs here. `has_heard`
/// tells it from the order.
async fn heard_by_orders(
    service: &PaymentsService,
    order_id: OrderId,
    id: &str,
    position: i64,
    has_heard: impl Fn(&Details) -> bool,
) -> Result<(), Problem> {
    if let Some(orders) = &service.orders
        && orders.checkout.up_to(id, position, READ_WITHIN).await.map_err(engine)?
    {
        let order_id = order_id.to_string();
        // Where this process has given the order the news itself, the log need not be asked where the order ends.
        let remembered = orders.orders.remembered(&order_id);
        let known = remembered.filter(|known| known.aggregate.details().is_some_and(has_heard));
        let reads = &orders.reads;
        let shown = match known.and_then(|known| known.position()) {
            Some(position) => {
                let partition = Some(partition_of(&order_id));
                reads.wait(&Place { source: "orders".to_owned(), partition, position }, READ_WITHIN).await
            }
            None => reads.hear_of("orders", "order", &order_id, READ_WITHIN).await,
        };
        shown.map_err(engine)?;
    }
    Ok(())
}
