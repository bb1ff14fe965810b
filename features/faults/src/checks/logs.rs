//! The logs as they are in the databases, whole.

use std::collections::HashMap;

use anyhow::Result;
use features::databases::SERVICES;
use serde_json::Value;
use sqlx::Row;
use uuid::Uuid;

use super::Checked;
use crate::postgres::Postgres;

/// An event of a log.
#[derive(Debug, Clone)]
pub struct Event {
    /// Whose log it is in.
    pub service: &'static str,
    /// Its place there.
    pub position: i64,
    /// Its partition.
    pub partition: i16,
    /// What kind of aggregate it is of.
    pub aggregate_type: String,
    /// Which aggregate.
    pub aggregate_id: String,
    /// Its place among the events of that aggregate.
    pub sequence: i64,
    /// What happened.
    pub name: String,
    /// With what.
    pub body: Value,
    /// Its identity.
    pub id: Uuid,
    /// The command that it comes from.
    pub command_id: Option<Uuid>,
}

impl Event {
    /// A text of the body.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// A number of the body.
    pub fn number(&self, field: &str) -> i64 {
        self.body[field].as_i64().unwrap_or_default()
    }
}

/// All logs, each in the order of its positions.
#[derive(Debug)]
pub struct Logs(Vec<Event>);

impl Logs {
    /// Reads them.
    ///
    /// # Errors
    /// When a database does not answer.
    pub async fn load(postgres: &Postgres) -> Result<Self> {
        let mut events = Vec::new();
        for service in SERVICES {
            let mut connection = postgres.connect(service).await?;
            let rows = sqlx::query(
                "select position, partition, aggregate_type, aggregate_id, sequence, event_type, \
                 payload::text as payload, metadata::text as metadata \
                 from event_store.events order by position",
            )
            .fetch_all(&mut connection)
            .await?;
            for row in rows {
                let payload: Value = serde_json::from_str(row.try_get("payload")?)?;
                let metadata: Value = serde_json::from_str(row.try_get("metadata")?)?;
                let name: String = row.try_get("event_type")?;
                let id = |field: &str| metadata[field].as_str().and_then(|id| id.parse().ok());
                events.push(Event {
                    service,
                    position: row.try_get("position")?,
                    partition: row.try_get("partition")?,
                    aggregate_type: row.try_get("aggregate_type")?,
                    aggregate_id: row.try_get("aggregate_id")?,
                    sequence: row.try_get("sequence")?,
                    body: payload.get(&name).cloned().unwrap_or(Value::Null),
                    name,
                    id: id("event_id").unwrap_or_default(),
                    command_id: id("command_id"),
                });
            }
        }
        Ok(Self(events))
    }

    /// All events.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.0.iter()
    }

    /// The events of one kind of aggregate.
    pub fn of_type<'a>(&'a self, aggregate_type: &'a str) -> impl Iterator<Item = &'a Event> {
        self.0.iter().filter(move |event| event.aggregate_type == aggregate_type)
    }

    /// The events that come from a command.
    pub fn by_command(&self) -> HashMap<Uuid, Vec<&Event>> {
        let mut found: HashMap<Uuid, Vec<&Event>> = HashMap::new();
        for event in &self.0 {
            if let Some(command) = event.command_id {
                found.entry(command).or_default().push(event);
            }
        }
        found
    }

    /// Positions are dense in each log, sequences in each stream, and a stream stays on its partition.
    pub(super) fn dense(&self) -> Checked {
        let mut checked = Checked::new("positions and sequences are dense");
        let mut heads: HashMap<&str, i64> = HashMap::new();
        let mut streams: HashMap<(&str, &str, &str), (i64, i16)> = HashMap::new();
        for event in &self.0 {
            let head = heads.entry(event.service).or_default();
            checked.expect(event.position == *head + 1, || {
                format!("{}: position {} follows {head}", event.service, event.position)
            });
            *head = event.position;
            let stream = (event.service, event.aggregate_type.as_str(), event.aggregate_id.as_str());
            let (sequence, partition) = streams.entry(stream).or_insert((0, event.partition));
            checked.expect(event.sequence == *sequence + 1 && event.partition == *partition, || {
                format!(
                    "{stream:?}: sequence {} follows {sequence}, on partition {}",
                    event.sequence, event.partition
                )
            });
            *sequence = event.sequence;
        }
        checked
    }

    /// The events of a command are one run in one stream: a command that was carried out twice leaves two.
    pub(super) fn each_command_once(&self) -> Checked {
        let mut checked = Checked::new("each command was carried out once");
        for (command, events) in self.by_command() {
            let apart = events.windows(2).find(|pair| {
                let (first, second) = (pair[0], pair[1]);
                first.service != second.service
                    || second.position != first.position + 1
                    || first.aggregate_id != second.aggregate_id
            });
            checked.expect(apart.is_none(), || {
                let told: Vec<String> = events
                    .iter()
                    .map(|event| {
                        format!(
                            "{} {} {} at {}",
                            event.name, event.aggregate_id, event.sequence, event.position
                        )
                    })
                    .collect();
                format!("command {command} has left {}", told.join(", "))
            });
        }
        checked
    }
}
