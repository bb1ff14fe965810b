//! Planted defects of the append: what an engine does that forgot one of its rules. They are there so that the
//! tests of the guarantees can show that they would notice.

use std::ops::ControlFlow;

use cqrs_es::Aggregate;

use super::Inner;
use crate::append::{Append, Outcome};
use crate::log::Log;
use crate::{Result, commands, crash_point, planted};

/// Spoils a group as the planted defects say: gives it back to be appended, or says what became of it.
pub(super) async fn append<A>(
    inner: &Inner<A>,
    id: &str,
    life: u64,
    mut group: Vec<Append>,
) -> Result<ControlFlow<Vec<Outcome>, Vec<Append>>>
where
    A: Aggregate + Clone + 'static,
{
    // Stock is reserved by derived commands; those of clients keep their rule.
    let derived = group.iter().all(|command| command.key.as_ref().is_some_and(|key| key.derived));
    if derived && planted!("defect-reservation-ignores-version") {
        let stale =
            inner.loader.load(id, None).await?.version - group.first().map_or(0, |first| first.expected);
        for command in &mut group {
            command.expected += stale;
        }
    }
    if planted!("defect-idempotency-row-apart") {
        return Ok(ControlFlow::Break(rows_apart(&inner.log, life, group).await?));
    }
    Ok(ControlFlow::Continue(group))
}

/// Appends the events without the rows of their commands, and then those.
async fn rows_apart(log: &Log, life: u64, group: Vec<Append>) -> Result<Vec<Outcome>> {
    let mut known = Vec::with_capacity(group.len());
    let mut bare = Vec::with_capacity(group.len());
    for command in &group {
        let first = match &command.key {
            Some(key) => commands::find(log.database(), key.command_id).await?,
            None => None,
        };
        if first.is_none() {
            bare.push(Append { key: None, ..command.clone() });
        }
        known.push(first);
    }
    let mut appended = log.committer().append(life, bare).await?.into_iter();
    crash_point!("command-row-apart", log.source());
    let mut outcomes = Vec::with_capacity(group.len());
    for (command, first) in group.iter().zip(known) {
        let outcome = match first {
            Some(first) => Outcome::Duplicate(first),
            None => appended.next().unwrap_or(Outcome::Conflict),
        };
        if let Outcome::Appended { sequence, position, .. } = &outcome {
            store_row(log, command, *sequence, *position).await?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

async fn store_row(log: &Log, command: &Append, sequence: i64, position: i64) -> Result<()> {
    let Some(key) = &command.key else { return Ok(()) };
    if command.refused && command.answer.is_none() {
        return Ok(());
    }
    sqlx::query(
        "insert into event_store.commands (command_id, principal, fingerprint, aggregate_type, aggregate_id, \
         sequence, position, refused, answer, derived, created_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9::json, $10, clock_timestamp()) on conflict do nothing",
    )
    .bind(key.command_id)
    .bind(&key.principal)
    .bind(&key.fingerprint)
    .bind(command.aggregate_type)
    .bind(&command.aggregate_id)
    .bind(sequence)
    .bind(position)
    .bind(command.refused)
    .bind(&command.answer)
    .bind(key.derived)
    .execute(log.database())
    .await?;
    Ok(())
}
