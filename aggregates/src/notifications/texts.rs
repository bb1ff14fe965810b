//! What messages say. `{username}` is the only thing filled in.

use crate::notifications::events::{Channel, Template};

/// The subject of a message.
#[must_use]
pub fn subject(template: Template) -> &'static str {
    match template {
        Template::Registration => "New User Registration ",
        Template::OrderReceived => "Order Confirmation",
        Template::PaymentReceived => "Payment Confirmation and Order Dispatch Notification from Online Mart",
        Template::OrderCancelled => "Order Cancelled",
        Template::OrderExpired => "Order Expired",
    }
}

/// The body of a message to somebody.
#[must_use]
pub fn body(template: Template, channel: Channel, username: &str) -> String {
    match channel {
        Channel::Email => letter(template),
        Channel::Sms => line(template),
    }
    .replace("{username}", username)
}

fn letter(template: Template) -> &'static str {
    match template {
        Template::Registration => {
            "Hi {username},\nWelcome to Online Mart! You have successfully signed in. Explore our wide range of \
             products and enjoy seamless shopping!"
        }
        Template::OrderReceived => {
            "Hi {username},\nThankyou for your order. Your order has been placed successfully.To Proceed, please \
             make the payment. we will notify you once the payment is done."
        }
        Template::PaymentReceived => {
            "Hi {username},\nThank you for your purchase! Your payment has been successfully processed. Your \
             order has been dispatched and is on its way! "
        }
        Template::OrderCancelled => {
            "Hi {username},\nYour order has been cancelled. Whatever you have paid for it goes back to you."
        }
        Template::OrderExpired => {
            "Hi {username},\nYour order was not paid in time, and we have released its items. You are welcome to \
             order again."
        }
    }
}

/// A text message costs by length: one sentence must do.
fn line(template: Template) -> &'static str {
    match template {
        Template::Registration => "Welcome to Online Mart, {username}!",
        Template::OrderReceived => "Online Mart: your order is placed. Please make the payment.",
        Template::PaymentReceived => "Online Mart: your payment came in, your order is on its way.",
        Template::OrderCancelled => "Online Mart: your order has been cancelled.",
        Template::OrderExpired => "Online Mart: your order was not paid in time and has expired.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_greets_its_reader() {
        let body = body(Template::Registration, Channel::Email, "ada");
        assert_eq!(
            body,
            "Hi ada,\nWelcome to Online Mart! You have successfully signed in. Explore our wide range of products \
             and enjoy seamless shopping!"
        );
    }
}
