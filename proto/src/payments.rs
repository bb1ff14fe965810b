//! The events of payments on the wire. The gateway's token for a card stays behind.

use aggregates::payments::PaymentEvent;

use crate::mart::payments::v1;
use crate::published::published;

published! {
    Payments in "mart.payments.v1", PaymentsEvent with payments_event::Event:
    Payment(PaymentEvent, "payment") {
        PaymentOpened { order_id, user_id, amount },
        PaymentAmountChanged { order_id, amount, previous },
        PaymentAttemptRequested { order_id, attempt, amount, card_brand, card_last4, paid_by }
            withholds { token },
        PaymentActionRequired { order_id, attempt },
        PaymentAttemptUnknown { order_id, attempt },
        PaymentAuthorised { order_id, attempt, amount, gateway_reference },
        PaymentDeclined { order_id, attempt, reason },
        CaptureRequested { order_id, attempt, amount, gateway_reference },
        PaymentCaptured { order_id, user_id, attempt, amount },
        CaptureFailed { order_id, attempt, reason },
        VoidRequested { order_id, attempt, amount, gateway_reference },
        PaymentVoided { order_id, attempt },
        RefundRequested { order_id, refund_id, amount, reason, gateway_reference },
        PaymentRefunded { order_id, user_id, refund_id, amount, refunded, captured },
        RefundFailed { order_id, refund_id, reason },
        PaymentClosing { order_id },
        PaymentClosed { order_id },
    }
}
