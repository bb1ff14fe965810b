//! The relay of a log: every committed event goes to Kafka, at least once, in order, on the partition of
//! its aggregate.
//!
//! One process relays a log at a time, by lease; its progress moves by compare-and-set, so that one that
//! was frozen and wakes up stops at once. Progress is the highest position below which everything is
//! acknowledged. After a delivery error it goes back there: a later event never passes an earlier one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::SecondsFormat;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseProducer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Delivery, HEADER_POSITION, HEADER_PREVIOUS, Report, Reports};
use crate::log::Log;
use crate::{Error, PARTITIONS, Recorded, Result, crash_point, feed, planted};

/// How many events are read from the log at once.
const CHUNK_EVENTS: i64 = 2_000;
/// How many events may be on their way without an acknowledgement.
const UNACKNOWLEDGED_EVENTS: i64 = 20_000;
/// How long the relay rests when it has sent all there was. A single event leaves at once; under load events come
/// together, because a request to the broker costs the same for one as for many.
const PACE: Duration = Duration::from_millis(25);
/// The same for the embedded broker, whose requests cost this process more than their records, and which nobody who
/// is in a hurry reads: the readers of this process know already.
const EMBEDDED_PACE: Duration = Duration::from_millis(200);
/// How often progress is stored while it moves.
const STORED_EVERY: Duration = Duration::from_millis(100);
/// How long the relay waits to be told that the log has grown before it looks for itself. Whoever tells it looks each
/// second.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a broker that answers may acknowledge nothing. Then it is the client that has lost track of its requests: it
/// is given up, and what it has left is sent by another.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);
/// How long a relay that is to stop waits for the acknowledgements of a broker that may be down.
const DRAINED_WITHIN: Duration = Duration::from_secs(3);
/// How long it pauses after a failure.
const PAUSE: Duration = Duration::from_millis(300);

/// An event in the published language.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The message.
    pub payload: Bytes,
    /// Its type, for the header `ce_type`.
    pub message_type: String,
}

/// Turns an event of the log into the message that leaves the service. Must give the same for the same event.
pub type Encoder = Arc<dyn Fn(&Recorded) -> Result<Published> + Send + Sync>;

/// Relays a log until `stop`. Failures are logged and overcome; a hole in the log is not passed over.
pub async fn run(log: Log, broker: Broker, encode: Encoder, stop: CancellationToken) {
    let mut membership = log.leases().join("relay", 1);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            held = membership.held().wait_for(|slots| !slots.is_empty()) => if held.is_err() { break },
        }
        let term = stop.child_token();
        let mut lost = membership.held().clone();
        let ended = tokio::select! {
            _ = lost.wait_for(|slots| slots.is_empty()) => Ok(()),
            ended = relay(&log, &broker, &encode, &term) => ended,
        };
        if stop.is_cancelled() {
            break;
        }
        match ended {
            Ok(()) => tracing::info!(source = log.source(), "another process relays this log"),
            Err(error) => {
                tracing::warn!(source = log.source(), error = %error.with_source(), "the relay starts over");
                metrics::counter!("mart_relay_restarts_total", "source" => log.source().to_owned())
                    .increment(1);
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    if let Err(error) = membership.leave().await {
        tracing::debug!(%error, "the relay's lease runs out by itself");
    }
}

/// One term of office. Ends with an error when it has to start over from the stored progress.
async fn relay(log: &Log, broker: &Broker, encode: &Encoder, stop: &CancellationToken) -> Result<()> {
    let mut progress = Progress::load(log).await?;
    let topic = broker.config().topic_of(log.source());
    broker.ensure_topic(log.source()).await?;
    let producer = broker.producer()?;
    let (report, mut reports) = mpsc::unbounded_channel::<Report>();
    let mut previous = [0_i64; PARTITIONS as usize];
    for (partition, position) in feed::last_of_partitions(log.database(), progress.stored).await? {
        previous[partition as usize] = position;
    }
    let mut own = log.follow();
    let mut head = log.signal().head();
    let mut next = progress.stored;
    let mut stored_at = Instant::now();
    let mut looked_at: Option<Instant> = None;
    let mut has_sent = false;
    let mut rested_at = Instant::now();
    let mut drained_by = None;
    let mut ahead: Option<JoinHandle<Result<Vec<Recorded>>>> = None;
    let mut unspeakable: Option<Error> = None;
    let mut moved_at = (progress.acknowledged, Instant::now());
    let mut life = log.signal().life();
    loop {
        if log.signal().life() != life {
            life = log.signal().life();
            let head = log.signal().refresh().await?;
            if head < next {
                let source_name = log.source().to_owned();
                return Err(Error::TakenBack { source_name, head, position: next });
            }
        }
        while let Ok(report) = reports.try_recv() {
            crash_point!("relay-acknowledged", log.source(), Err(Error::ShuttingDown));
            progress.note(report, broker, &producer)?;
        }
        let is_last = progress.acknowledged == next && (unspeakable.is_some() || stop.is_cancelled());
        if progress.moved() && (stored_at.elapsed() >= STORED_EVERY || is_last) {
            if !progress.store(log).await? {
                return Ok(());
            }
            crash_point!("relay-noted", log.source(), Err(Error::ShuttingDown));
            stored_at = Instant::now();
        }

        if progress.acknowledged == next || progress.acknowledged > moved_at.0 {
            moved_at = (progress.acknowledged, Instant::now());
        } else if moved_at.1.elapsed() >= ACKNOWLEDGED_WITHIN {
            if broker.is_up().await {
                broker.give_up(&producer);
                return Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut).into());
            }
            moved_at.1 = Instant::now();
        }

        // What lies before an event that has no message is noted first, so that it is not sent again with each try.
        if progress.acknowledged == next
            && let Some(error) = unspeakable.take()
        {
            return Err(error);
        }
        let room = UNACKNOWLEDGED_EVENTS - (next - progress.acknowledged);
        let may_send =
            room > 0 && unspeakable.is_none() && !stop.is_cancelled() && Instant::now() >= rested_at;
        // What this process wrote itself need not be read. What was read ahead comes first.
        let written = if may_send && ahead.is_none() { own.next(next) } else { None };
        let is_behind =
            *head.borrow_and_update() > next || looked_at.is_none_or(|at| at.elapsed() >= LOOK_AGAIN);
        let read = if may_send && is_behind && written.is_none() {
            looked_at = Some(Instant::now());
            let chunk = match ahead.take() {
                Some(chunk) => chunk.await.map_err(|_| Error::ShuttingDown)??,
                None => Vec::new(),
            };
            // What was read ahead and found nothing may be older than the last notification.
            if chunk.is_empty() {
                feed::read(log.connections(), log.source(), next, room.min(CHUNK_EVENTS)).await?
            } else {
                chunk
            }
        } else {
            Vec::new()
        };
        if let Some(last) = read.last().filter(|_| read.len() as i64 == CHUNK_EVENTS) {
            // There is a backlog: the database reads on while this chunk is encoded and sent.
            let (log, after) = (log.clone(), last.position);
            let reading =
                async move { feed::read(log.connections(), log.source(), after, CHUNK_EVENTS).await };
            ahead = Some(tokio::spawn(reading));
        }
        // One of them at most has any.
        let has_any = written.is_some() || !read.is_empty();
        let own_events = written.iter().flat_map(|(batch, from)| &batch[*from..]).map(|event| &***event);
        for event in read.iter().chain(own_events) {
            let published = match encode(event) {
                Ok(published) => published,
                Err(error) => {
                    unspeakable = Some(error);
                    break;
                }
            };
            let before = std::mem::replace(&mut previous[event.partition as usize], event.position);
            send(&producer, &topic, event, &published, before, &report).await?;
            next = event.position;
        }
        if planted!("defect-relay-marks-before-ack") {
            progress.acknowledged = next;
        }
        metrics::gauge!("mart_relay_position", "source" => log.source().to_owned())
            .set(progress.acknowledged as f64);
        if has_any {
            has_sent = true;
            continue;
        }
        if std::mem::take(&mut has_sent) {
            rested_at = Instant::now() + if broker.config().embedded { EMBEDDED_PACE } else { PACE };
        }
        if stop.is_cancelled() {
            // What is not acknowledged by then is sent again by whoever relays next.
            let until = *drained_by.get_or_insert_with(|| Instant::now() + DRAINED_WITHIN);
            if progress.acknowledged == next || Instant::now() >= until {
                return Ok(());
            }
        }
        let pause = if progress.moved() {
            STORED_EVERY
        } else if progress.acknowledged < next {
            ACKNOWLEDGED_WITHIN.saturating_sub(moved_at.1.elapsed())
        } else {
            LOOK_AGAIN
        };
        let rest = rested_at.saturating_duration_since(Instant::now());
        let may_look = room > 0 && rest.is_zero();
        let pause = if rest.is_zero() { pause } else { rest };
        tokio::select! {
            Some(report) = reports.recv() => {
                crash_point!("relay-acknowledged", log.source(), Err(Error::ShuttingDown));
                progress.note(report, broker, &producer)?;
            }
            changed = head.changed(), if may_look => changed.map_err(|_| Error::ShuttingDown)?,
            () = own.arrived(), if may_look => {}
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

async fn send(
    producer: &BaseProducer<Reports>,
    topic: &str,
    event: &Recorded,
    published: &Published,
    previous: i64,
    report: &mpsc::UnboundedSender<Report>,
) -> Result<()> {
    loop {
        let delivery = Box::new(Delivery { position: event.position, report: report.clone() });
        let headers = headers(event, published, previous, topic);
        match Broker::send(
            producer,
            topic,
            event.partition,
            &event.aggregate_id,
            &published.payload,
            headers,
            delivery,
        ) {
            Ok(()) => return Ok(()),
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn headers(event: &Recorded, published: &Published, previous: i64, topic: &str) -> OwnedHeaders {
    let event_id = event.event_id().to_string();
    let position = event.position.to_string();
    let previous = previous.to_string();
    let time = event.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let source = format!("/{topic}");
    let pairs: [(&str, &str); 9] = [
        ("ce_specversion", "1.0"),
        ("ce_id", &event_id),
        ("ce_type", &published.message_type),
        ("ce_source", &source),
        ("ce_time", &time),
        ("ce_subject", &event.aggregate_id),
        ("content-type", "application/protobuf"),
        (HEADER_POSITION, &position),
        (HEADER_PREVIOUS, &previous),
    ];
    let mut headers = OwnedHeaders::new_with_capacity(pairs.len() + 1);
    for (key, value) in pairs {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    if let Some(traceparent) = &event.metadata.traceparent {
        headers = headers.insert(Header { key: "traceparent", value: Some(traceparent) });
    }
    headers
}

struct Progress {
    source: String,
    /// As the database has it.
    stored: i64,
    /// Everything up to here is acknowledged.
    acknowledged: i64,
    /// Acknowledged out of order: partitions answer each in their own time.
    ahead: BTreeSet<i64>,
}

impl Progress {
    async fn load(log: &Log) -> Result<Self> {
        let stored: i64 = sqlx::query_scalar(
            "insert into event_store.relay as r (source, position) values ($1, 0) \
             on conflict (source) do update set position = r.position returning position",
        )
        .bind(log.source())
        .fetch_one(log.database())
        .await?;
        Ok(Self { source: log.source().to_owned(), stored, acknowledged: stored, ahead: BTreeSet::new() })
    }

    fn note(&mut self, report: Report, broker: &Broker, producer: &Arc<BaseProducer<Reports>>) -> Result<()> {
        if planted!("defect-relay-marks-before-ack") {
            return Ok(());
        }
        if let Some(error) = report.error {
            // What is still queued behind the failed record must not pass it.
            broker.give_up(producer);
            return Err(error.into());
        }
        self.ahead.insert(report.position);
        while self.ahead.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
        Ok(())
    }

    fn moved(&self) -> bool {
        self.acknowledged > self.stored
    }

    /// Stores progress; says whether this relay is still the one in office.
    async fn store(&mut self, log: &Log) -> Result<bool> {
        // Not flushed: what was noted and is lost in a crash of the server is sent again.
        let moved: i64 = sqlx::query_scalar(
            "with moved as ( \
                 update event_store.relay set position = $3 where source = $1 and position = $2 returning position \
             ) select count(*), set_config('synchronous_commit', 'off', true) from moved",
        )
        .bind(&self.source)
        .bind(self.stored)
        .bind(self.acknowledged)
        .fetch_one(log.database())
        .await?;
        self.stored = self.acknowledged;
        Ok(moved == 1)
    }
}

#[cfg(test)]
mod tests {
    use embedded::broker::{RDKafkaApiKey, RDKafkaRespErr};
    use embedded::{EmbeddedBroker, testing};

    use super::*;
    use crate::append::Append;
    use crate::broker::BrokerConfig;
    use crate::{Metadata, NewEvent};

    /// How long something may take that is sure to come.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn opened() -> Append {
        let event = NewEvent {
            event_type: "AccountOpened".to_owned(),
            event_version: "1.0".to_owned(),
            payload: "{}".to_owned(),
            metadata: Metadata::default(),
        };
        Append {
            aggregate_type: "account",
            aggregate_id: "an account".to_owned(),
            expected: 0,
            events: vec![event],
            claims: Vec::new(),
            key: None,
            refused: false,
            answer: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_whose_requests_come_to_nothing_is_given_up_while_the_broker_answers() {
        let kafka = EmbeddedBroker::start(None).expect("starts");
        let config = BrokerConfig::new(kafka.bootstrap_servers());
        kafka.create_topic(&config.topic_of("accounts"), i32::from(PARTITIONS)).expect("made");
        let broker = Broker::new(BrokerConfig { embedded: true, ..config });
        let database = testing::database("relay").await;
        let log = Log::open("accounts", &database.url, [7; 32]).expect("the URL is good");
        log.migrate().await.expect("the migrations apply");

        // It goes on asking for as long as this is the answer.
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
        kafka.request_errors(RDKafkaApiKey::Produce, &[refusal; 10_000]);
        let first = broker.producer().expect("made");
        let encode: Encoder = Arc::new(|_| {
            Ok(Published { payload: Bytes::from_static(b"opened"), message_type: "AccountOpened".to_owned() })
        });
        let stop = CancellationToken::new();
        let relaying = tokio::spawn(run(log.clone(), broker.clone(), encode, stop.clone()));
        log.committer().append(0, vec![opened()]).await.expect("appended");
        let given_up = async {
            while Arc::ptr_eq(&first, &broker.producer().expect("there is one")) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, given_up).await.expect("the client is given up");

        kafka.clear_request_errors(RDKafkaApiKey::Produce);
        let published = async {
            while Progress::load(&log).await.expect("the database answers").stored < 1 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, published).await.expect("another one publishes it");
        stop.cancel();
        relaying.await.expect("ends");
    }
}
