//! Whatever happens, in whatever order it arrives: live rows equal rebuilt ones (G6).

use std::collections::BTreeMap;

use aggregates::carts::{Cart, CartCommand};
use aggregates::catalog::{Product, ProductCommand};
use aggregates::identifiers::{CartItemId, NotificationId, OrderId, PaymentId, ProductId, RefundId, UserId};
use aggregates::inventory::{ReleaseReason, StockItem, StockItemCommand};
use aggregates::lines::OrderLine;
use aggregates::notifications::{Channel, DeliveryError, Notification, NotificationCommand, Template};
use aggregates::orders::{Order, OrderCommand};
use aggregates::payments::{Payment, PaymentCommand};
use aggregates::records::Recorded;
use aggregates::users::{Role, User, UserCommand};
use cqrs_es::Aggregate;
use embedded::testing;
use event_store::broker::{Broker, BrokerConfig};
use event_store::{CommandBus, Context, ExecuteError, PARTITIONS, Target, relay};
use projections::event::{SERVICES, encoder};
use projections::rebuild::Outcome;
use projections::registry;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::answering::usd;
use crate::mart::Mart;

/// How many commands are given in one mixture.
const COMMANDS: usize = 1_200;
/// How many aggregates of each kind they go to.
const AGGREGATES: usize = 6;

/// The buses of all aggregates, and the ids they are used with.
struct Shop {
    users: CommandBus<User>,
    products: CommandBus<Product>,
    stock: CommandBus<StockItem>,
    carts: CommandBus<Cart>,
    orders: CommandBus<Order>,
    payments: CommandBus<Payment>,
    notifications: CommandBus<Notification>,
    ids: Vec<Uuid>,
}

/// Gives a command; the domain may refuse it.
async fn give<A>(bus: &CommandBus<A>, id: impl ToString, command: A::Command)
where
    A: Aggregate<Services = ()> + Recorded + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    match bus.execute(Target::Existing(id.to_string()), command, Context::default()).await {
        Ok(_) | Err(ExecuteError::Refused(_)) => {}
        Err(error) => panic!("not carried out: {error}"),
    }
}

impl Shop {
    fn of(mart: &Mart) -> Self {
        Self {
            users: mart.bus("users"),
            products: mart.bus("catalog"),
            stock: mart.bus("inventory"),
            carts: mart.bus("orders"),
            orders: mart.bus("orders"),
            payments: mart.bus("payments"),
            notifications: mart.bus("notifications"),
            ids: (0..AGGREGATES).map(|_| Uuid::now_v7()).collect(),
        }
    }

    /// Opens everything, so that later commands have something to change.
    async fn open(&self) {
        for id in &self.ids {
            give(&self.users, id, register(*id)).await;
            give(&self.products, id, list(id)).await;
            give(&self.stock, id, StockItemCommand::Open { low_stock_threshold: Some(5) }).await;
            let payment_id = PaymentId::of(OrderId(*id));
            let (order_id, user_id) = (OrderId(*id), UserId(*id));
            give(&self.payments, payment_id, PaymentCommand::Open { order_id, user_id, amount: usd(500) })
                .await;
            give(&self.orders, id, place(*id, self.lines(2))).await;
            give(&self.notifications, NotificationId::of(*id, "registration", "email"), queue(*id)).await;
        }
    }

    fn lines(&self, quantity: u32) -> Vec<OrderLine> {
        let line = |id: &Uuid| OrderLine {
            product_id: ProductId(*id),
            name: "Apple".to_owned(),
            quantity,
            unit_price: usd(250),
        };
        self.ids.iter().take(2).map(line).collect()
    }

    async fn something(&self, random: &mut StdRng) {
        let id = *self.ids.choose(random).expect("there are some");
        let other = *self.ids.choose(random).expect("there are some");
        let number = random.random_range(1..9_u32);
        match random.random_range(0..7) {
            0 => give(&self.users, id, user_command(random, number)).await,
            1 => give(&self.products, id, product_command(random, number)).await,
            2 => give(&self.stock, id, stock_command(random, OrderId(other), number)).await,
            3 => give(&self.carts, id, cart_command(random, other, number)).await,
            4 => give(&self.orders, id, self.order_command(random, ProductId(other), number)).await,
            5 => {
                let command = payment_command(random, UserId(id), RefundId(other), number);
                give(&self.payments, PaymentId::of(OrderId(id)), command).await;
            }
            _ => {
                let notification_id = NotificationId::of(id, "registration", "email");
                give(&self.notifications, notification_id, notification_command(random)).await;
            }
        }
    }

    fn order_command(&self, random: &mut StdRng, product_id: ProductId, number: u32) -> OrderCommand {
        let now = chrono::Utc::now();
        match random.random_range(0..13) {
            0 | 1 => OrderCommand::RecordReserved { product_ids: vec![product_id], now },
            2 => OrderCommand::Edit {
                lines: None,
                shipping_address: Some(format!("{number} Some Street")),
                customer_notes: Some(String::new()),
            },
            3 => OrderCommand::Edit {
                lines: Some(self.lines(number)),
                shipping_address: None,
                customer_notes: Some("ring".to_owned()),
            },
            4 => OrderCommand::RecordAdjusted { product_id, quantity: number, revision: 1 },
            5 => OrderCommand::RecordPaymentAuthorised { attempt: 1, amount: usd(1_000) },
            6 | 7 => OrderCommand::RecordCommitted { product_ids: vec![product_id] },
            8 => OrderCommand::RecordPaymentCaptured { amount: usd(1_000) },
            9 => OrderCommand::Ship { lines: vec![] },
            10 => OrderCommand::Deliver,
            11 => OrderCommand::RequestReturn { lines: vec![] },
            _ => OrderCommand::ReceiveReturn { resellable: true },
        }
    }
}

fn register(id: Uuid) -> UserCommand {
    UserCommand::Register {
        user_id: UserId(id),
        email: format!("{id}@example.org"),
        username: None,
        first_name: "Ada".to_owned(),
        last_name: "Lovelace".to_owned(),
        phone: None,
        password_hash: "hash".to_owned(),
        role: Role::Customer,
    }
}

fn list(id: &Uuid) -> ProductCommand {
    ProductCommand::List {
        name: format!("product {id}"),
        description: String::new(),
        country_of_origin: None,
        price: usd(250),
        sku: None,
        categories: vec!["fruit".to_owned()],
        images: vec![],
        attributes: BTreeMap::new(),
        opening_stock: Some(5),
    }
}

fn place(id: Uuid, lines: Vec<OrderLine>) -> OrderCommand {
    OrderCommand::PlaceOrder {
        order_id: OrderId(id),
        user_id: UserId(id),
        lines,
        shipping_address: "1 Secret Street".to_owned(),
        customer_notes: None,
        from_cart: false,
        pay_within_seconds: 900,
    }
}

fn queue(id: Uuid) -> NotificationCommand {
    NotificationCommand::Queue {
        user_id: UserId(id),
        template: Template::Registration,
        channel: Channel::Email,
        cause: id,
        order_id: None,
    }
}

fn user_command(random: &mut StdRng, number: u32) -> UserCommand {
    match random.random_range(0..80) {
        0 => UserCommand::Erase { other_admins: true },
        1..=16 => UserCommand::Disable { other_admins: true },
        17..=32 => UserCommand::Enable,
        33..=48 => UserCommand::GrantRole { role: Role::Staff, other_admins: true },
        49..=60 => UserCommand::RevokeRole { other_admins: true },
        _ => UserCommand::ChangeProfile {
            email: Some(format!("{}@example.org", Uuid::now_v7())),
            username: None,
            first_name: Some(format!("Ada {number}")),
            last_name: None,
            phone: Some("+44 20 7946 0018".to_owned()),
        },
    }
}

fn product_command(random: &mut StdRng, number: u32) -> ProductCommand {
    match random.random_range(0..16) {
        0 => ProductCommand::Discontinue,
        1..=4 => ProductCommand::Withdraw,
        5..=9 => ProductCommand::Relist,
        10..=12 => ProductCommand::Categorise { categories: vec![format!("category {number}")] },
        _ => ProductCommand::Reprice { price: usd(i64::from(number)) },
    }
}

fn stock_command(random: &mut StdRng, reservation: OrderId, quantity: u32) -> StockItemCommand {
    let (reason, now) = (None, chrono::Utc::now());
    match random.random_range(0..16) {
        0..=4 => StockItemCommand::Receive { quantity, reason },
        5 => StockItemCommand::Remove { quantity, reason },
        6 => StockItemCommand::SetLowStockThreshold { low_stock_threshold: Some(quantity) },
        7..=10 => StockItemCommand::Reserve { reservation, quantity, until: None },
        11 | 12 => StockItemCommand::Commit { reservation, quantity },
        13 => StockItemCommand::Release { reservation, why: ReleaseReason::Cancelled, now },
        _ => StockItemCommand::Ship { reservation, quantity, now },
    }
}

fn cart_command(random: &mut StdRng, other: Uuid, number: u32) -> CartCommand {
    match random.random_range(0..80) {
        0 => CartCommand::Abandon,
        1..=8 => CartCommand::Clear,
        9..=20 => CartCommand::RemoveItem { item_id: CartItemId(other) },
        21..=36 => {
            CartCommand::ChangeQuantity { item_id: CartItemId(other), quantity: number, max_per_line: 9 }
        }
        _ => CartCommand::AddItem {
            item_id: CartItemId(other),
            product_id: ProductId(other),
            quantity: number,
            max_per_line: 99,
            merge: true,
        },
    }
}

fn payment_command(random: &mut StdRng, paid_by: UserId, refund_id: RefundId, number: u32) -> PaymentCommand {
    let attempt = random.random_range(1..4);
    match random.random_range(0..14) {
        0..=3 => PaymentCommand::RequestAttempt {
            token: "token".to_owned(),
            card_brand: "visa".to_owned(),
            card_last4: "4242".to_owned(),
            paid_by,
            by_admin: false,
            amount: None,
        },
        4 => PaymentCommand::RecordUnknown { attempt },
        5 | 6 => PaymentCommand::RecordAuthorised { attempt, gateway_reference: "reference".to_owned() },
        7 => PaymentCommand::RecordDeclined { attempt, reason: "no".to_owned() },
        8 => PaymentCommand::Capture,
        9 => PaymentCommand::RecordCaptured { attempt },
        10 => PaymentCommand::RequestRefund {
            refund_id,
            amount: Some(usd(i64::from(number))),
            reason: String::new(),
        },
        11 => PaymentCommand::RecordRefunded { refund_id },
        12 => PaymentCommand::RecordRefundFailed { refund_id, reason: "no".to_owned() },
        _ => PaymentCommand::ChangeAmount { amount: usd(i64::from(number)) },
    }
}

fn notification_command(random: &mut StdRng) -> NotificationCommand {
    match random.random_range(0..10) {
        0 => NotificationCommand::RecordSent,
        1..=4 => NotificationCommand::Retry,
        _ => NotificationCommand::RecordFailed { error: DeliveryError::Deferred, retry: true },
    }
}

/// Gives a mixture of commands while all projectors run, then rebuilds every read model and compares.
async fn mixture(seed: u64, broker: Option<Broker>) {
    let mut mart = Mart::with_broker(&SERVICES, broker.clone()).await;
    let stop = CancellationToken::new();
    let mut relays = Vec::new();
    for service in SERVICES {
        if let Some(broker) = &broker {
            let log = mart.log(service).clone();
            relays.push(tokio::spawn(relay::run(log, broker.clone(), encoder(service), stop.clone())));
        }
        mart.project(service).await;
    }
    let shop = Shop::of(&mart);
    shop.open().await;
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..COMMANDS {
        shop.something(&mut random).await;
    }
    for service in SERVICES {
        mart.settle(service).await;
    }
    for name in registry::all_names() {
        let outcome = mart.verify(name).await;
        assert!(matches!(outcome, Outcome::Equal { rows: 1.. }), "seed {seed}: {name}: {outcome:?}");
    }
    mart.stop().await;
    stop.cancel();
    for relay in relays {
        relay.await.expect("ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_rows_equal_rebuilt_ones_after_any_mixture_followed_from_the_logs() {
    for seed in [1, 2] {
        mixture(seed, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_rows_equal_rebuilt_ones_after_any_mixture_that_came_over_kafka() {
    let server = testing::broker();
    let config = BrokerConfig {
        topic_prefix: server.topic_prefix().to_owned(),
        embedded: server.is_embedded(),
        ..BrokerConfig::new(server.bootstrap_servers())
    };
    server.make_topics(&SERVICES.map(|service| config.topic_of(service)), PARTITIONS).await;
    mixture(3, Some(Broker::new(config))).await;
}
