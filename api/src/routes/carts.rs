//! Carts: one for each user, at the prices of now, and its checkout.

mod checkout;
mod drafts;
mod view;

use axum::extract::State;
use axum::http::StatusCode;
use event_store::{Context, Target};
use projections::orders::cart_contents::find_cart;
use projections::orders::customers::customer_exists;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use aggregates::carts::{Cart, CartCommand, CartEvent};
use aggregates::identifiers::{CartItemId, ProductId};
use aggregates::orders::checkout::DEFAULT_MAX_PER_LINE;

use crate::auth::Caller;
use crate::extract::{Json, Path, Query};
use crate::problem::{Problem, ProblemBody};
use crate::routes::executed::{Done, carry_out, event_at};
use crate::routes::orders::{self, OrderBody};
use crate::service::{self, Answer, HEAR_WITHIN, Write, engine, no_content, ok};
use crate::services::OrdersService;
use crate::text;

use drafts::{AddingDraft, CartItemDraft, CheckoutDraft, QuantityDraft, problem};

pub use view::{CartBody, CartItemBody};

/// The routes of carts.
pub fn paths() -> OpenApiRouter<OrdersService> {
    OpenApiRouter::new()
        .routes(routes!(read_cart, clear_cart))
        .routes(routes!(add_item))
        .routes(routes!(change_item, remove_item))
        .routes(routes!(check_out))
}

/// The routes of carts with what surrounds them.
pub fn routes(service: OrdersService) -> OpenApiRouter {
    let surroundings = service.surroundings.clone();
    service::surround(paths().with_state(service), surroundings)
}

/// Shows a cart; one that was never used is empty.
#[utoipa::path(get, path = "/v1/carts/{user_id}", tag = "carts",
    params(("user_id" = String, Path, description = "a user's id, or `me`")), security(("bearer" = [])),
    responses((status = OK, body = CartBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody), (status = NOT_FOUND, body = ProblemBody)))]
async fn read_cart(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Answer<CartBody>, Problem> {
    let user_id = owner(&service, &caller, &user).await?;
    let cart = find_cart(&service.contents, user_id).await.map_err(engine)?;
    let body = view::show(&service, user_id, &cart.lines, cart.version).await?;
    Ok(ok(body).with_version(cart.version))
}

/// Takes everything out of a cart.
#[utoipa::path(delete, path = "/v1/carts/{user_id}", tag = "carts",
    params(("user_id" = String, Path, description = "a user's id, or `me`")), security(("bearer" = [])),
    responses((status = NO_CONTENT), (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody), (status = NOT_FOUND, body = ProblemBody),
        (status = PRECONDITION_FAILED, body = ProblemBody)))]
async fn clear_cart(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(user): Path<String>,
    write: Write,
) -> Result<Answer<()>, Problem> {
    let user_id = owner(&service, &caller, &user).await?;
    let done = give(&service, user_id, CartCommand::Clear, &write).await?;
    Ok(emptied(&done))
}

/// Puts a product into a cart.
#[utoipa::path(post, path = "/v1/carts/{user_id}/items", tag = "carts",
    params(("user_id" = String, Path, description = "a user's id, or `me`"), AddingDraft),
    request_body = CartItemDraft, security(("bearer" = [])),
    responses((status = CREATED, body = CartBody, description = "the whole cart, with a new line"),
        (status = OK, body = CartBody, description = "the whole cart; the quantity was added to a line"),
        (status = UNAUTHORIZED, body = ProblemBody), (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody, description = "also `product_unknown`"),
        (status = CONFLICT, body = ProblemBody, description = "`already_in_cart`, `cart_full`, `product_unavailable`"),
        (status = PRECONDITION_FAILED, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody, description = "also `mixed_currencies`")))]
async fn add_item(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(user): Path<String>,
    adding: Result<Query<AddingDraft>, Problem>,
    write: Write,
    draft: Result<Json<CartItemDraft>, Problem>,
) -> Result<Answer<CartBody>, Problem> {
    let user_id = owner(&service, &caller, &user).await?;
    let merge = adding?.0.merge.unwrap_or(false);
    let (product_id, quantity) = draft?.0.check()?;
    let item_id = CartItemId(Uuid::now_v7());
    let max_per_line = DEFAULT_MAX_PER_LINE;
    let command = CartCommand::AddItem { item_id, product_id, quantity, max_per_line, merge };
    let done = add(&service, user_id, product_id, command, &write).await?;
    let answer = show(&service, user_id, &done).await?;
    if added_line(&service, &done, item_id).await? {
        return Ok(answer.with_status(StatusCode::CREATED).with_location(&format!("/v1/carts/{user_id}")));
    }
    Ok(answer)
}

/// Changes the quantity of a line.
#[utoipa::path(patch, path = "/v1/carts/{user_id}/items/{item_id}", tag = "carts",
    params(("user_id" = String, Path, description = "a user's id, or `me`"), ("item_id" = Uuid, Path)),
    request_body = QuantityDraft, security(("bearer" = [])),
    responses((status = OK, body = CartBody, description = "the whole cart"),
        (status = UNAUTHORIZED, body = ProblemBody), (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody), (status = PRECONDITION_FAILED, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn change_item(
    State(service): State<OrdersService>,
    caller: Caller,
    Path((user, item)): Path<(String, String)>,
    write: Write,
    draft: Result<Json<QuantityDraft>, Problem>,
) -> Result<Answer<CartBody>, Problem> {
    let user_id = owner(&service, &caller, &user).await?;
    let item_id = item_of(&item)?;
    let quantity = match draft.and_then(|draft| draft.0.check()) {
        Ok(quantity) => quantity,
        Err(problem) => {
            // A line that does not exist is told before what is wrong with the body.
            let cart = service.carts.load(&user_id.to_string()).await.map_err(engine)?.aggregate;
            let exists = cart.lines().iter().any(|line| line.item_id == item_id);
            return Err(if exists { problem } else { Problem::not_found() });
        }
    };
    let command = CartCommand::ChangeQuantity { item_id, quantity, max_per_line: DEFAULT_MAX_PER_LINE };
    let done = give(&service, user_id, command, &write).await?;
    show(&service, user_id, &done).await
}

/// Takes a line out of a cart.
#[utoipa::path(delete, path = "/v1/carts/{user_id}/items/{item_id}", tag = "carts",
    params(("user_id" = String, Path, description = "a user's id, or `me`"), ("item_id" = Uuid, Path)),
    security(("bearer" = [])),
    responses((status = NO_CONTENT), (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody), (status = NOT_FOUND, body = ProblemBody),
        (status = PRECONDITION_FAILED, body = ProblemBody)))]
async fn remove_item(
    State(service): State<OrdersService>,
    caller: Caller,
    Path((user, item)): Path<(String, String)>,
    write: Write,
) -> Result<Answer<()>, Problem> {
    let user_id = owner(&service, &caller, &user).await?;
    let command = CartCommand::RemoveItem { item_id: item_of(&item)? };
    let done = give(&service, user_id, command, &write).await?;
    Ok(emptied(&done))
}

/// Makes an order of one's cart, at the prices of now.
///
/// Answers when the stock has decided. When it does not suffice, the lines are in the cart again.
#[utoipa::path(post, path = "/v1/carts/{user_id}/checkout", tag = "carts",
    params(("user_id" = String, Path, description = "one's own id, or `me`")),
    request_body = CheckoutDraft, security(("bearer" = [])),
    responses((status = CREATED, body = OrderBody),
        (status = ACCEPTED, body = OrderBody, description = "the stock has not answered yet"),
        (status = UNAUTHORIZED, body = ProblemBody), (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody, description = "`product_unknown`"),
        (status = CONFLICT, body = ProblemBody, description = "`cart_empty`, `cart_changed`, `insufficient_stock`, `product_unavailable`"),
        (status = PRECONDITION_FAILED, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody, description = "also `mixed_currencies`")))]
async fn check_out(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(user): Path<String>,
    write: Write,
    draft: Result<Json<CheckoutDraft>, Problem>,
) -> Result<Answer<OrderBody>, Problem> {
    let user_id = user_of(&caller, &user)?;
    if user_id != caller.user_id {
        return Err(Problem::forbidden());
    }
    checkout::check_out(&service, user_id, draft?.0.check()?, &write).await
}

/// Whom the path names.
fn user_of(caller: &Caller, user: &str) -> Result<Uuid, Problem> {
    if user == "me" { Ok(caller.user_id) } else { text::uuid(user).map_err(|_| Problem::not_found()) }
}

/// Whose cart the path names: the caller's, or for admins that of any user there is.
async fn owner(service: &OrdersService, caller: &Caller, user: &str) -> Result<Uuid, Problem> {
    let user_id = user_of(caller, user)?;
    caller.must_be(user_id)?;
    // Whoever holds a good token is a user.
    if user_id == caller.user_id || customer_exists(&service.customers, user_id).await.map_err(engine)? {
        return Ok(user_id);
    }
    service.surroundings.reads.hear("users", HEAR_WITHIN).await.map_err(engine)?;
    let exists = customer_exists(&service.customers, user_id).await.map_err(engine)?;
    if exists { Ok(user_id) } else { Err(Problem::not_found()) }
}

fn item_of(item: &str) -> Result<CartItemId, Problem> {
    text::uuid(item).map(CartItemId).map_err(|_| Problem::not_found())
}

/// Adds a product to a cart that it may be added to.
async fn add(
    service: &OrdersService,
    user_id: Uuid,
    product_id: ProductId,
    command: CartCommand,
    write: &Write,
) -> Result<Done<Cart>, Problem> {
    let id = user_id.to_string();
    let target = || Target::Existing(id.clone());
    // What is remembered of a cart need not be read again: the command is carried out if it has not changed since.
    let context: Context<Cart> = write.context();
    if context.expected.is_none()
        && let Some(known) = service.carts.remembered(&id)
        && check_currency(service, user_id, product_id, &known.aggregate).await.is_ok()
    {
        let context = Context { expected: Some(known.version), ..context };
        match carry_out(&service.carts, target(), command.clone(), context, problem).await {
            Err(problem) if problem.status() == StatusCode::PRECONDITION_FAILED => {}
            done => return done,
        }
    }
    let cart = service.carts.load(&id).await.map_err(engine)?.aggregate;
    check_currency(service, user_id, product_id, &cart).await?;
    carry_out(&service.carts, target(), command, write.context(), problem).await
}

/// Sees to it that a product exists, is offered, and has its price in the currency of the cart.
async fn check_currency(
    service: &OrdersService,
    user_id: Uuid,
    product_id: ProductId,
    cart: &Cart,
) -> Result<(), Problem> {
    let offered = orders::offered(service, &[product_id.0]).await?;
    let currency = offered.get(&product_id.0).map(|row| row.currency.as_str());
    let shown = view::show(service, user_id, cart.lines(), 0).await?;
    let priced = shown.items.iter().any(|item| item.unit_price.is_some());
    if priced && currency != Some(shown.currency.as_str()) {
        return Err(orders::mixed_currencies());
    }
    Ok(())
}

async fn give(
    service: &OrdersService,
    user_id: Uuid,
    command: CartCommand,
    write: &Write,
) -> Result<Done<Cart>, Problem> {
    let target = Target::Existing(user_id.to_string());
    carry_out(&service.carts, target, command, write.context(), problem).await
}

/// 200 with the whole cart.
async fn show(
    service: &OrdersService,
    user_id: Uuid,
    done: &Done<Cart>,
) -> Result<Answer<CartBody>, Problem> {
    let body = view::show(service, user_id, done.state.lines(), done.version).await?;
    Ok(ok(body).with_version(done.version).with_position("orders", &done.id, done.position))
}

/// 204.
fn emptied(done: &Done<Cart>) -> Answer<()> {
    no_content().with_version(done.version).with_position("orders", &done.id, done.position)
}

/// Whether an addition made a line. The first copy of a repeated request gave it another id.
async fn added_line(
    service: &OrdersService,
    done: &Done<Cart>,
    item_id: CartItemId,
) -> Result<bool, Problem> {
    if !done.repeated {
        return Ok(done.state.lines().iter().any(|line| line.item_id == item_id));
    }
    let event = event_at(&service.carts, &done.id, done.sequence).await?.decode().map_err(engine)?;
    Ok(matches!(event, CartEvent::CartItemAdded { .. }))
}
