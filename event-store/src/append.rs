//! One round trip, one commit, for many commands: the call of the SQL function `event_store.append`.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, PgConnection, Postgres, Row, Type};
use uuid::Uuid;

use crate::event::partition_of;
use crate::memory::Seen;
use crate::{Metadata, NewEvent, Result};

/// About how many bytes of an event are not its payload.
const BYTES_BESIDE_PAYLOAD: usize = 384;

/// A name that may have one owner at a time within its scope: an e-mail address, a SKU. The key is hashed
/// before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What kind of name it is.
    pub scope: String,
    /// The hashed name.
    pub key: Vec<u8>,
    /// Whether it is taken or given up.
    pub take: bool,
}

/// The identity of an idempotent command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandKey {
    /// Unique over all commands of the log.
    pub command_id: Uuid,
    /// Who asked.
    pub principal: String,
    /// A hash of what was asked: another request under the same id is an error of the caller.
    pub fingerprint: Vec<u8>,
    /// Whether the id follows from an event (kept for 30 days) or came with a request (48 hours).
    pub derived: bool,
}

/// One command's share of a batch.
#[derive(Debug, Clone)]
pub struct Append {
    /// The type of the aggregate.
    pub aggregate_type: &'static str,
    /// The aggregate.
    pub aggregate_id: String,
    /// The version the decision was made from.
    pub expected: i64,
    /// What was decided; empty when the decision was a refusal, or changed nothing.
    pub events: Vec<NewEvent>,
    /// Names taken and given up.
    pub claims: Vec<Claim>,
    /// The idempotent command, if it is one.
    pub key: Option<CommandKey>,
    /// Whether the decision was a refusal.
    pub refused: bool,
    /// The answer to keep for copies of the command, as JSON.
    pub answer: Option<String>,
}

impl Append {
    /// About how many bytes it sends.
    pub(crate) fn bytes(&self) -> usize {
        128 + self.events.iter().map(|event| event.payload.len() + BYTES_BESIDE_PAYLOAD).sum::<usize>()
    }
}

/// What an earlier copy of a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstCopy {
    /// The type of the aggregate it went to.
    pub aggregate_type: String,
    /// The aggregate it went to.
    pub aggregate_id: String,
    /// The version it left.
    pub sequence: i64,
    /// The position of its last event.
    pub position: i64,
    /// Whether it was refused.
    pub refused: bool,
    /// The hash of what was asked.
    pub fingerprint: Vec<u8>,
    /// The answer kept for copies, if it is known yet.
    pub answer: Option<String>,
}

/// What became of one command of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its events are durable.
    Appended {
        /// The version after it.
        sequence: i64,
        /// The position of its last event, 0 when it had none.
        position: i64,
        /// When it was committed.
        recorded_at: DateTime<Utc>,
    },
    /// Its id is known: nothing was written.
    Duplicate(FirstCopy),
    /// Somebody else moved the aggregate on: nothing was written.
    Conflict,
    /// A name it wants belongs to somebody else: nothing was written.
    ClaimTaken {
        /// The kind of name.
        scope: String,
    },
}

impl Outcome {
    /// The last event it wrote, if it wrote any.
    pub(crate) fn last(&self) -> Option<Seen> {
        match self {
            Self::Appended { position, recorded_at, .. } if *position > 0 => Some((*position, *recorded_at)),
            Self::Appended { .. } | Self::Duplicate(_) | Self::Conflict | Self::ClaimTaken { .. } => None,
        }
    }
}

/// What became of a batch.
pub(crate) struct Written {
    /// One for each command.
    pub(crate) outcomes: Vec<Outcome>,
    /// How long it took, when all went well.
    pub(crate) pace: Option<Pace>,
}

impl From<Vec<Outcome>> for Written {
    fn from(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes, pace: None }
    }
}

/// How long the parts of an append took, by the server's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Inserting the rows, while nobody else did.
    pub(crate) inserting: TimeDelta,
    /// Then waiting until the batch before was committed.
    pub(crate) waiting: TimeDelta,
}

const APPEND: &str = "select * from event_store.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
                      $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)";

/// What is bound as PostgreSQL's `json`.
enum Json<'a> {
    /// What is text already.
    Text(&'a str),
    /// What becomes text where it is sent from.
    Metadata(&'a Metadata),
}

impl Type<Postgres> for Json<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl PgHasArrayType for Json<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(199))
    }
}

impl Encode<'_, Postgres> for Json<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        match self {
            Self::Text(text) => buffer.extend_from_slice(text.as_bytes()),
            Self::Metadata(metadata) => serde_json::to_writer(&mut **buffer, metadata)?,
        }
        Ok(IsNull::No)
    }
}

/// Appends a batch, unless the log no longer holds what was `seen` of it: then nothing is written and there are
/// no outcomes. Commands of one aggregate must come in the order of their decision. It comes `alone` when no other batch
/// is to be inserted while this one is flushed.
///
/// # Errors
/// When the database is gone: then it is unknown whether the batch was committed.
pub(crate) async fn append(
    connection: &mut PgConnection,
    batch: &[Append],
    seen: Option<Seen>,
    alone: bool,
) -> Result<Option<Written>> {
    let commands = batch.len();
    let events = batch.iter().map(|command| command.events.len()).sum();
    let mut types = Vec::with_capacity(commands);
    let mut aggregates = Vec::with_capacity(commands);
    let mut expected = Vec::with_capacity(commands);
    let mut counts = Vec::with_capacity(commands);
    let mut last = Vec::with_capacity(commands);
    let mut ids = Vec::with_capacity(commands);
    let mut principals = Vec::with_capacity(commands);
    let mut fingerprints = Vec::with_capacity(commands);
    let mut refused = Vec::with_capacity(commands);
    let mut answers = Vec::with_capacity(commands);
    let mut derived = Vec::with_capacity(commands);
    let mut event_commands = Vec::with_capacity(events);
    let mut sequences = Vec::with_capacity(events);
    let mut event_types = Vec::with_capacity(events);
    let mut versions = Vec::with_capacity(events);
    let mut payloads = Vec::with_capacity(events);
    let mut metadata = Vec::with_capacity(events);
    let mut partitions = Vec::with_capacity(events);
    let (mut claim_commands, mut scopes, mut keys, mut takes) = (vec![], vec![], vec![], vec![]);

    for (index, command) in batch.iter().enumerate() {
        let ordinal = index as i32 + 1;
        types.push(command.aggregate_type);
        aggregates.push(command.aggregate_id.as_str());
        expected.push(command.expected);
        counts.push(command.events.len() as i32);
        last.push(last.last().copied().unwrap_or(0) + command.events.len() as i32);
        ids.push(command.key.as_ref().map(|key| key.command_id));
        principals.push(command.key.as_ref().map(|key| key.principal.as_str()));
        fingerprints.push(command.key.as_ref().map(|key| key.fingerprint.as_slice()));
        refused.push(command.refused);
        answers.push(command.answer.as_deref());
        derived.push(command.key.as_ref().is_some_and(|key| key.derived));
        let partition = partition_of(&command.aggregate_id);
        for (offset, event) in command.events.iter().enumerate() {
            event_commands.push(ordinal);
            sequences.push(command.expected + 1 + offset as i64);
            event_types.push(event.event_type.as_str());
            versions.push(event.event_version.as_str());
            payloads.push(Json::Text(&event.payload));
            metadata.push(Json::Metadata(&event.metadata));
            partitions.push(partition);
        }
        for claim in &command.claims {
            claim_commands.push(ordinal);
            scopes.push(claim.scope.as_str());
            keys.push(claim.key.as_slice());
            takes.push(claim.take);
        }
    }

    let rows = sqlx::query(APPEND)
        .bind(types)
        .bind(aggregates)
        .bind(expected)
        .bind(counts)
        .bind(last)
        .bind(ids)
        .bind(principals)
        .bind(fingerprints)
        .bind(refused)
        .bind(answers)
        .bind(derived)
        .bind(event_commands)
        .bind(sequences)
        .bind(event_types)
        .bind(versions)
        .bind(payloads)
        .bind(metadata)
        .bind(partitions)
        .bind(claim_commands)
        .bind(scopes)
        .bind(keys)
        .bind(takes)
        .bind(seen.map(|(position, _)| position))
        .bind(seen.map(|(_, recorded_at)| recorded_at))
        .bind(alone)
        .fetch_all(&mut *connection)
        .await?;

    let Some(first) = rows.first() else { return Ok(None) };
    let head: i64 = first.try_get("head")?;
    let recorded_at: DateTime<Utc> = first.try_get("recorded")?;
    let pace = match (first.try_get::<Option<DateTime<Utc>>, _>("inserted")?, first.try_get("turn")?) {
        (Some(inserted), Some(turn)) => {
            let waiting = <DateTime<Utc>>::signed_duration_since(turn, inserted);
            Some(Pace { inserting: inserted - recorded_at, waiting })
        }
        _ => None,
    };
    let all_good = first.try_get::<i32, _>("ordinal")? == 0;

    let mut position = head;
    let mut outcomes = Vec::with_capacity(commands);
    for (index, command) in batch.iter().enumerate() {
        let verdict = if all_good { 0 } else { rows[index].try_get::<i16, _>("outcome")? };
        outcomes.push(match verdict {
            0 => {
                position += command.events.len() as i64;
                let sequence = command.expected + command.events.len() as i64;
                let last = if command.events.is_empty() { 0 } else { position };
                Outcome::Appended { sequence, position: last, recorded_at }
            }
            1 => Outcome::Duplicate(first_copy(&rows[index])?),
            3 => Outcome::ClaimTaken {
                scope: rows[index].try_get::<Option<String>, _>("claim_scope")?.unwrap_or_default(),
            },
            _ => Outcome::Conflict,
        });
    }
    Ok(Some(Written { outcomes, pace }))
}

fn first_copy(row: &sqlx::postgres::PgRow) -> Result<FirstCopy> {
    Ok(FirstCopy {
        aggregate_type: row.try_get("first_type")?,
        aggregate_id: row.try_get("first_aggregate")?,
        sequence: row.try_get("first_sequence")?,
        position: row.try_get("first_position")?,
        refused: row.try_get("first_refused")?,
        fingerprint: row.try_get("first_fingerprint")?,
        answer: row.try_get("first_answer")?,
    })
}
