//! What outside consumers get: every event at least once, on its partition, first copies in order.

use std::collections::HashMap;

use anyhow::{Context, Result};
use features::databases::SERVICES;
use features::topics::{self, Record};

use super::{Checked, Event, Logs};
use crate::world::World;

/// Marks the records that the harness itself wrote.
pub(crate) const FOREIGN: &str = "faults";

pub(super) async fn complete(world: &World, logs: &Logs) -> Result<Checked> {
    let mut checked = Checked::new("topics are complete and in order");
    let lost = world.lost_records();
    for service in SERVICES {
        let (servers, topic) = (world.broker.bootstrap_servers().await, topics::topic_of(service));
        let records = tokio::task::spawn_blocking(move || topics::read(&servers, &topic))
            .await
            .with_context(|| format!("the topic of {service} cannot be read"))?;
        let events: Vec<&Event> = logs.events().filter(|event| event.service == service).collect();
        check(service, &events, &records, lost.get(service).copied().unwrap_or(0), &mut checked);
    }
    Ok(checked)
}

/// Compares a topic with its log; events up to `lost` may have gone with a broker that lost everything. The first
/// copy of such an event may have gone, so that its second one comes when it will.
fn check(service: &str, events: &[&Event], records: &[Record], lost: i64, checked: &mut Checked) {
    let mut previous: HashMap<i16, i64> = HashMap::new();
    let mut expected: HashMap<i64, (&Event, i64)> = HashMap::new();
    for event in events {
        let before = previous.insert(event.partition, event.position).unwrap_or(0);
        expected.insert(event.position, (event, before));
    }
    let mut first_copies: HashMap<i32, i64> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for record in records.iter().filter(|record| header(record, FOREIGN).is_none()) {
        let position = number(record, "mart-position");
        let Some((event, before)) = position.and_then(|position| expected.get(&position)) else {
            checked.expect(false, || {
                format!("{service}: a record has the position {position:?}, which is no event's")
            });
            continue;
        };
        if !seen.insert(event.position) {
            continue;
        }
        let faithful = i32::from(event.partition) == record.partition
            && record.key == event.aggregate_id.as_bytes()
            && number(record, "mart-previous") == Some(*before)
            && header(record, "ce_id").as_deref() == Some(event.id.to_string().as_str());
        checked.expect(faithful, || {
            format!("{service}: the record of position {} tells otherwise", event.position)
        });
        if event.position <= lost {
            continue;
        }
        let last = first_copies.entry(record.partition).or_default();
        checked.expect(event.position > *last, || {
            format!("{service}: the first copy of {} comes after that of {last}", event.position)
        });
        *last = event.position;
    }
    for event in events.iter().filter(|event| event.position > lost) {
        checked.expect(seen.contains(&event.position), || {
            format!("{service}: {} at position {} was never published", event.name, event.position)
        });
    }
}

fn header(record: &Record, name: &str) -> Option<String> {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn number(record: &Record, name: &str) -> Option<i64> {
    header(record, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    fn event(position: i64) -> Event {
        Event {
            service: "catalog",
            position,
            partition: 3,
            aggregate_type: "product".to_owned(),
            aggregate_id: "teapot".to_owned(),
            sequence: position,
            name: "ProductRepriced".to_owned(),
            body: Value::Null,
            id: Uuid::nil(),
            command_id: None,
        }
    }

    fn record(position: i64) -> Record {
        let headers = [
            ("mart-position", position.to_string()),
            ("mart-previous", (position - 1).to_string()),
            ("ce_id", Uuid::nil().to_string()),
        ];
        Record {
            partition: 3,
            key: b"teapot".to_vec(),
            payload: Vec::new(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).to_vec(),
        }
    }

    fn wrong(records: &[i64], lost: i64) -> Vec<String> {
        let events = [event(1), event(2), event(3)];
        let records: Vec<Record> = records.iter().copied().map(record).collect();
        let mut checked = Checked::new("topics");
        check("catalog", &events.iter().collect::<Vec<_>>(), &records, lost, &mut checked);
        checked.wrong
    }

    #[test]
    fn every_event_is_there_and_first_copies_are_in_order() {
        assert_eq!(wrong(&[1, 2, 1, 2, 3], 0), Vec::<String>::new());
        assert_eq!(wrong(&[1, 3], 0), ["catalog: ProductRepriced at position 2 was never published"]);
        assert_eq!(wrong(&[1, 3, 2, 3], 0), ["catalog: the first copy of 2 comes after that of 3"]);
    }

    #[test]
    fn what_went_with_a_broker_need_not_come_again_and_may_come_late() {
        assert_eq!(wrong(&[3], 2), Vec::<String>::new());
        assert_eq!(wrong(&[3, 2, 3], 2), Vec::<String>::new());
        assert_eq!(wrong(&[3, 2, 3], 1), ["catalog: the first copy of 2 comes after that of 3"]);
    }
}
