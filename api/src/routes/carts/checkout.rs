//! From a cart to an order.

use event_store::append::CommandKey;
use event_store::{Context, ExecuteError, Target};
use uuid::Uuid;

use aggregates::carts::{Cart, CartCommand, CartEvent};
use aggregates::identifiers::{OrderId, UserId};
use aggregates::lines::LineQuantity;
use aggregates::orders::checkout::{Checkout, CheckoutEvent, DEFAULT_MAX_PER_LINE};
use aggregates::orders::{OrderError, OrdersCommand};
use aggregates::process::{Cause, ProcessManager, Reaction, command_id};

use crate::extract::Freshness;
use crate::problem::Problem;
use crate::routes::carts::drafts::Destination;
use crate::routes::carts::give;
use crate::routes::executed::{Done, event_at};
use crate::routes::orders::{self, OrderBody};
use crate::service::{Answer, READ_WITHIN, Write, engine, refused};
use crate::services::OrdersService;

/// Makes an order of a cart, and answers when the stock has decided.
///
/// # Errors
/// 409 for a cart that is empty or changed meanwhile, and when the stock does not suffice: the lines are then
/// in the cart again.
pub(super) async fn check_out(
    service: &OrdersService,
    user_id: Uuid,
    destination: Destination,
    write: &Write,
) -> Result<Answer<OrderBody>, Problem> {
    let id = user_id.to_string();
    let cart = service.carts.load(&id).await.map_err(engine)?.aggregate;
    let wanted =
        cart.lines().iter().map(|line| LineQuantity { product_id: line.product_id, quantity: line.quantity });
    // An empty cart is refused by the cart itself, which knows a request that it has already granted.
    let lines = orders::price(service, &wanted.collect::<Vec<_>>()).await?;
    let command = CartCommand::CheckOut {
        order_id: OrderId(Uuid::now_v7()),
        user_id: UserId(user_id),
        lines,
        shipping_address: destination.shipping_address,
        customer_notes: destination.customer_notes,
    };
    let done = give(service, user_id, command, write).await?;
    let order_id = place(service, &done, write).await?;
    let seat = service.arrivals.seat(&order_id.to_string());
    let answered = orders::answer_placed(service, &seat, None, None, write.freshness).await;
    if write.freshness == Freshness::Wait {
        show_cart(service, &done, order_id, answered.is_err()).await?;
    }
    answered
}

/// Places the order as the checkout process does on hearing of the cart: it is one command under one id,
/// whoever comes first.
async fn place(service: &OrdersService, done: &Done<Cart>, write: &Write) -> Result<OrderId, Problem> {
    let mut recorded = event_at(&service.carts, &done.id, done.sequence).await?;
    recorded.open(service.carts.log().personal()).await.map_err(engine)?;
    let event: CartEvent = recorded.decode().map_err(engine)?;
    let cause = Cause {
        event_id: recorded.event_id(),
        source: "orders",
        aggregate_id: recorded.aggregate_id.clone(),
        sequence: recorded.sequence,
        position: recorded.position,
        recorded_at: recorded.recorded_at,
        actor: recorded.metadata.actor,
    };
    let process = Checkout {
        pay_within_seconds: orders::pay_within_seconds(service),
        max_per_line: DEFAULT_MAX_PER_LINE,
    };
    let reactions = process.react(&cause, &CheckoutEvent::Carts(event)).map_err(Problem::internal)?;
    let Some(Reaction::Command { step, target: OrdersCommand::Order(order_id, command) }) =
        reactions.into_iter().next()
    else {
        return Err(Problem::internal("a checkout placed no order"));
    };
    let key = CommandKey {
        command_id: command_id(cause.event_id, &step),
        principal: Checkout::NAME.to_owned(),
        fingerprint: Vec::new(),
        derived: true,
    };
    let context = Context { key: Some(key), causation_id: Some(cause.event_id), ..write.step("place") };
    let target = Target::Existing(order_id.to_string());
    match service.orders.execute(target, command, context).await {
        Ok(_) | Err(ExecuteError::Refused(OrderError::AlreadyPlaced)) => Ok(order_id),
        Err(error) => {
            let unclaimed = |scope: &str| Problem::internal(format!("an order claims no {scope}"));
            Err(refused(error, orders::problem, unclaimed))
        }
    }
}

/// Waits until the cart reads as the answer implies: empty, or with its lines again after a refusal.
async fn show_cart(
    service: &OrdersService,
    done: &Done<Cart>,
    order_id: OrderId,
    refused: bool,
) -> Result<(), Problem> {
    let position = if refused {
        let reopened = |cart: &Cart| match cart {
            Cart::Active(contents) => !contents.checkouts.contains(&order_id),
            Cart::Abandoned => true,
        };
        let waited = service.arrivals.wait_for(&service.carts, &done.id, READ_WITHIN, reopened).await;
        let version = waited.map_err(engine)?.version;
        event_at(&service.carts, &done.id, version).await?.position
    } else {
        done.position
    };
    let place = orders::place_of(&done.id, position);
    service.surroundings.reads.wait(&place, READ_WITHIN).await.map_err(engine)?;
    Ok(())
}
