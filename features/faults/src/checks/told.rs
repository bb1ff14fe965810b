//! What clients were told holds: what was acknowledged is there, what was refused is not.

use std::collections::HashMap;

use anyhow::Result;
use features::databases::SERVICES;
use serde_json::Value;
use sqlx::Row;
use uuid::Uuid;

use super::{Checked, Event, Logs};
use crate::history::{Kind, Operation, Outcome};
use crate::postgres::Postgres;

/// The statuses that the mart keeps as answers to commands, by their ids; none where it has kept no answer.
pub(super) async fn command_rows(postgres: &Postgres) -> Result<HashMap<Uuid, Option<u64>>> {
    let mut found = HashMap::new();
    for service in SERVICES {
        let mut connection = postgres.connect(service).await?;
        let rows = sqlx::query(
            "select command_id, (answer ->> 'status')::bigint as status from event_store.commands \
             where not derived order by command_id",
        )
        .fetch_all(&mut connection)
        .await?;
        for row in rows {
            let status: Option<i64> = row.try_get("status")?;
            found.insert(row.try_get("command_id")?, status.map(i64::cast_unsigned));
        }
    }
    Ok(found)
}

pub(super) fn nothing_acknowledged_is_lost(
    operations: &[Operation],
    logs: &Logs,
    rows: &HashMap<Uuid, Option<u64>>,
) -> Checked {
    let mut checked = Checked::new("nothing acknowledged is lost");
    let by_command = logs.by_command();
    let mut heads: HashMap<&str, i64> = HashMap::new();
    for event in logs.events() {
        heads.insert(event.service, event.position);
    }
    for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Done) {
        if let Some((service, position)) = operation.position.as_deref().and_then(|told| told.split_once(':'))
        {
            let (head, position) =
                (heads.get(service).copied().unwrap_or(0), position.parse().unwrap_or(i64::MAX));
            checked.expect(position <= head, || {
                format!(
                    "{} was told position {position} of {service}, which ends at {head}",
                    operation.client
                )
            });
        }
        let Some(command) = operation.command_id() else { continue };
        let events = by_command.get(&command);
        checked.expect(
            events.is_some() || (!operation.kind.always_writes() && rows.contains_key(&command)),
            || format!("{} is not in the log", told(operation, command)),
        );
        if let (Kind::PlaceOrder, Some(events)) = (operation.kind, events) {
            checked.expect(is_the_order(events, operation), || {
                format!("{} left another order: {:?}", told(operation, command), events[0].body)
            });
        }
        if let (Some(Some(kept)), Some(status)) = (rows.get(&command), operation.status) {
            checked.expect(*kept == u64::from(status), || {
                format!("{} is kept with the answer {kept}", told(operation, command))
            });
        }
    }
    checked
}

/// What a refused request may have left: an order that was rejected, an edit that was, an attempt to pay that was
/// declined, a cart that was given back.
const LEFT_BY_REFUSED: [&str; 4] =
    ["OrderPlaced", "OrderEditRequested", "PaymentAttemptRequested", "CartCheckedOut"];

pub(super) fn nothing_refused_happened(operations: &[Operation], logs: &Logs) -> Checked {
    let mut checked = Checked::new("nothing refused happened");
    let by_command = logs.by_command();
    let decisions: HashMap<(&str, &str), &Event> = logs
        .events()
        .filter(|event| ["OrderRejected", "OrderAwaitingPayment"].contains(&event.name.as_str()))
        .map(|event| ((event.aggregate_id.as_str(), event.name.as_str()), event))
        .collect();
    for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Refused) {
        let Some(command) = operation.command_id() else { continue };
        for event in by_command.get(&command).into_iter().flatten() {
            let mut allowed = LEFT_BY_REFUSED.contains(&event.name.as_str());
            if event.name == "OrderPlaced" && operation.answer["code"] == "insufficient_stock" {
                allowed = decisions.contains_key(&(event.aggregate_id.as_str(), "OrderRejected"))
                    && !decisions.contains_key(&(event.aggregate_id.as_str(), "OrderAwaitingPayment"));
            }
            checked.expect(allowed, || {
                format!("{} and left {} of {}", told(operation, command), event.name, event.aggregate_id)
            });
        }
    }
    checked
}

fn is_the_order(events: &[&Event], operation: &Operation) -> bool {
    let lines = |value: &Value| {
        let mut lines: Vec<(String, i64)> = value
            .as_array()
            .into_iter()
            .flatten()
            .map(|line| {
                let product = line["product_id"].as_str().unwrap_or_default().to_owned();
                (product, line["quantity"].as_i64().unwrap_or_default())
            })
            .collect();
        lines.sort();
        lines
    };
    events.iter().any(|event| {
        event.name == "OrderPlaced"
            && operation.answer["id"] == event.aggregate_id.as_str()
            && lines(&event.body["lines"]) == lines(&operation.body["items"])
    })
}

fn told(operation: &Operation, command: Uuid) -> String {
    format!(
        "{:?} of {} (command {command}) was answered {} {}",
        operation.kind,
        operation.client,
        operation.status.unwrap_or_default(),
        operation.answer["code"].as_str().unwrap_or_default(),
    )
}
