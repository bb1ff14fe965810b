//! `mart events`: look at a log, and follow the topics.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context, bail};
use event_store::subscription::{Body, Delivered};
use event_store::{Log, Recorded, feed};
use serde_json::{Value, json};

use crate::cli::{EventFilter, EventsCommand};
use crate::config::Selection;
use crate::open;
use crate::roles::maintain::Maintenance;
use crate::stop_signals::{NO_SIGNALS, StopSignals};

/// How many events are read at once.
const CHUNK_EVENTS: i64 = 1_000;

/// Looks at events, of the past or as they come.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn events(command: EventsCommand) -> anyhow::Result<()> {
    match command {
        EventsCommand::List { filter, limit } => list(&filter, limit).await,
        EventsCommand::Follow { filter } => follow(&filter).await,
    }
}

async fn list(filter: &EventFilter, limit: u32) -> anyhow::Result<()> {
    let services = Selection::services(&filter.services);
    let maintenance = Maintenance::begin(&filter.storage, &services).await?;
    for log in maintenance.sources.logs.values() {
        let mut left = limit;
        let mut after = filter.from.map_or(0, |from| from - 1);
        while left > 0 {
            let chunk = feed::read(log.database(), log.source(), after, CHUNK_EVENTS).await?;
            let Some(last) = chunk.last() else { break };
            after = last.position;
            for event in
                chunk.into_iter().filter(|event| wanted(filter, &event.aggregate_id, &event.event_type))
            {
                if left == 0 {
                    break;
                }
                left -= 1;
                if !print(filter, log.source(), &recorded_json(event)?)? {
                    maintenance.end().await;
                    return Ok(());
                }
            }
        }
    }
    maintenance.end().await;
    Ok(())
}

/// Follows the topics of services. What lies between `--from` and now comes from the logs, and so does
/// everything when there is no broker.
async fn follow(filter: &EventFilter) -> anyhow::Result<()> {
    let services = Selection::services(&filter.services);
    let maintenance = Maintenance::begin(&filter.storage, &services).await?;
    let folder = open::data_dir(&filter.storage)?;
    let Some(broker) = open::broker_beside(&filter.broker, &folder).await? else {
        bail!("no broker is known: start `mart up`, or set MART_KAFKA_BROKERS");
    };
    let logs: Vec<Log> = maintenance.sources.logs.values().cloned().collect();
    let names: Vec<&str> = logs.iter().map(Log::source).collect();
    let mut inbox = broker.listen(&logs.iter().collect::<Vec<_>>());
    let mut seen: HashMap<usize, i64> = HashMap::new();
    if let Some(from) = filter.from {
        for (index, log) in logs.iter().enumerate() {
            let head = feed::head(log.database()).await?;
            let mut after = from - 1;
            while after < head {
                let chunk = feed::read(log.database(), log.source(), after, CHUNK_EVENTS).await?;
                let Some(last) = chunk.last() else { break };
                after = last.position;
                for event in chunk {
                    if wanted(filter, &event.aggregate_id, &event.event_type) {
                        print(filter, log.source(), &recorded_json(event)?)?;
                    }
                }
            }
            seen.insert(index, head);
        }
    }
    let mut asked_to_stop = StopSignals::listen().context(NO_SIGNALS)?;
    eprintln!("following {} on {}; Ctrl-C ends", names.join(", "), broker.config().bootstrap_servers);
    let reader = projections::event::reader();
    loop {
        let record = tokio::select! {
            record = inbox.records.recv() => record,
            () = asked_to_stop.received() => None,
        };
        let Some((index, record)) = record else { break };
        if seen.get(&index).is_some_and(|head| record.position <= *head) {
            continue;
        }
        let source = names[index];
        let delivered = match reader(source, record.partition, record.position, record.payload) {
            Ok(delivered) => delivered,
            Err(error) => {
                eprintln!("{source} {}: {error}", record.position);
                continue;
            }
        };
        if wanted(filter, &delivered.aggregate_id, &delivered.event_type)
            && !print(filter, source, &delivered_json(&delivered)?)?
        {
            break;
        }
    }
    maintenance.end().await;
    Ok(())
}

fn wanted(filter: &EventFilter, aggregate_id: &str, event_type: &str) -> bool {
    let stream = filter.stream.is_none_or(|stream| aggregate_id.contains(&stream.to_string()));
    stream && filter.event_type.as_ref().is_none_or(|wanted| wanted == event_type)
}

/// Prints an event; false when nobody reads any more.
fn print(filter: &EventFilter, source: &str, event: &Value) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let written = if filter.json {
        writeln!(out, "{event}")
    } else {
        writeln!(
            out,
            "{} {source} {} {} {} {}",
            text("recorded_at"),
            event["position"],
            text("event_type"),
            text("aggregate_id"),
            event["data"]
        )
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output cannot be written"),
    }
}

/// An event of the log, its personal fields sealed as they are stored.
fn recorded_json(event: Recorded) -> anyhow::Result<Value> {
    let payload: Value = event.decode()?;
    let data = payload.as_object().and_then(|object| object.values().next()).cloned().unwrap_or(Value::Null);
    Ok(json!({
        "position": event.position, "event_id": event.event_id(), "event_type": event.event_type,
        "aggregate_type": event.aggregate_type, "aggregate_id": event.aggregate_id, "sequence": event.sequence,
        "recorded_at": event.recorded_at, "actor": event.metadata.actor,
        "correlation_id": event.metadata.correlation_id, "causation_id": event.metadata.causation_id,
        "data": data,
    }))
}

fn delivered_json(event: &Delivered) -> anyhow::Result<Value> {
    let Body::Published(bytes) = event.body() else { bail!("a record of a topic is published") };
    Ok(proto::to_json(&event.source, bytes)?)
}
