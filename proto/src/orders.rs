//! The events of orders and carts on the wire. Addresses and notes stay behind.

use aggregates::carts::{CartEvent, CartLine};
use aggregates::lines::{LineQuantity, OrderLine};
use aggregates::orders::{CancelReason, OrderEvent, OrderStatus, PaymentStatus, RejectedLine};

use crate::field::{wire_choice, wire_record};
use crate::mart::orders::v1;
use crate::published::published;

published! {
    Orders in "mart.orders.v1", OrdersEvent with orders_event::Event:
    Order(OrderEvent, "order") {
        OrderPlaced { order_id, user_id, lines, total, from_cart, pay_within_seconds }
            withholds { shipping_address, customer_notes },
        OrderLineReserved { product_id },
        OrderLineRejected { product_id, requested, available },
        OrderAwaitingPayment { user_id, total, pay_by },
        OrderRejected { user_id, from_cart, rejected, lines },
        OrderAddressEdited { user_id } withholds { shipping_address, customer_notes },
        OrderEditRequested { user_id, revision, lines, increases }
            withholds { shipping_address, customer_notes },
        OrderEditLineReserved { revision, product_id },
        OrderEditLineRejected { revision, product_id, requested, available },
        OrderLinesEdited { user_id, revision, lines, total, decreases },
        OrderEditRejected { user_id, revision, rejected, undo },
        OrderPaymentAttempted { attempt, payment_status },
        OrderPaymentDeclined { attempt, payment_status },
        OrderPaymentAuthorised { attempt, amount, payment_status },
        OrderCommitting { user_id, lines },
        OrderLineCommitted { product_id },
        OrderLineLost { product_id },
        OrderConfirmed { user_id, lines, total },
        OrderPaymentCaptured { amount, payment_status },
        OrderCaptureFailed { payment_status },
        OrderPaymentVoided { payment_status },
        OrderPaymentRefunded { amount, refunded, payment_status },
        OrderPaymentClosed {},
        OrderExpiryDeferred {},
        OrderExpired { user_id, lines },
        OrderCancelling { user_id, reason, lines },
        OrderLineReleased { product_id },
        OrderCancelled { user_id, reason },
        OrderShipped { user_id, lines, status },
        OrderDelivered { user_id },
        OrderReturnRequested { user_id, lines },
        OrderReturned { user_id, lines, resellable, refund },
    }
    Cart(CartEvent, "cart") {
        CartItemAdded { item_id, product_id, quantity },
        CartItemQuantityChanged { item_id, product_id, quantity },
        CartItemRemoved { item_id, product_id },
        CartCleared {},
        CartCheckedOut { order_id, user_id, lines } withholds { shipping_address, customer_notes },
        CartReopened { order_id, lines },
        CartAbandoned {},
    }
}

wire_record!(OrderLine as v1::OrderLine { product_id, name, quantity, unit_price });
wire_record!(LineQuantity as v1::LineQuantity { product_id, quantity });
wire_record!(RejectedLine as v1::RejectedLine { product_id, requested, available });
wire_record!(CartLine as v1::CartLine { item_id, product_id, quantity });

wire_choice!(OrderStatus as v1::OrderStatus {
    Placed,
    AwaitingPayment,
    Committing,
    Confirmed,
    PartiallyShipped,
    Shipped,
    Delivered,
    ReturnRequested,
    Returned,
    Cancelling,
    Cancelled,
    Expired,
    Rejected,
});

wire_choice!(PaymentStatus as v1::PaymentStatus {
    Pending,
    Authorized,
    Paid,
    Failed,
    Refunded,
    PartiallyRefunded,
    Voided,
});

wire_choice!(CancelReason as v1::CancelReason { Customer, Admin, StockLost, AmountMismatch, CaptureFailed });
