//! Group commit: what is queued when a connection is free leaves in one batch, one round trip and one commit. There
//! is no timer: the batch adapts to the time a commit takes. While one batch is flushed the next is inserted.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::announcer::Announcer;
use crate::append::{Append, Outcome, Written, append};
use crate::event::partition_of;
use crate::memory::{Memory, Seen};
use crate::read_once::ReadOnce;
use crate::signal::Signal;
use crate::tail::Tail;
use crate::{Error, Recorded, Result, crash_point};
use queue::{Group, Queue};
use under_way::{Done, UnderWay};

mod queue;
mod under_way;

/// How many groups wait at most before writers are held back.
const QUEUE_GROUPS: usize = 16_384;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a batch may take; after that its fate is asked for on another connection.
const APPEND_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the fate of a batch is asked for after its connection was cut, and how long between.
const FATE_ATTEMPTS: u32 = 5;
const FATE_PAUSE: Duration = Duration::from_millis(200);

/// The queue in front of a log.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Group>,
}

impl Committer {
    pub(crate) fn start(options: PgConnectOptions, signal: Signal, memory: Arc<Memory>, tail: Tail) -> Self {
        let (queue, groups) = mpsc::channel(QUEUE_GROUPS);
        let announcer = Announcer::start(&signal, options.clone());
        let told = Arc::new(Told { signal, announcer, memory, tail });
        tokio::spawn(Coordinator { options, told, groups, idle: Vec::new() }.run());
        Self { queue }
    }

    /// Appends the commands of one aggregate as they were decided in a life of the log, together with whatever
    /// else is queued. What was decided in a life that is over is a conflict.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database could not be reached; after a cut connection the fate of
    /// the batch is found out first, and only when that fails too is the error given.
    pub async fn append(&self, life: u64, commands: Vec<Append>) -> Result<Vec<Outcome>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        self.queue.send(Group { commands, life, reply }).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

/// Who is told of what was committed.
struct Told {
    /// Those who wait in this process.
    signal: Signal,
    /// Other processes.
    announcer: Announcer,
    /// What this process remembers.
    memory: Arc<Memory>,
    /// Those who read in this process.
    tail: Tail,
}

struct Coordinator {
    options: PgConnectOptions,
    told: Arc<Told>,
    groups: mpsc::Receiver<Group>,
    idle: Vec<PgConnection>,
}

impl Coordinator {
    async fn run(mut self) {
        let mut queue = Queue::default();
        let mut under_way = UnderWay::default();
        while queue.commands() > 0 || self.waits_for_first(&mut queue).await {
            self.gather(&mut queue, &under_way).await;
            loop {
                while let Some(connection) = under_way.ended() {
                    self.idle.extend(connection);
                }
                if under_way.has_room_for(queue.commands()) {
                    break;
                }
                self.idle.extend(under_way.next_ended().await);
                self.gather(&mut queue, &under_way).await;
            }
            let alone = under_way.is_alone(queue.commands());
            let batch = queue.take(under_way.share_of(queue.commands()));
            let (options, connection, told) = (self.options.clone(), self.idle.pop(), Arc::clone(&self.told));
            under_way.begin(batch.commands, commit(options, connection, batch.groups, alone, told));
        }
    }

    async fn waits_for_first(&mut self, queue: &mut Queue) -> bool {
        let first = self.groups.recv().await;
        first.map(|first| queue.push(first)).is_some()
    }

    /// Lets the writers that the last commit has just answered queue again, so that batches form, for as long as any
    /// does. The share of one batch goes without waiting for more: it can be on its way while the one before it
    /// commits.
    async fn gather(&mut self, queue: &mut Queue, under_way: &UnderWay) {
        loop {
            let before = queue.commands();
            tokio::task::yield_now().await;
            while queue.has_room() {
                let Ok(group) = self.groups.try_recv() else { break };
                queue.push(group);
            }
            let commands = queue.commands();
            if commands == before || under_way.is_enough(commands) {
                return;
            }
        }
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
    }
}

/// Commits one batch and answers its groups.
async fn commit(
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    batch: Vec<Group>,
    alone: bool,
    told: Arc<Told>,
) -> Done {
    let memory = &told.memory;
    let reused = connection.is_some();
    let (life, seen) = (memory.life(), memory.furthest());
    let (mut batch, outdated): (Vec<Group>, Vec<Group>) =
        batch.into_iter().partition(|group| group.life == life);
    for group in outdated {
        let _ = group.reply.send(Ok(vec![Outcome::Conflict; group.commands.len()]));
    }
    if batch.is_empty() {
        return Done { connection, pace: None };
    }
    // In the order of the index they go into, whose pages are touched one after the other then. Between aggregates no
    // order is promised; groups of one aggregate keep theirs.
    batch.sort_by(|a, b| a.aggregate_id().cmp(&b.aggregate_id()));
    let sizes: Vec<usize> = batch.iter().map(|group| group.commands.len()).collect();
    let mut commands = Vec::with_capacity(sizes.iter().sum());
    let mut replies = Vec::with_capacity(batch.len());
    for group in batch {
        commands.extend(group.commands);
        replies.push(group.reply);
    }
    metrics::histogram!("mart_append_batch_commands").record(commands.len() as f64);

    let (written, connection) =
        commit_commands(&options, connection, reused, &commands, told.signal.source(), seen, alone).await;
    let mut pace = None;
    match written {
        Ok(written) => {
            let written = written.unwrap_or_else(|| {
                tracing::error!(
                    source = told.signal.source(),
                    position = seen.map(|(position, _)| position),
                    "the log does not hold an event that it held: it was taken back to an earlier state; what is \
                     in memory is forgotten"
                );
                memory.forget(life);
                told.signal.was_taken_back();
                vec![Outcome::Conflict; commands.len()].into()
            });
            pace = written.pace;
            let outcomes = written.outcomes;
            let last = outcomes.iter().filter_map(Outcome::last).max();
            if let Some(last) = last {
                memory.saw(life, last);
            }
            // The writers first: what they then remember, those who read along need not load.
            let mut answers = outcomes.iter();
            for (reply, size) in replies.into_iter().zip(sizes) {
                // A writer that has gone away needs no answer.
                let _ = reply.send(Ok(answers.by_ref().take(size).cloned().collect()));
            }
            if let Some(last) = last {
                // Before anybody is woken: what they look for is there.
                if told.tail.is_read() {
                    told.tail.committed(recorded(commands, &outcomes));
                }
                told.signal.committed(last.0);
                told.announcer.committed(last.0);
            }
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                commands = commands.len(),
                "a batch could not be committed"
            );
            for reply in replies {
                let _ = reply.send(Err(error.again()));
            }
        }
    }
    Done { connection, pace }
}

/// The events of a batch as the log has them now.
fn recorded(commands: Vec<Append>, outcomes: &[Outcome]) -> Vec<Arc<ReadOnce>> {
    let mut events = Vec::with_capacity(commands.iter().map(|command| command.events.len()).sum());
    for (command, outcome) in commands.into_iter().zip(outcomes) {
        let Outcome::Appended { position: last, recorded_at, .. } = outcome else { continue };
        let partition = partition_of(&command.aggregate_id);
        let first = last + 1 - command.events.len() as i64;
        for (offset, event) in (0_i64..).zip(command.events) {
            let recorded = Recorded {
                position: first + offset,
                partition,
                aggregate_type: command.aggregate_type.to_owned(),
                aggregate_id: command.aggregate_id.clone(),
                sequence: command.expected + 1 + offset,
                event_type: event.event_type,
                event_version: event.event_version,
                payload: event.payload,
                metadata: event.metadata,
                recorded_at: *recorded_at,
            };
            events.push(recorded.into());
        }
    }
    events
}

async fn commit_commands(
    options: &PgConnectOptions,
    connection: Option<PgConnection>,
    reused: bool,
    commands: &[Append],
    source: &str,
    seen: Option<Seen>,
    alone: bool,
) -> (Result<Option<Written>>, Option<PgConnection>) {
    let mut connection = match connection {
        Some(connection) => connection,
        None => match connect(options).await {
            Ok(connection) => connection,
            Err(error) => return (Err(error), None),
        },
    };
    // A server that hangs without closing the connection must not hold all writers for ever.
    let appended =
        match tokio::time::timeout(APPEND_TIMEOUT, attempt(&mut connection, commands, source, seen, alone))
            .await
        {
            Ok(appended) => appended,
            Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        };
    match appended {
        Ok(outcomes) => (Ok(outcomes), Some(connection)),
        Err(Error::Unavailable(error)) => {
            tracing::warn!(%error, reused, "the connection broke during a commit; asking for its fate");
            drop(connection);
            match fate(options, commands).await {
                Ok((outcomes, connection)) => (Ok(Some(outcomes.into())), Some(connection)),
                Err(error) => (Err(error), None),
            }
        }
        Err(error) => {
            // The statement failed as a whole and left nothing, unless it was cancelled in a moment when the lock it
            // inserts under stays with the session: which therefore ends.
            (Err(error), None)
        }
    }
}

/// One append. What fails around it is told as a connection that was cut there.
async fn attempt(
    connection: &mut PgConnection,
    commands: &[Append],
    source: &str,
    seen: Option<Seen>,
    alone: bool,
) -> Result<Option<Written>> {
    crash_point!("append-before-commit", source, Err(Error::Unavailable(sqlx::Error::PoolClosed)));
    let appended = append(connection, commands, seen, alone).await;
    crash_point!("append-after-commit", source, Err(Error::Unavailable(sqlx::Error::PoolClosed)));
    appended
}

/// Finds out what became of a batch whose connection was cut: it keeps all writers out, so that a
/// backend that still works on it has ended, and looks for the events by their ids.
async fn fate(options: &PgConnectOptions, commands: &[Append]) -> Result<(Vec<Outcome>, PgConnection)> {
    let mut last = Error::ShuttingDown;
    for _ in 0..FATE_ATTEMPTS {
        match connect(options).await {
            Ok(mut connection) => match look_for(&mut connection, commands).await {
                Ok(outcomes) => return Ok((outcomes, connection)),
                Err(error) => last = error,
            },
            Err(error) => last = error,
        }
        tokio::time::sleep(FATE_PAUSE).await;
    }
    Err(last)
}

const LOOK_FOR: &str = r"
    select w.ordinal, e.position, e.recorded_at, e.metadata ->> 'event_id' as event_id
    from unnest($1::text[], $2::text[], $3::bigint[]) with ordinality as w(type, aggregate, last, ordinal)
    join event_store.events e
      on e.aggregate_type = w.type and e.aggregate_id = w.aggregate and e.sequence = w.last";

async fn look_for(connection: &mut PgConnection, commands: &[Append]) -> Result<Vec<Outcome>> {
    let mut transaction = connection.begin().await?;
    sqlx::query("select event_store.keep_writers_out()").execute(&mut *transaction).await?;
    let types: Vec<&str> = commands.iter().map(|command| command.aggregate_type).collect();
    let aggregates: Vec<&str> = commands.iter().map(|command| command.aggregate_id.as_str()).collect();
    let last: Vec<i64> =
        commands.iter().map(|command| command.expected + command.events.len() as i64).collect();
    let rows =
        sqlx::query(LOOK_FOR).bind(types).bind(aggregates).bind(last).fetch_all(&mut *transaction).await?;
    transaction.rollback().await?;

    // What is not found was not committed: as a conflict it is decided and appended anew.
    let mut outcomes = vec![Outcome::Conflict; commands.len()];
    for row in rows {
        let index = row.try_get::<i64, _>("ordinal")? as usize - 1;
        let command = &commands[index];
        let stored: Option<String> = row.try_get("event_id")?;
        let ours = command.events.last().and_then(|event| event.metadata.event_id);
        if ours.is_some() && stored.and_then(|id| Uuid::parse_str(&id).ok()) == ours {
            outcomes[index] = Outcome::Appended {
                sequence: last_sequence(command),
                position: row.try_get("position")?,
                recorded_at: row.try_get::<DateTime<Utc>, _>("recorded_at")?,
            };
        }
    }
    Ok(outcomes)
}

fn last_sequence(command: &Append) -> i64 {
    command.expected + command.events.len() as i64
}
