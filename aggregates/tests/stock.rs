//! The stock item: its rules, and what holds after any commands.

use aggregates::identifiers::OrderId;
use aggregates::inventory::{
    Levels, ReleaseReason, ReturnCondition, StockItem, StockItemCommand, StockItemError, StockItemEvent,
};
use chrono::{DateTime, TimeDelta, Utc};
use cqrs_es::Aggregate;
use cqrs_es::test::TestFramework;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use uuid::Uuid;

fn order(number: u8) -> OrderId {
    OrderId(Uuid::from_u128(u128::from(number) + 1))
}

fn at(hours: i64) -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(hours)
}

fn levels(on_hand: u32, held: u32, committed: u32, sold: u64) -> Levels {
    Levels { on_hand, held, committed, sold }
}

fn stocked(quantity: u32) -> Vec<StockItemEvent> {
    vec![
        StockItemEvent::StockItemOpened { low_stock_threshold: None },
        StockItemEvent::StockReceived { quantity, reason: None, levels: levels(quantity, 0, 0, 0) },
    ]
}

fn reserve(number: u8, quantity: u32) -> StockItemCommand {
    StockItemCommand::Reserve { reservation: order(number), quantity, until: None }
}

#[test]
fn what_is_available_can_be_reserved() {
    TestFramework::<StockItem>::with(()).given(stocked(10)).when(reserve(1, 2)).then_expect_events(vec![
        StockItemEvent::StockReserved {
            reservation: order(1),
            quantity: 2,
            until: None,
            levels: levels(10, 2, 0, 0),
        },
    ]);
}

#[test]
fn more_than_is_available_is_rejected_by_an_event() {
    TestFramework::<StockItem>::with(()).given(stocked(1)).when(reserve(1, 2)).then_expect_events(vec![
        StockItemEvent::ReservationRejected {
            reservation: order(1),
            requested: 2,
            available: 1,
            revision: 0,
        },
    ]);
}

#[test]
fn a_reservation_that_comes_after_its_release_is_rejected() {
    let mut stock = StockItem::default();
    run(&mut stock, StockItemCommand::Open { low_stock_threshold: None });
    run(&mut stock, StockItemCommand::Receive { quantity: 5, reason: None });
    let release =
        StockItemCommand::Release { reservation: order(1), why: ReleaseReason::Cancelled, now: at(0) };
    run(&mut stock, release);
    let rejected = StockItemEvent::ReservationRejected {
        reservation: order(1),
        requested: 1,
        available: 0,
        revision: 0,
    };
    assert_eq!(stock.decide(reserve(1, 1)), Ok(vec![rejected]));
}

#[test]
fn stock_cannot_be_taken_below_what_is_reserved() {
    let refused = StockItemError::InsufficientStock { requested: 11, available: 10 };
    TestFramework::<StockItem>::with(())
        .given(stocked(10))
        .when(StockItemCommand::Remove { quantity: 11, reason: None })
        .then_expect_error(refused);
}

#[test]
fn an_item_in_use_closes_when_the_last_reservation_goes() {
    let mut stock = StockItem::default();
    run(&mut stock, StockItemCommand::Open { low_stock_threshold: None });
    run(&mut stock, StockItemCommand::Receive { quantity: 5, reason: None });
    run(&mut stock, reserve(1, 1));
    let closing = run(&mut stock, StockItemCommand::Close);
    assert_eq!(closing, vec![StockItemEvent::StockItemClosing { levels: levels(5, 1, 0, 0) }]);
    let release =
        StockItemCommand::Release { reservation: order(1), why: ReleaseReason::Cancelled, now: at(0) };
    let released = run(&mut stock, release);
    assert_eq!(released.last(), Some(&StockItemEvent::StockItemClosed { levels: levels(5, 0, 0, 0) }));
}

fn run(stock: &mut StockItem, command: StockItemCommand) -> Vec<StockItemEvent> {
    let events = stock.decide(command).unwrap_or_default();
    for event in &events {
        stock.apply(event.clone());
    }
    events
}

fn commands() -> impl Strategy<Value = StockItemCommand> {
    let named = (0_u8..4, 0_u32..8);
    prop_oneof![
        (0_u32..20).prop_map(|quantity| StockItemCommand::Receive { quantity, reason: None }),
        (0_u32..8).prop_map(|quantity| StockItemCommand::Remove { quantity, reason: None }),
        (0_u32..8).prop_map(|quantity| StockItemCommand::WriteOff { quantity, reason: None }),
        (0_u32..30).prop_map(|counted| StockItemCommand::Count { counted, reason: None }),
        named.clone().prop_map(|(number, quantity)| reserve(number, quantity)),
        (named.clone(), 0_u32..4, 0_i64..99).prop_map(|((number, quantity), revision, hours)| {
            StockItemCommand::Adjust { reservation: order(number), quantity, revision, now: at(hours) }
        }),
        named
            .clone()
            .prop_map(|(number, quantity)| StockItemCommand::Commit { reservation: order(number), quantity }),
        (0_u8..4, any::<bool>(), 0_i64..99).prop_map(|(number, expired, hours)| {
            let why = if expired { ReleaseReason::Expired } else { ReleaseReason::Cancelled };
            StockItemCommand::Release { reservation: order(number), why, now: at(hours) }
        }),
        (named.clone(), 0_i64..99).prop_map(|((number, quantity), hours)| StockItemCommand::Ship {
            reservation: order(number),
            quantity,
            now: at(hours)
        }),
        (named, any::<bool>()).prop_map(|((number, quantity), whole)| StockItemCommand::Return {
            reservation: order(number),
            quantity,
            condition: if whole { ReturnCondition::Resellable } else { ReturnCondition::Damaged },
        }),
        Just(StockItemCommand::Close),
    ]
}

/// What went in less what went out, by an event.
fn flow(event: &StockItemEvent) -> i64 {
    match event {
        StockItemEvent::StockReceived { quantity, .. } | StockItemEvent::StockReturned { quantity, .. } => {
            i64::from(*quantity)
        }
        StockItemEvent::StockRemoved { quantity, .. }
        | StockItemEvent::StockWrittenOff { quantity, .. }
        | StockItemEvent::StockShipped { quantity, .. } => -i64::from(*quantity),
        StockItemEvent::StockCounted { correction, .. } => *correction,
        _ => 0,
    }
}

proptest! {
    #[test]
    fn nothing_is_promised_twice_and_nothing_appears_or_vanishes(commands in vec(commands(), 1..60)) {
        let mut stock = StockItem::default();
        run(&mut stock, StockItemCommand::Open { low_stock_threshold: Some(2) });
        let mut balance = 0;
        for command in commands {
            for event in run(&mut stock, command) {
                balance += flow(&event);
            }
            let Levels { on_hand, held, committed, .. } = stock.levels;
            prop_assert!(held + committed <= on_hand);
            prop_assert_eq!(i64::from(on_hand), balance);
            let here: u32 = stock.reservations.values().map(|reservation| reservation.quantity).sum();
            prop_assert_eq!(here, held + committed);
        }
    }
}
