//! Whole journeys of one order through orders, inventory and payments, in any order of delivery: the process
//! managers and the aggregates together, without any engine.

use std::ops::Range;

use aggregates::carts::Cart;
use aggregates::identifiers::{OrderId, PaymentId, ProductId, StockItemId, UserId};
use aggregates::inventory::reservations::{Reservations, ReservationsEvent};
use aggregates::inventory::{InventoryCommand, StockItem, StockItemCommand, StockItemEvent};
use aggregates::lines::OrderLine;
use aggregates::money::{Currency, Money};
use aggregates::orders::checkout::{Checkout, CheckoutEvent};
use aggregates::orders::{Order, OrderCommand, OrderEvent, OrderStatus, OrdersCommand};
use aggregates::payments::settlement::{GatewayCall, Settlement, SettlementEvent, SettlementJob};
use aggregates::payments::{Payment, PaymentCommand, PaymentEvent, PaymentsCommand};
use aggregates::process::{Cause, ProcessManager, Reaction};
use chrono::{DateTime, TimeDelta, Utc};
use cqrs_es::{Aggregate, DomainEvent};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use uuid::Uuid;

const ORDER: OrderId = OrderId(Uuid::from_u128(1));
const USER: UserId = UserId(Uuid::from_u128(2));

fn product(number: u128) -> ProductId {
    ProductId(Uuid::from_u128(10 + number))
}

fn line(number: u128, quantity: u32) -> OrderLine {
    let unit_price = Money::new(1_000, Currency::USD);
    OrderLine { product_id: product(number), name: "thing".to_owned(), quantity, unit_price }
}

/// Three services with a log each, and how far each process manager has read.
struct Mart {
    order: Order,
    payment: Payment,
    stock: [StockItem; 2],
    orders: Vec<OrderEvent>,
    inventory: Vec<(ProductId, StockItemEvent)>,
    payments: Vec<PaymentEvent>,
    calls: Vec<GatewayCall>,
    read: [usize; 5],
}

impl Mart {
    fn new(stocked: [u32; 2]) -> Self {
        let mut mart = Self {
            order: Order::default(),
            payment: Payment::default(),
            stock: [StockItem::default(), StockItem::default()],
            orders: Vec::new(),
            inventory: Vec::new(),
            payments: Vec::new(),
            calls: Vec::new(),
            read: [0; 5],
        };
        for (number, quantity) in [(0, stocked[0]), (1, stocked[1])] {
            mart.tell_stock(product(number), StockItemCommand::Open { low_stock_threshold: None });
            mart.tell_stock(product(number), StockItemCommand::Receive { quantity, reason: None });
        }
        mart.tell_order(OrderCommand::PlaceOrder {
            order_id: ORDER,
            user_id: USER,
            lines: vec![line(0, 2), line(1, 2)],
            shipping_address: "1 High Street".to_owned(),
            customer_notes: None,
            from_cart: false,
            pay_within_seconds: 900,
        });
        mart
    }

    fn tell_order(&mut self, command: OrderCommand) {
        for event in self.order.decide(command).unwrap_or_default() {
            self.order.apply(event.clone());
            self.orders.push(event);
        }
    }

    fn tell_payment(&mut self, command: PaymentCommand) {
        for event in self.payment.decide(command).unwrap_or_default() {
            self.payment.apply(event.clone());
            self.payments.push(event);
        }
    }

    fn tell_stock(&mut self, product_id: ProductId, command: StockItemCommand) {
        let index = usize::from(product_id == product(1));
        for event in self.stock[index].decide(command).unwrap_or_default() {
            self.stock[index].apply(event.clone());
            self.inventory.push((product_id, event));
        }
    }

    /// One process manager reads one event; false when it has read all.
    fn deliver(&mut self, reader: usize) -> bool {
        let place = self.read[reader];
        let logs = [
            self.orders.len(),
            self.orders.len(),
            self.inventory.len(),
            self.payments.len(),
            self.payments.len(),
        ];
        if place >= logs[reader] {
            return false;
        }
        self.read[reader] += 1;
        match reader {
            0 => {
                let event = ReservationsEvent::Orders(self.orders[place].clone());
                for reaction in Reservations.react(&cause(ORDER), &event).expect("an id") {
                    if let Reaction::Command { target: InventoryCommand::StockItem(id, command), .. } =
                        reaction
                    {
                        self.tell_stock(id.product_id, command);
                    }
                }
            }
            1 => self.settle(&SettlementEvent::Orders(self.orders[place].clone()), &cause(ORDER)),
            2 => self.check_out_stock(place..place + 1),
            3 => {
                let event = CheckoutEvent::Payments(self.payments[place].clone());
                self.check_out(&event, &cause(PaymentId::of(ORDER)));
            }
            _ => {
                let event = SettlementEvent::Payments(self.payments[place].clone());
                self.settle(&event, &cause(PaymentId::of(ORDER)));
            }
        }
        true
    }

    /// Checkout reads what the stock said meanwhile in one batch.
    fn deliver_stock(&mut self) {
        let new = self.read[2]..self.inventory.len();
        self.read[2] = new.end;
        self.check_out_stock(new);
    }

    /// The answers of the stock come again, from one of the last on: checkout's process ended before it noted them.
    fn redeliver_stock(&mut self, count: usize) {
        self.read[2] = self.read[2].saturating_sub(count);
    }

    fn check_out_stock(&mut self, places: Range<usize>) {
        let mut commands: Vec<OrdersCommand> = Vec::new();
        for (product_id, event) in &self.inventory[places] {
            let (event, cause) =
                (CheckoutEvent::Inventory(event.clone()), cause(StockItemId::main(*product_id)));
            for reaction in Checkout::default().react(&cause, &event).expect("an id") {
                let Reaction::Command { target, .. } = reaction else { continue };
                if !commands.last_mut().is_some_and(|earlier| Checkout::merge(earlier, &target)) {
                    commands.push(target);
                }
            }
        }
        for command in commands {
            if let OrdersCommand::Order(_, command) = command {
                self.tell_order(command);
            }
        }
    }

    fn check_out(&mut self, event: &CheckoutEvent, cause: &Cause) {
        for reaction in Checkout::default().react(cause, event).expect("an id") {
            if let Reaction::Command { target: OrdersCommand::Order(_, command), .. } = reaction {
                self.tell_order(command);
            }
        }
    }

    fn settle(&mut self, event: &SettlementEvent, cause: &Cause) {
        for reaction in Settlement.react(cause, event).expect("an id") {
            match reaction {
                Reaction::Command { target: PaymentsCommand::Payment(_, command), .. } => {
                    self.tell_payment(command);
                }
                Reaction::Schedule { job: SettlementJob::CallGateway { call, .. }, .. } => {
                    self.calls.push(call)
                }
                Reaction::Unschedule { .. } => {}
            }
        }
    }

    /// The gateway answers the oldest call.
    fn answer(&mut self, approves: bool) -> bool {
        if self.calls.is_empty() {
            return false;
        }
        let reason = "no".to_owned();
        let command = match self.calls.remove(0) {
            GatewayCall::Authorise { attempt } if approves => {
                PaymentCommand::RecordAuthorised { attempt, gateway_reference: "g".to_owned() }
            }
            GatewayCall::Authorise { attempt } => PaymentCommand::RecordDeclined { attempt, reason },
            GatewayCall::Capture { attempt } if approves => PaymentCommand::RecordCaptured { attempt },
            GatewayCall::Capture { attempt } => PaymentCommand::RecordCaptureFailed { attempt, reason },
            GatewayCall::Void { attempt } => PaymentCommand::RecordVoided { attempt },
            GatewayCall::Refund { refund_id } => PaymentCommand::RecordRefunded { refund_id },
        };
        self.tell_payment(command);
        true
    }

    fn pay(&mut self) {
        self.tell_payment(PaymentCommand::RequestAttempt {
            token: "t".to_owned(),
            card_brand: "visa".to_owned(),
            card_last4: "4242".to_owned(),
            paid_by: USER,
            by_admin: false,
            amount: None,
        });
    }

    fn act(&mut self, action: u8) {
        match action % 14 {
            reader @ 0..=4 => {
                self.deliver(usize::from(reader));
            }
            5 => self.pay(),
            6 => {
                self.answer(true);
            }
            7 => {
                self.answer(false);
            }
            8 => self.tell_order(OrderCommand::Cancel { by_admin: action > 128 }),
            9 => self.tell_order(OrderCommand::Expire { now: now() + TimeDelta::hours(1) }),
            10 => self.tell_order(OrderCommand::Edit {
                lines: Some(vec![line(0, u32::from(action % 5) + 1)]),
                shipping_address: None,
                customer_notes: None,
            }),
            11 => self.tell_order(OrderCommand::Ship { lines: Vec::new() }),
            12 => self.deliver_stock(),
            _ => self.redeliver_stock(usize::from(action % 3) + 1),
        }
    }

    /// Everything that is under way arrives.
    fn drain(&mut self) {
        loop {
            let mut moved = self.answer(true);
            for reader in 0..5 {
                moved |= self.deliver(reader);
            }
            if !moved {
                return;
            }
        }
    }
}

fn now() -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH
}

fn cause(aggregate_id: impl ToString) -> Cause {
    Cause {
        event_id: Uuid::nil(),
        source: "test",
        aggregate_id: aggregate_id.to_string(),
        sequence: 1,
        position: 1,
        recorded_at: now(),
        actor: None,
    }
}

fn status(mart: &Mart) -> OrderStatus {
    mart.order.details().expect("the order was placed").status
}

#[test]
fn an_order_that_is_paid_is_confirmed_and_shipped() {
    let mut mart = Mart::new([5, 5]);
    mart.drain();
    assert_eq!(status(&mart), OrderStatus::AwaitingPayment);
    mart.pay();
    mart.drain();
    assert_eq!(status(&mart), OrderStatus::Confirmed);
    mart.tell_order(OrderCommand::Ship { lines: Vec::new() });
    mart.drain();
    assert_eq!(status(&mart), OrderStatus::Shipped);
    assert_eq!((mart.stock[0].levels.on_hand, mart.stock[0].levels.sold), (3, 2));
}

fn names(events: &[OrderEvent]) -> Vec<String> {
    events.iter().map(DomainEvent::event_type).collect()
}

#[test]
fn answers_that_come_together_are_one_event() {
    let mut mart = Mart::new([5, 5]);
    mart.deliver(0);
    mart.deliver_stock();
    assert_eq!(names(&mart.orders), ["OrderPlaced", "OrderAwaitingPayment"]);
    mart.pay();
    mart.drain();
    let held = mart.orders.len();
    mart.redeliver_stock(4);
    mart.deliver_stock();
    assert_eq!(mart.orders.len(), held, "what is known is no news: {:?}", names(&mart.orders));
}

#[test]
fn answers_that_come_apart_are_told_apart_until_the_last() {
    let mut mart = Mart::new([5, 5]);
    mart.drain();
    assert_eq!(names(&mart.orders), ["OrderPlaced", "OrderLineReserved", "OrderAwaitingPayment"]);
    mart.pay();
    mart.drain();
    let committed = names(&mart.orders).split_off(3);
    assert_eq!(
        committed,
        [
            "OrderPaymentAttempted",
            "OrderPaymentAuthorised",
            "OrderCommitting",
            "OrderLineCommitted",
            "OrderConfirmed",
            "OrderPaymentCaptured"
        ]
    );
}

#[test]
fn lines_that_are_held_are_told_where_another_is_short() {
    let mut mart = Mart::new([1, 5]);
    mart.deliver(0);
    mart.deliver_stock();
    assert_eq!(
        names(&mart.orders),
        ["OrderPlaced", "OrderLineRejected", "OrderLineReserved", "OrderRejected"]
    );
}

#[test]
fn an_order_that_is_short_is_rejected_and_holds_nothing() {
    let mut mart = Mart::new([5, 1]);
    mart.drain();
    assert_eq!(status(&mart), OrderStatus::Rejected);
    assert_eq!(mart.stock[0].levels.held, 0);
}

#[test]
fn a_cart_that_never_was_is_empty() {
    assert!(Cart::default().lines().is_empty());
}

proptest! {
    #[test]
    fn no_journey_takes_money_twice_or_keeps_it_without_goods(
        first in 0_u32..6,
        second in 0_u32..6,
        actions in vec(any::<u8>(), 0..120),
    ) {
        let mut mart = Mart::new([first, second]);
        for action in actions {
            mart.act(action);
        }
        mart.drain();

        // What a snapshot keeps is what it gives back.
        let kept = serde_json::to_string(&(&mart.order, &mart.payment, &mart.stock)).expect("states are kept");
        let given = serde_json::from_str::<(Order, Payment, [StockItem; 2])>(&kept).expect("and given back");
        prop_assert!(given == (mart.order.clone(), mart.payment.clone(), mart.stock.clone()));
        let kept = serde_json::to_string(&(&mart.orders, &mart.payments)).expect("events are kept");
        let given: (Vec<OrderEvent>, Vec<PaymentEvent>) = serde_json::from_str(&kept).expect("and given back");
        prop_assert!(given == (mart.orders.clone(), mart.payments.clone()));

        let captures = mart.payments.iter().filter(|event| matches!(event, PaymentEvent::PaymentCaptured { .. }));
        prop_assert!(captures.count() <= 1);
        let (captured, refunded) = mart
            .payment
            .account()
            .map_or((0, 0), |account| (account.captured().minor, account.refunded().minor));
        prop_assert!(refunded <= captured);

        let details = mart.order.details().expect("the order was placed");
        let total = details.total.minor;
        let reserved: u32 = mart.stock.iter().map(|stock| stock.levels.reserved()).sum();
        let ordered: u32 = details.lines.iter().map(|line| line.bought.quantity).sum();
        match details.status {
            OrderStatus::AwaitingPayment => {
                prop_assert!(details.edit.is_none());
                prop_assert_eq!((captured, reserved), (0, ordered));
            }
            OrderStatus::Confirmed => {
                let committed: u32 = mart.stock.iter().map(|stock| stock.levels.committed).sum();
                prop_assert_eq!((captured, committed, reserved), (total, ordered, ordered));
            }
            OrderStatus::Shipped => prop_assert_eq!((captured, reserved), (total, 0)),
            OrderStatus::Rejected | OrderStatus::Expired | OrderStatus::Cancelled => {
                prop_assert_eq!((captured - refunded, reserved), (0, 0));
                prop_assert!(mart.payment.account().is_none_or(|account| account.closed));
            }
            stuck => prop_assert!(false, "the order is stuck in {:?}", stuck),
        }
    }
}
