//! Users, carts, products and notifications: one acceptance and one refusal for each rule that matters most.

use aggregates::carts::{Cart, CartCommand, CartError, CartEvent};
use aggregates::catalog::{Product, ProductCommand, ProductError};
use aggregates::identifiers::{CartItemId, OrderId, ProductId, SessionId, UserId};
use aggregates::lines::{LineQuantity, OrderLine};
use aggregates::money::{Currency, Money};
use aggregates::notifications::{Channel, Template};
use aggregates::notifications::{
    DeliveryError, MAX_ATTEMPTS, Notification, NotificationCommand, NotificationEvent,
};
use aggregates::personal::Personal;
use aggregates::records::{Claim, Recorded};
use aggregates::users::{Role, SessionEnd, User, UserCommand, UserError, UserEvent};
use chrono::{DateTime, TimeDelta, Utc};
use cqrs_es::Aggregate;
use cqrs_es::test::TestFramework;
use uuid::Uuid;

const USER: UserId = UserId(Uuid::from_u128(1));
const SESSION: SessionId = SessionId(Uuid::from_u128(2));
const ITEM: CartItemId = CartItemId(Uuid::from_u128(3));
const PRODUCT: ProductId = ProductId(Uuid::from_u128(4));
const ORDER: OrderId = OrderId(Uuid::from_u128(5));

fn registered(role: Role) -> UserEvent {
    let known = |text: &str| Personal::Known(text.to_owned());
    UserEvent::UserRegistered {
        user_id: USER,
        email: known("Ada@Example.com"),
        username: Some(known("ada")),
        first_name: known("Ada"),
        last_name: known(""),
        phone: None,
        password_hash: known("$argon2id$"),
        role,
    }
}

fn started() -> UserEvent {
    let expires_at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(15);
    UserEvent::SessionStarted { session_id: SESSION, refresh_hash: "first".to_owned(), expires_at }
}

fn rotate(presented: &str) -> UserCommand {
    UserCommand::RotateSession {
        session_id: SESSION,
        presented_hash: presented.to_owned(),
        new_hash: "second".to_owned(),
        expires_at: DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(30),
        now: DateTime::<Utc>::UNIX_EPOCH,
    }
}

#[test]
fn the_last_admin_keeps_the_role() {
    let user = || TestFramework::<User>::with(()).given(vec![registered(Role::Admin)]);
    user().when(UserCommand::RevokeRole { other_admins: false }).then_expect_error(UserError::LastAdmin);
    user()
        .when(UserCommand::RevokeRole { other_admins: true })
        .then_expect_events(vec![UserEvent::RoleRevoked { role: Role::Admin }]);
}

#[test]
fn a_reused_refresh_token_ends_its_session() {
    TestFramework::<User>::with(())
        .given(vec![registered(Role::Customer), started()])
        .when(rotate("stolen"))
        .then_expect_events(vec![UserEvent::SessionReuseDetected { session_id: SESSION }]);
    TestFramework::<User>::with(())
        .given(vec![
            registered(Role::Customer),
            started(),
            UserEvent::SessionReuseDetected { session_id: SESSION },
        ])
        .when(rotate("first"))
        .then_expect_error(UserError::SessionUnknown);
}

#[test]
fn a_changed_password_ends_the_other_sessions() {
    TestFramework::<User>::with(())
        .given(vec![registered(Role::Customer), started()])
        .when(UserCommand::ChangePassword { password_hash: "new".to_owned(), keep: None })
        .then_expect_events(vec![
            UserEvent::PasswordChanged { password_hash: "new".to_owned().into() },
            UserEvent::SessionEnded { session_id: SESSION, why: SessionEnd::PasswordChanged },
        ]);
}

#[test]
fn an_erased_user_frees_the_names_and_refuses_everything() {
    let mut user = User::default();
    user.apply(registered(Role::Customer));
    let erased = UserEvent::UserErased { user_id: USER };
    assert_eq!(
        User::CLAIMS.expect("users claim names")(&user, &erased),
        vec![
            Claim::release("email", "ada@example.com".to_owned()),
            Claim::release("username", "ada".to_owned())
        ]
    );
    user.apply(erased);
    assert_eq!(user.decide(UserCommand::Enable), Err(UserError::Erased));
}

fn added(quantity: u32) -> CartEvent {
    CartEvent::CartItemAdded { item_id: ITEM, product_id: PRODUCT, quantity }
}

fn add(merge: bool) -> CartCommand {
    CartCommand::AddItem { item_id: ITEM, product_id: PRODUCT, quantity: 3, max_per_line: 5, merge }
}

fn check_out(quantity: u32) -> CartCommand {
    let unit_price = Money::new(100, Currency::USD);
    CartCommand::CheckOut {
        order_id: ORDER,
        user_id: USER,
        lines: vec![OrderLine { product_id: PRODUCT, name: "thing".to_owned(), quantity, unit_price }],
        shipping_address: "1 High Street".to_owned(),
        customer_notes: None,
    }
}

#[test]
fn a_product_has_one_line_and_a_line_has_a_limit() {
    let cart = || TestFramework::<Cart>::with(()).given(vec![added(3)]);
    cart().when(add(false)).then_expect_error(CartError::AlreadyInCart);
    cart().when(add(true)).then_expect_error(CartError::QuantityOutOfRange { min: 1, max: 5 });
    TestFramework::<Cart>::with(())
        .given_no_previous_events()
        .when(add(false))
        .then_expect_events(vec![added(3)]);
}

#[test]
fn a_cart_is_checked_out_as_it_was_priced_or_not_at_all() {
    TestFramework::<Cart>::with(())
        .given_no_previous_events()
        .when(check_out(3))
        .then_expect_error(CartError::CartEmpty);
    TestFramework::<Cart>::with(())
        .given(vec![added(3)])
        .when(check_out(2))
        .then_expect_error(CartError::CartChanged);
}

#[test]
fn the_lines_of_a_refused_order_come_back_once() {
    let mut cart = Cart::default();
    cart.apply(added(3));
    for event in cart.decide(check_out(3)).expect("the cart is checked out") {
        cart.apply(event);
    }
    assert!(cart.lines().is_empty());
    let reopen = CartCommand::Reopen {
        order_id: ORDER,
        lines: vec![LineQuantity { product_id: PRODUCT, quantity: 3 }],
        max_per_line: 5,
    };
    for event in cart.decide(reopen.clone()).expect("the lines come back") {
        cart.apply(event);
    }
    assert_eq!(cart.lines().iter().map(|line| line.quantity).collect::<Vec<_>>(), vec![3]);
    assert_eq!(cart.decide(reopen), Ok(Vec::new()));
}

#[test]
fn a_product_is_not_sold_below_nothing() {
    let list = |minor: i64| ProductCommand::List {
        name: "Laptop".to_owned(),
        description: String::new(),
        country_of_origin: None,
        price: Money::new(minor, Currency::USD),
        sku: None,
        categories: Vec::new(),
        images: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
        opening_stock: None,
    };
    assert_eq!(Product::default().decide(list(-1)), Err(ProductError::NegativePrice));
    assert_eq!(Product::default().decide(list(0)).map(|events| events.len()), Ok(1));
}

#[test]
fn a_message_is_given_up_after_its_last_attempt() {
    let mut message = Notification::default();
    message.apply(NotificationEvent::NotificationQueued {
        user_id: USER,
        template: Template::Registration,
        channel: Channel::Email,
        cause: Uuid::nil(),
        order_id: None,
    });
    let error = DeliveryError::Unreachable;
    for _ in 1..MAX_ATTEMPTS {
        let failed = message.decide(NotificationCommand::RecordFailed { error, retry: true });
        failed.expect("a failure is recorded").into_iter().for_each(|event| message.apply(event));
    }
    assert_eq!(
        message.decide(NotificationCommand::RecordFailed { error, retry: true }),
        Ok(vec![NotificationEvent::NotificationGivenUp { error, attempts: MAX_ATTEMPTS }])
    );
}
