//! Samples of what happens to carts, orders and payments.

use aggregates::carts::{CartEvent, CartLine};
use aggregates::lines::{LineQuantity, OrderLine};
use aggregates::orders::{CancelReason, OrderEvent, OrderStatus, PaymentStatus, RejectedLine};
use aggregates::payments::PaymentEvent;

use super::{dollars, id, order, product, sealed, time, user};

fn lines() -> Vec<OrderLine> {
    vec![
        OrderLine {
            product_id: product(),
            name: "Teapot".to_owned(),
            quantity: 2,
            unit_price: dollars(99_999),
        },
        OrderLine { product_id: id(30), name: "Cup".to_owned(), quantity: 6, unit_price: dollars(1_250) },
    ]
}

fn quantities() -> Vec<LineQuantity> {
    vec![
        LineQuantity { product_id: product(), quantity: 2 },
        LineQuantity { product_id: id(30), quantity: 0 },
    ]
}

fn rejected() -> Vec<RejectedLine> {
    vec![RejectedLine { product_id: product(), requested: 2, available: 1 }]
}

pub(super) fn carts() -> Vec<CartEvent> {
    vec![
        CartEvent::CartItemAdded { item_id: id(40), product_id: product(), quantity: 2 },
        CartEvent::CartItemQuantityChanged { item_id: id(40), product_id: product(), quantity: 3 },
        CartEvent::CartItemRemoved { item_id: id(40), product_id: product() },
        CartEvent::CartCleared,
        CartEvent::CartCheckedOut {
            order_id: order(),
            user_id: user(),
            lines: lines(),
            shipping_address: sealed(),
            customer_notes: Some(sealed()),
        },
        CartEvent::CartReopened {
            order_id: order(),
            lines: vec![CartLine { item_id: id(40), product_id: product(), quantity: 2 }],
        },
        CartEvent::CartAbandoned,
    ]
}

pub(super) fn orders() -> Vec<OrderEvent> {
    [orders_until_paid(), orders_from_paid_on()].concat()
}

fn orders_until_paid() -> Vec<OrderEvent> {
    vec![
        OrderEvent::OrderPlaced {
            order_id: order(),
            user_id: user(),
            lines: lines(),
            total: dollars(207_498),
            shipping_address: sealed(),
            customer_notes: Some(sealed()),
            from_cart: true,
            pay_within_seconds: 1_800,
        },
        OrderEvent::OrderLineReserved { product_id: product() },
        OrderEvent::OrderLineRejected { product_id: product(), requested: 2, available: 1 },
        OrderEvent::OrderAwaitingPayment {
            user_id: user(),
            total: dollars(207_498),
            pay_by: time("2026-03-01T13:00:00Z"),
        },
        OrderEvent::OrderRejected {
            user_id: user(),
            from_cart: true,
            rejected: rejected(),
            lines: quantities(),
        },
        OrderEvent::OrderAddressEdited {
            user_id: user(),
            shipping_address: sealed(),
            customer_notes: Some(sealed()),
        },
        OrderEvent::OrderEditRequested {
            user_id: user(),
            revision: 1,
            lines: lines(),
            increases: quantities(),
            shipping_address: Some(sealed()),
            customer_notes: Some(sealed()),
        },
        OrderEvent::OrderEditLineReserved { revision: 1, product_id: product() },
        OrderEvent::OrderEditLineRejected { revision: 1, product_id: product(), requested: 4, available: 3 },
        OrderEvent::OrderLinesEdited {
            user_id: user(),
            revision: 1,
            lines: lines(),
            total: dollars(207_498),
            decreases: quantities(),
        },
        OrderEvent::OrderEditRejected {
            user_id: user(),
            revision: 1,
            rejected: rejected(),
            undo: quantities(),
        },
        OrderEvent::OrderPaymentAttempted { attempt: 1, payment_status: PaymentStatus::Pending },
        OrderEvent::OrderPaymentDeclined { attempt: 1, payment_status: PaymentStatus::Failed },
        OrderEvent::OrderPaymentAuthorised {
            attempt: 2,
            amount: dollars(207_498),
            payment_status: PaymentStatus::Authorized,
        },
    ]
}

fn orders_from_paid_on() -> Vec<OrderEvent> {
    vec![
        OrderEvent::OrderCommitting { user_id: user(), lines: quantities() },
        OrderEvent::OrderLineCommitted { product_id: product() },
        OrderEvent::OrderLineLost { product_id: product() },
        OrderEvent::OrderConfirmed { user_id: user(), lines: lines(), total: dollars(207_498) },
        OrderEvent::OrderPaymentCaptured { amount: dollars(207_498), payment_status: PaymentStatus::Paid },
        OrderEvent::OrderCaptureFailed { payment_status: PaymentStatus::Failed },
        OrderEvent::OrderPaymentVoided { payment_status: PaymentStatus::Voided },
        OrderEvent::OrderPaymentRefunded {
            amount: dollars(1_250),
            refunded: dollars(2_500),
            payment_status: PaymentStatus::PartiallyRefunded,
        },
        OrderEvent::OrderPaymentClosed,
        OrderEvent::OrderExpiryDeferred,
        OrderEvent::OrderExpired { user_id: user(), lines: quantities() },
        OrderEvent::OrderCancelling { user_id: user(), reason: CancelReason::Customer, lines: quantities() },
        OrderEvent::OrderLineReleased { product_id: product() },
        OrderEvent::OrderCancelled { user_id: user(), reason: CancelReason::StockLost },
        OrderEvent::OrderShipped {
            user_id: user(),
            lines: quantities(),
            status: OrderStatus::PartiallyShipped,
        },
        OrderEvent::OrderDelivered { user_id: user() },
        OrderEvent::OrderReturnRequested { user_id: user(), lines: quantities() },
        OrderEvent::OrderReturned {
            user_id: user(),
            lines: quantities(),
            resellable: true,
            refund: dollars(199_998),
        },
    ]
}

pub(super) fn payments() -> Vec<PaymentEvent> {
    let order_id = order();
    let amount = dollars(207_498);
    let reason = "insufficient_funds".to_owned();
    let gateway_reference = "authorisation-77".to_owned();
    vec![
        PaymentEvent::PaymentOpened { order_id, user_id: user(), amount },
        PaymentEvent::PaymentAmountChanged { order_id, amount, previous: dollars(199_998) },
        PaymentEvent::PaymentAttemptRequested {
            order_id,
            attempt: 1,
            amount,
            token: "token-of-a-card".to_owned(),
            card_brand: "visa".to_owned(),
            card_last4: "4242".to_owned(),
            paid_by: user(),
        },
        PaymentEvent::PaymentActionRequired { order_id, attempt: 1 },
        PaymentEvent::PaymentAttemptUnknown { order_id, attempt: 1 },
        PaymentEvent::PaymentAuthorised {
            order_id,
            attempt: 1,
            amount,
            gateway_reference: gateway_reference.clone(),
        },
        PaymentEvent::PaymentDeclined { order_id, attempt: 1, reason: reason.clone() },
        PaymentEvent::CaptureRequested {
            order_id,
            attempt: 1,
            amount,
            gateway_reference: gateway_reference.clone(),
        },
        PaymentEvent::PaymentCaptured { order_id, user_id: user(), attempt: 1, amount },
        PaymentEvent::CaptureFailed { order_id, attempt: 1, reason: reason.clone() },
        PaymentEvent::VoidRequested {
            order_id,
            attempt: 1,
            amount,
            gateway_reference: gateway_reference.clone(),
        },
        PaymentEvent::PaymentVoided { order_id, attempt: 1 },
        PaymentEvent::RefundRequested {
            order_id,
            refund_id: id(50),
            amount: dollars(1_250),
            reason: "a cup was broken".to_owned(),
            gateway_reference,
        },
        PaymentEvent::PaymentRefunded {
            order_id,
            user_id: user(),
            refund_id: id(50),
            amount: dollars(1_250),
            refunded: dollars(2_500),
            captured: amount,
        },
        PaymentEvent::RefundFailed { order_id, refund_id: id(50), reason },
        PaymentEvent::PaymentClosing { order_id },
        PaymentEvent::PaymentClosed { order_id },
    ]
}
