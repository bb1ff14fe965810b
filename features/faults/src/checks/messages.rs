//! One message for each event that people are told of, no more and no less, and each was sent.

use std::collections::{HashMap, HashSet};

use super::{Checked, Event, Logs};
use crate::mail::Letter;
use crate::troubles::Troubles;

/// The template of the message that an event leads to.
fn template(event: &Event) -> Option<&'static str> {
    Some(match event.name.as_str() {
        "UserRegistered" => "registration",
        "OrderAwaitingPayment" => "order_received",
        "OrderCancelled" => "order_cancelled",
        "OrderExpired" => "order_expired",
        "PaymentCaptured" => "payment_received",
        _ => return None,
    })
}

pub(super) fn one_for_each_event(logs: &Logs) -> Checked {
    let mut checked = Checked::new("one message for each event that is told");
    let mut queued: HashMap<(String, String), Vec<&Event>> = HashMap::new();
    let mut sent: HashSet<&str> = HashSet::new();
    for event in logs.of_type("notification") {
        match event.name.as_str() {
            "NotificationQueued" if event.text("channel") == "email" => {
                let key = (event.text("cause").to_owned(), event.text("template").to_owned());
                queued.entry(key).or_default().push(event);
            }
            "NotificationSent" => {
                checked.expect(sent.insert(&event.aggregate_id), || {
                    format!("notification {} was noted as sent twice", event.aggregate_id)
                });
            }
            _ => {}
        }
    }
    for event in logs.events() {
        let Some(template) = template(event) else { continue };
        let messages = queued.remove(&(event.id.to_string(), template.to_owned())).unwrap_or_default();
        checked.expect(messages.len() == 1, || {
            format!("{} of {} led to {} messages", event.name, event.aggregate_id, messages.len())
        });
        for message in messages {
            checked.expect(sent.contains(message.aggregate_id.as_str()), || {
                format!(
                    "the message {} about {} {} was not sent",
                    message.aggregate_id, event.name, event.aggregate_id
                )
            });
        }
    }
    for (cause, messages) in queued {
        checked.expect(false, || {
            format!("{} messages are about {cause:?}, which is no event to tell", messages.len())
        });
    }
    checked
}

/// Every message that was sent came as a letter; a letter came again only where something broke between.
pub(super) fn letters(logs: &Logs, letters: &[Letter], troubles: &Troubles) -> Checked {
    let mut checked = Checked::new("every letter came, and again only when something broke");
    let mut taken: HashMap<&str, &Letter> = HashMap::new();
    for letter in letters {
        let id = letter.message_id.split('@').next().unwrap_or_default();
        if let Some(first) = taken.insert(id, letter) {
            checked.expect(troubles.excuse(first.at, letter.at), || {
                format!(
                    "letter {id} came at {:?} and again at {:?}, while nothing was broken",
                    first.at, letter.at
                )
            });
        }
    }
    let mut emails: HashSet<&str> = HashSet::new();
    for event in logs.of_type("notification") {
        if event.name == "NotificationQueued" && event.text("channel") == "email" {
            emails.insert(&event.aggregate_id);
        }
        if event.name == "NotificationSent" && emails.contains(event.aggregate_id.as_str()) {
            checked.expect(taken.contains_key(event.aggregate_id.as_str()), || {
                format!("the letter {} was noted as sent and never came", event.aggregate_id)
            });
        }
    }
    for id in taken.keys() {
        checked.expect(emails.contains(id), || format!("the letter {id} is about nothing"));
    }
    checked
}
