//! From the log to the broker, beside a bare producer on a broker of the same kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use embedded::EmbeddedBroker;
use event_store::broker::{Broker, BrokerConfig};
use event_store::{PARTITIONS, feed, relay};
use figures::{Failure, Options, Row};
use projections::event::encoder;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;
use crate::history::{History, life};

/// Events that are relayed.
const EVENTS: usize = 300_000;
/// How often progress is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Log → acknowledged by the broker.
pub(crate) async fn measure(history: &History, options: &Options) -> Result<Row, Failure> {
    let events = EVENTS.min(history.events);
    let after = (history.events - events) as i64;
    let payloads = messages(history).await?;
    let bytes: usize = payloads.iter().map(Vec::len).sum::<usize>() / payloads.len();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        history.settle().await?;
        let payloads = payloads.clone();
        theirs.push(tokio::task::spawn_blocking(move || produce(&payloads, events)).await??);
        ours.push(relay(history, after).await?);
        eprintln!(
            "relaying, round {round}: {:.0}/s, bare producer {:.0}/s",
            ours[round - 1],
            theirs[round - 1]
        );
    }
    Ok(Row::new("relay, log to acknowledged", "events/s", &ours)
        .beside("bare producer", &theirs)
        .at_least(60_000.0)
        .note(format!("{events} events, messages of {bytes} bytes and headers; in-process broker")))
}

/// A broker with the empty topic of the orders, and how to reach it.
pub(crate) fn broker() -> Result<(EmbeddedBroker, BrokerConfig), Failure> {
    let broker = EmbeddedBroker::start(None)?;
    let config = BrokerConfig { embedded: true, ..BrokerConfig::new(broker.bootstrap_servers()) };
    broker.create_topic(&config.topic_of("orders"), i32::from(PARTITIONS))?;
    Ok((broker, config))
}

/// Relays what is behind a position; gives events per second.
async fn relay(history: &History, after: i64) -> Result<f64, Failure> {
    let (kafka, config) = broker()?;
    let log = &history.log;
    sqlx::query(
        "insert into event_store.relay (source, position) values ($1, $2) \
         on conflict (source) do update set position = excluded.position",
    )
    .bind(log.source())
    .bind(after)
    .execute(log.database())
    .await?;
    let stop = CancellationToken::new();
    let started = Instant::now();
    let running = tokio::spawn(relay::run(log.clone(), Broker::new(config), encoder("orders"), stop.clone()));
    let head = history.events as i64;
    loop {
        let position: i64 = sqlx::query_scalar("select position from event_store.relay where source = $1")
            .bind(log.source())
            .fetch_one(log.database())
            .await?;
        if position == head {
            break;
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("the relay got to {position} of {head} only").into());
        }
        sleep(LOOK_AGAIN).await;
    }
    let took = started.elapsed();
    stop.cancel();
    running.await?;
    drop(kafka);
    Ok((head - after) as f64 / took.as_secs_f64())
}

/// The messages of the events of one order.
async fn messages(history: &History) -> Result<Vec<Vec<u8>>, Failure> {
    let order = &history.orders[0];
    let events = feed::read_stream(history.log.database(), "order", order, 0, life().len() as i64).await?;
    let encode = encoder("orders");
    let encoded = events.iter().map(|event| Ok(encode(event)?.payload.to_vec()));
    encoded.collect()
}

struct Acknowledged {
    good: Arc<AtomicUsize>,
    bad: Arc<AtomicUsize>,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.good } else { &self.bad };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Produces messages of these sizes as fast as librdkafka takes them, in the manner of its `rdkafka_performance`:
/// with the promises of the relay, without headers, and with nothing to read or encode. Gives messages per second.
fn produce(payloads: &[Vec<u8>], events: usize) -> Result<f64, Failure> {
    let (kafka, config) = broker()?;
    let counted = Acknowledged { good: Arc::default(), bad: Arc::default() };
    let (good, bad) = (Arc::clone(&counted.good), Arc::clone(&counted.bad));
    let producer: ThreadedProducer<Acknowledged> = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "100000")
        .create_with_context(counted)?;
    let topic = config.topic_of("orders");
    let key = "0195a1b2-c3d4-7000-8000-000000000000";
    let started = Instant::now();
    for number in 0..events {
        loop {
            let record = BaseRecord::to(&topic)
                .partition((number % usize::try_from(PARTITIONS)?) as i32)
                .key(key)
                .payload(&payloads[number % payloads.len()]);
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(PATIENCE)?;
    let took = started.elapsed();
    drop(kafka);
    let (good, bad) = (good.load(Ordering::Relaxed), bad.load(Ordering::Relaxed));
    if (good, bad) != (events, 0) {
        return Err(format!("{good} of {events} messages were acknowledged, {bad} refused").into());
    }
    Ok(events as f64 / took.as_secs_f64())
}
