//! One test for each read model: what happened, and what its queries answer.

use std::collections::BTreeMap;

use aggregates::carts::{Cart, CartEvent, CartLine};
use aggregates::catalog::{Product, ProductEvent};
use aggregates::identifiers::{CartItemId, OrderId, PaymentId, ProductId, RefundId, UserId};
use aggregates::inventory::{Levels, StockItem, StockItemEvent};
use aggregates::lines::{LineQuantity, OrderLine};
use aggregates::money::{Currency, Money};
use aggregates::notifications::{Channel, DeliveryError, Notification, NotificationEvent, Template};
use aggregates::orders::{Order, OrderEvent, OrderStatus, PaymentStatus};
use aggregates::payments::{Payment, PaymentEvent, RefundStage};
use aggregates::personal::Personal;
use aggregates::users::{Role, User, UserEvent};
use projections::TimeCursor;
use projections::inventory::stock_levels::{self, StockRow, StockStatus};
use projections::notifications::message_log::{self, MessageRow, MessageStatus};
use projections::orders::cart_contents::{self, CartRow};
use projections::orders::order_details::{self, OrderRow};
use projections::orders::price_list::{self, PriceRow, Prices};
use projections::orders::{CartContents, Customers, OrderDetails, PriceList, customers};
use projections::payments::payments::{self, PaymentRow, PaymentState, RefundRow};
use projections::rebuild::Outcome;
use projections::users::UserDirectory;
use projections::users::user_directory;
use sqlx::Row;
use uuid::Uuid;

use crate::mart::Mart;

pub(crate) fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

pub(crate) fn registered(id: Uuid, email: &str, username: Option<&str>, role: Role) -> UserEvent {
    UserEvent::UserRegistered {
        user_id: UserId(id),
        email: email.to_owned().into(),
        username: username.map(|name| name.to_owned().into()),
        first_name: "Ada".to_owned().into(),
        last_name: "Love_lace".to_owned().into(),
        phone: Some("+44 20 7946 0018".to_owned().into()),
        password_hash: "hash".to_owned().into(),
        role,
    }
}

pub(crate) fn listed(name: &str, price: i64) -> ProductEvent {
    ProductEvent::ProductListed {
        name: name.to_owned(),
        description: "100% good".to_owned(),
        country_of_origin: "Chile".to_owned(),
        price: usd(price),
        sku: Some(format!("sku {name}")),
        categories: vec!["fruit".to_owned(), "fresh".to_owned()],
        images: vec!["https://example.org/a.png".to_owned()],
        attributes: BTreeMap::from([("colour".to_owned(), "red".to_owned())]),
        opening_stock: None,
    }
}

fn line(product_id: Uuid, quantity: u32) -> OrderLine {
    OrderLine { product_id: ProductId(product_id), name: "Apple".to_owned(), quantity, unit_price: usd(250) }
}

pub(crate) fn placed(order_id: Uuid, user_id: Uuid, lines: Vec<OrderLine>) -> OrderEvent {
    OrderEvent::OrderPlaced {
        order_id: OrderId(order_id),
        user_id: UserId(user_id),
        lines,
        total: usd(1_000),
        shipping_address: "1 Secret Street".to_owned().into(),
        customer_notes: Some("ring twice".to_owned().into()),
        from_cart: false,
        pay_within_seconds: 900,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_searched_found_by_their_names_and_gone_when_erased() {
    let mut mart = Mart::of(&["users"]).await;
    let live = mart.live::<UserDirectory>("users");
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    for (id, (email, username, role)) in ids.iter().zip([
        ("Ada@Example.org", Some("Countess"), Role::Admin),
        ("100%@example.org", None, Role::Customer),
        ("eve@example.org", Some("eve"), Role::Admin),
    ]) {
        let event = registered(*id, email, username, role);
        mart.given::<User>("users", &id.to_string(), vec![event]).await;
    }
    mart.given::<User>(
        "users",
        &ids[1].to_string(),
        vec![
            UserEvent::ProfileChanged {
                username: Some("bob".to_owned().into()),
                first_name: "Bob".to_owned().into(),
                last_name: "Ümlaut".to_owned().into(),
                phone: None,
            },
            UserEvent::RoleGranted { role: Role::Staff },
            UserEvent::UserDisabled,
        ],
    )
    .await;
    mart.project("users").await;
    mart.settle("users").await;

    let bob = user_directory::find_user_by_login(&live, "BOB").await.expect("answers").expect("there");
    assert_eq!(user_directory::find_user(&live, ids[1]).await.expect("answers"), Some(bob.clone()));
    assert_eq!(
        (bob.email.as_str(), bob.username.as_deref(), bob.first_name.as_str(), bob.last_name.as_str()),
        ("100%@example.org", Some("bob"), "Bob", "Ümlaut")
    );
    assert_eq!((bob.phone, bob.role, bob.disabled, bob.version), (None, Role::Staff, true, 4));
    let by_mail = user_directory::find_user_by_login(&live, "ada@EXAMPLE.ORG").await.expect("answers");
    assert_eq!(by_mail.map(|row| row.id), Some(ids[0]));
    assert_eq!(user_directory::find_user_by_login(&live, "").await.expect("answers"), None);
    for (search, expected) in [
        (None, vec![ids[0], ids[1], ids[2]]),
        (Some("0%@"), vec![ids[1]]),
        (Some("%"), vec![ids[1]]),
        (Some("e_l"), vec![ids[0], ids[2]]),
        (Some("üMLAUT"), vec![ids[1]]),
        (Some("\\"), vec![]),
    ] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = user_directory::list_users(&live, search, after, 1).await.expect("answers");
            found.extend(page.rows.iter().map(|row| row.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{search:?}");
    }
    assert_eq!(user_directory::count_admins(&live).await.expect("answers"), 2);
    assert!(user_directory::has_other_admins(&live, ids[0]).await.expect("answers"));

    mart.given::<User>("users", &ids[2].to_string(), vec![UserEvent::UserErased { user_id: UserId(ids[2]) }])
        .await;
    mart.log("users").personal().forget(ids[2]).await.expect("forgets");
    mart.settle("users").await;
    assert_eq!(user_directory::find_user_by_login(&live, "eve").await.expect("answers"), None);
    assert!(!user_directory::has_other_admins(&live, ids[0]).await.expect("answers"));
    assert_eq!(mart.verify("user_directory").await, Outcome::Equal { rows: 2 });
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_shows_the_levels_and_hides_what_is_closed() {
    let mut mart = Mart::of(&["inventory"]).await;
    let live = mart.live("inventory");
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    let levels = Levels { on_hand: 10, held: 3, committed: 2, sold: 7 };
    for id in &ids {
        mart.given::<StockItem>(
            "inventory",
            &id.to_string(),
            vec![
                StockItemEvent::StockItemOpened { low_stock_threshold: Some(4) },
                StockItemEvent::StockReceived { quantity: 10, reason: None, levels },
            ],
        )
        .await;
    }
    let closed = StockItemEvent::StockItemClosed { levels: Levels::default() };
    mart.given::<StockItem>("inventory", &ids[1].to_string(), vec![closed]).await;
    mart.project("inventory").await;
    mart.settle("inventory").await;
    let expected = StockRow {
        id: ids[0].to_string(),
        product_id: ids[0],
        location: "main".to_owned(),
        on_hand: 10,
        held: 3,
        committed: 2,
        available: 5,
        reserved: 5,
        sold: 7,
        low_stock_threshold: Some(4),
        status: StockStatus::Open,
        version: 2,
    };
    assert_eq!(stock_levels::find_stock(&live, ids[0]).await.expect("answers"), Some(expected.clone()));
    assert_eq!(stock_levels::find_stock(&live, ids[1]).await.expect("answers"), None);
    let first = stock_levels::list_stock(&live, None, 1).await.expect("answers");
    assert_eq!((first.rows, first.next.clone()), (vec![expected], Some(ids[0].to_string())));
    let rest = stock_levels::list_stock(&live, first.next.as_deref(), 5).await.expect("answers");
    let rest: Vec<Uuid> = rest.rows.iter().map(|row| row.product_id).collect();
    assert_eq!(rest, [ids[2]]);
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_know_prices_customers_and_carts() {
    let mut mart = Mart::of(&["users", "catalog", "orders"]).await;
    let (user, gone, product, withdrawn) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    for id in [user, gone] {
        let event = registered(id, &format!("{id}@example.org"), None, Role::Customer);
        mart.given::<User>("users", &id.to_string(), vec![event]).await;
    }
    mart.given::<User>("users", &gone.to_string(), vec![UserEvent::UserErased { user_id: UserId(gone) }])
        .await;
    let repriced = ProductEvent::ProductRepriced { price: usd(300), previous: usd(250) };
    mart.given::<Product>("catalog", &product.to_string(), vec![listed("Apple", 250), repriced]).await;
    let events = vec![listed("Pear", 100), ProductEvent::ProductWithdrawn];
    mart.given::<Product>("catalog", &withdrawn.to_string(), events).await;
    let (first, second) = (CartItemId(Uuid::now_v7()), CartItemId(Uuid::now_v7()));
    let (product_id, other_id) = (ProductId(product), ProductId(withdrawn));
    mart.given::<Cart>(
        "orders",
        &user.to_string(),
        vec![
            CartEvent::CartItemAdded { item_id: second, product_id: other_id, quantity: 1 },
            CartEvent::CartItemAdded { item_id: first, product_id, quantity: 1 },
            CartEvent::CartItemQuantityChanged { item_id: second, product_id: other_id, quantity: 5 },
        ],
    )
    .await;
    mart.given::<Cart>(
        "orders",
        &gone.to_string(),
        vec![CartEvent::CartItemAdded { item_id: first, product_id, quantity: 1 }, CartEvent::CartAbandoned],
    )
    .await;
    mart.project("orders").await;
    mart.settle("orders").await;

    let customers = mart.live::<Customers>("orders");
    for (id, exists) in [(user, true), (gone, false), (Uuid::now_v7(), false)] {
        assert_eq!(customers::customer_exists(&customers, id).await.expect("answers"), exists);
    }
    let price = |product_id, name: &str, price_minor, buyable| PriceRow {
        product_id,
        name: name.to_owned(),
        price_minor,
        currency: "USD".to_owned(),
        buyable,
        discontinued: false,
    };
    let wanted = [withdrawn, product, Uuid::now_v7()];
    let prices = Prices::new(mart.live::<PriceList>("orders"));
    let found = price_list::find_prices(&prices, &wanted).await.expect("answers");
    let expected = [price(product, "Apple", 300, true), price(withdrawn, "Pear", 100, false)];
    assert_eq!(found.into_values().collect::<Vec<_>>(), expected);
    // What is remembered gives way to what was written since, however often.
    for minor in [310, 320] {
        let (price, previous) = (Money::new(minor, Currency::USD), Money::new(minor - 10, Currency::USD));
        let repriced = vec![ProductEvent::ProductRepriced { price, previous }];
        mart.given::<Product>("catalog", &product.to_string(), repriced).await;
        mart.settle("orders").await;
        let found = price_list::find_prices(&prices, &[product]).await.expect("answers");
        assert_eq!(found[&product].price_minor, minor);
    }
    let carts = mart.live::<CartContents>("orders");
    let lines = vec![
        CartLine { item_id: second, product_id: other_id, quantity: 5 },
        CartLine { item_id: first, product_id, quantity: 1 },
    ];
    let cart = cart_contents::find_cart(&carts, user).await.expect("answers");
    assert_eq!(cart, CartRow { user_id: user, lines, version: 3 });
    let cart = cart_contents::find_cart(&carts, gone).await.expect("answers");
    assert_eq!(cart, CartRow { user_id: gone, lines: vec![], version: 0 });
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_shown_whole_and_its_address_dies_with_its_customer() {
    let mut mart = Mart::of(&["users", "catalog", "orders"]).await;
    let live = mart.live::<OrderDetails>("orders");
    let (order, user, product) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let some = vec![LineQuantity { product_id: ProductId(product), quantity: 1 }];
    let user_id = UserId(user);
    mart.given::<Order>(
        "orders",
        &order.to_string(),
        vec![
            placed(order, user, vec![line(product, 4)]),
            OrderEvent::OrderLinesEdited {
                user_id,
                revision: 1,
                lines: vec![line(product, 2)],
                total: usd(500),
                decreases: vec![],
            },
            OrderEvent::OrderPaymentCaptured { amount: usd(500), payment_status: PaymentStatus::Paid },
            OrderEvent::OrderShipped { user_id, lines: some.clone(), status: OrderStatus::PartiallyShipped },
            OrderEvent::OrderShipped { user_id, lines: some.clone(), status: OrderStatus::Shipped },
            OrderEvent::OrderDelivered { user_id },
            OrderEvent::OrderReturned { user_id, lines: some.clone(), resellable: true, refund: usd(250) },
        ],
    )
    .await;
    mart.given::<Order>(
        "orders",
        &Uuid::now_v7().to_string(),
        vec![placed(Uuid::now_v7(), Uuid::now_v7(), vec![line(product, 1)])],
    )
    .await;
    mart.project("orders").await;
    mart.settle("orders").await;
    let page = order_details::list_orders(&live, Some(user), None, 10).await.expect("answers");
    let expected = OrderRow {
        id: order,
        user_id: user,
        lines: vec![line(product, 2)],
        total_minor: 500,
        currency: "USD".to_owned(),
        order_status: OrderStatus::Delivered,
        payment_status: PaymentStatus::Paid,
        shipped: vec![LineQuantity { product_id: ProductId(product), quantity: 2 }],
        returned: some,
        shipping_address: Personal::Known("1 Secret Street".to_owned()),
        customer_notes: Some(Personal::Known("ring twice".to_owned())),
        pay_by: None,
        created_at: page.rows[0].created_at,
        version: 7,
    };
    assert_eq!((page.rows, page.next), (vec![expected.clone()], None));
    let table = live.table().await.expect("a table");
    let stored: String = sqlx::query(&format!("select row_to_json(t)::text from {table} t where id = $1"))
        .bind(order)
        .fetch_one(live.database())
        .await
        .expect("a row")
        .get(0);
    assert!(!stored.contains("Secret") && !stored.contains("ring"), "the table holds it in the clear");

    mart.log("orders").personal().forget(user).await.expect("forgets");
    let after = order_details::find_order(&live, order).await.expect("answers");
    let expected = OrderRow { shipping_address: Personal::Gone, customer_notes: None, ..expected };
    assert_eq!(after, Some(expected));
    assert_eq!(mart.verify("order_details").await, Outcome::Equal { rows: 2 });
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_tell_their_status_and_their_refunds() {
    let mut mart = Mart::of(&["payments"]).await;
    let live = mart.live("payments");
    let user = Uuid::now_v7();
    let orders: Vec<OrderId> = (0..3).map(|_| OrderId(Uuid::now_v7())).collect();
    let refund_id = RefundId(Uuid::now_v7());
    for order_id in &orders {
        let opened =
            PaymentEvent::PaymentOpened { order_id: *order_id, user_id: UserId(user), amount: usd(500) };
        mart.given::<Payment>("payments", &PaymentId::of(*order_id).to_string(), vec![opened]).await;
    }
    let attempt = |order_id, attempt| PaymentEvent::PaymentAttemptRequested {
        order_id,
        attempt,
        amount: usd(500),
        token: "token".to_owned(),
        card_brand: "visa".to_owned(),
        card_last4: "4242".to_owned(),
        paid_by: UserId(user),
    };
    let declined = PaymentEvent::PaymentDeclined { order_id: orders[1], attempt: 1, reason: "no".to_owned() };
    let events = vec![attempt(orders[1], 1), declined];
    mart.given::<Payment>("payments", &PaymentId::of(orders[1]).to_string(), events).await;
    let order_id = orders[2];
    mart.given::<Payment>(
        "payments",
        &PaymentId::of(order_id).to_string(),
        vec![
            attempt(order_id, 1),
            PaymentEvent::PaymentAuthorised {
                order_id,
                attempt: 1,
                amount: usd(500),
                gateway_reference: "reference".to_owned(),
            },
            PaymentEvent::PaymentCaptured { order_id, user_id: UserId(user), attempt: 1, amount: usd(500) },
            PaymentEvent::RefundRequested {
                order_id,
                refund_id,
                amount: usd(200),
                reason: "bruised".to_owned(),
                gateway_reference: "reference".to_owned(),
            },
            PaymentEvent::PaymentRefunded {
                order_id,
                user_id: UserId(user),
                refund_id,
                amount: usd(200),
                refunded: usd(200),
                captured: usd(500),
            },
        ],
    )
    .await;
    let never = PaymentId::of(OrderId(Uuid::now_v7())).to_string();
    let closing = PaymentEvent::PaymentClosing { order_id };
    mart.given::<Payment>("payments", &never, vec![closing]).await;
    mart.project("payments").await;
    mart.settle("payments").await;

    let found = payments::find_payment_of_order(&live, order_id.0).await.expect("answers").expect("there");
    let expected = PaymentRow {
        id: PaymentId::of(order_id).0,
        order_id: order_id.0,
        user_id: user,
        status: PaymentState::PartiallyRefunded,
        amount_minor: 500,
        currency: "USD".to_owned(),
        card_brand: Some("visa".to_owned()),
        card_last4: Some("4242".to_owned()),
        attempt: 1,
        captured_minor: 500,
        refunded_minor: 200,
        refunds: vec![RefundRow {
            id: refund_id,
            amount_minor: 200,
            reason: "bruised".to_owned(),
            status: RefundStage::Succeeded,
            created_at: found.refunds[0].created_at,
        }],
        created_at: found.created_at,
        version: 6,
    };
    assert_eq!(found, expected);
    let cursor = TimeCursor { created_at: found.created_at, id: found.id };
    let first = payments::list_payments(&live, Some(user), None, 1).await.expect("answers");
    assert_eq!((first.rows, first.next), (vec![expected], Some(cursor)));
    let rest = payments::list_payments(&live, None, Some(cursor), 5).await.expect("answers");
    let told: Vec<(Uuid, PaymentState)> = rest.rows.iter().map(|row| (row.order_id, row.status)).collect();
    assert_eq!(told, [(orders[1].0, PaymentState::Declined)], "what nobody tried to pay is not listed");
    let open = payments::find_payment_of_order(&live, orders[0].0).await.expect("answers");
    assert_eq!(open.map(|row| row.status), Some(PaymentState::Open));
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_tell_how_far_they_got() {
    let mut mart = Mart::of(&["notifications"]).await;
    let live = mart.live("notifications");
    let (user, cause) = (Uuid::now_v7(), Uuid::now_v7());
    let ids: Vec<Uuid> = (0..2).map(|_| Uuid::now_v7()).collect();
    for (id, template) in ids.iter().zip([Template::Registration, Template::OrderReceived]) {
        let queued = NotificationEvent::NotificationQueued {
            user_id: UserId(user),
            template,
            channel: Channel::Email,
            cause,
            order_id: None,
        };
        let failed = NotificationEvent::NotificationFailed { error: DeliveryError::Unreachable, attempts: 1 };
        mart.given::<Notification>("notifications", &id.to_string(), vec![queued, failed]).await;
    }
    let sent = NotificationEvent::NotificationSent { attempts: 2 };
    mart.given::<Notification>("notifications", &ids[0].to_string(), vec![sent]).await;
    mart.project("notifications").await;
    mart.settle("notifications").await;
    let found = message_log::find_message(&live, ids[0]).await.expect("answers").expect("there");
    let expected = MessageRow {
        id: ids[0],
        user_id: user,
        channel: Channel::Email,
        template: Template::Registration,
        subject: "New User Registration ".to_owned(),
        status: MessageStatus::Sent,
        attempts: 2,
        error: None,
        cause,
        order_id: None,
        created_at: found.created_at,
        sent_at: found.sent_at,
        version: 3,
    };
    assert!(found.sent_at > Some(found.created_at));
    assert_eq!(found, expected);
    let page = message_log::list_messages(&live, Some(user), None, 1).await.expect("answers");
    let told: Vec<(Uuid, MessageStatus)> = page.rows.iter().map(|row| (row.id, row.status)).collect();
    assert_eq!(told, [(ids[1], MessageStatus::Failed)]);
    let rest = message_log::list_messages(&live, None, page.next, 5).await.expect("answers");
    assert_eq!((rest.rows, rest.next), (vec![expected], None));
    mart.stop().await;
}
