//! The rounds of one aggregate: take what is queued, decide it in order, append it as one group, answer.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use tokio::time::Instant;
use uuid::Uuid;

use super::contention::pause;
use super::{Behaviour, ClaimChange, Committed, Context, Decision, ExecuteError, Inner, Loaded, Pending};
use crate::append::{Append, Claim, CommandKey, Outcome};
use crate::log::Log;
use crate::snapshots;
use crate::{Error, Metadata, NewEvent, Result};

/// How many commands of one aggregate are decided before they are committed.
const ROUND_COMMANDS: usize = 512;

/// The right to run the commands of one aggregate, held by one runner at a time.
///
/// A runner may end at any await: it runs in the caller's own task, which is dropped when a client goes
/// away, and a command may panic. Whoever still waits then is served by a runner of its own.
struct Turn<A>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    inner: Arc<Inner<A>>,
    id: String,
    /// Whether it has run at all. One that has not was made for a runtime that takes no more tasks.
    begun: bool,
    over: bool,
}

impl<A> Turn<A>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    fn new(inner: Arc<Inner<A>>, id: String) -> Self {
        Self { inner, id, begun: false, over: false }
    }

    /// Plays one round and puts back what has to be decided anew. Gives the state after it, when it is known.
    async fn play(&self, state: Option<Loaded<A>>, round: Vec<Pending<A>>) -> Option<Loaded<A>> {
        let Round { left, again, conflict, failure } = Round::play(&self.inner, &self.id, state, round).await;
        if let Some(failure) = failure {
            // Whoever gave these after one that failed will give that one again, and these come after it then, too.
            for pending in again.into_iter().chain(self.queued()) {
                let _ = pending.reply.send(Err(ExecuteError::Engine(failure.again())));
            }
        } else if !again.is_empty() {
            let conflicts =
                again.iter().map(|pending| pending.contention.conflicts()).max().unwrap_or_default();
            if let Some(mut waiting) = self.inner.queues.get_mut(&self.id) {
                for pending in again.into_iter().rev() {
                    waiting.push_front(pending);
                }
            }
            if conflict {
                tokio::time::sleep(pause(conflicts)).await;
            }
        }
        left
    }

    /// Gives the turn back if nobody waits: whether it did. The state is in the cache before the next command
    /// looks for it.
    fn give_back(&mut self, state: &mut Option<Loaded<A>>) -> bool {
        self.over = self
            .inner
            .queues
            .remove_if(&self.id, |_, waiting| {
                if waiting.is_empty()
                    && let Some(state) = state.take()
                {
                    self.inner.cache.put(&self.id, state);
                }
                waiting.is_empty()
            })
            .is_some();
        self.over
    }

    /// All that wait by now.
    fn queued(&self) -> VecDeque<Pending<A>> {
        self.inner
            .queues
            .get_mut(&self.id)
            .map(|mut waiting| std::mem::take(&mut *waiting))
            .unwrap_or_default()
    }

    fn next_round(&self) -> Vec<Pending<A>> {
        let Some(mut waiting) = self.inner.queues.get_mut(&self.id) else { return Vec::new() };
        let count = waiting.len().min(ROUND_COMMANDS);
        waiting.drain(..count).collect()
    }

    async fn play_on(mut self, mut state: Option<Loaded<A>>) {
        self.begun = true;
        while !self.give_back(&mut state) {
            let round = self.next_round();
            state = self.play(state, round).await;
        }
    }
}

impl<A> Drop for Turn<A>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if self.over || self.inner.queues.remove_if(&self.id, |_, waiting| waiting.is_empty()).is_some() {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if self.begun => {
                let turn = Self::new(Arc::clone(&self.inner), self.id.clone());
                runtime.spawn(turn.play_on(None));
            }
            // Nothing runs any more: whoever waits is told by the end of the channel.
            _ => {
                self.inner.queues.remove(&self.id);
            }
        }
    }
}

/// Runs a command that nobody is ahead of, in the caller's own task. Those that came in meanwhile go on in a
/// task of their own.
pub(super) async fn run_first<A>(inner: &Arc<Inner<A>>, id: String, pending: Pending<A>)
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    let mut turn = Turn::new(Arc::clone(inner), id);
    turn.begun = true;
    let state = inner.cache.take(&turn.id);
    let mut state = turn.play(state, vec![pending]).await;
    if !turn.give_back(&mut state) {
        tokio::spawn(turn.play_on(state));
    }
}

enum Verdict<A: Aggregate> {
    Accepted { state: Option<A> },
    Refused(A::Error),
    VersionMismatch { current: i64 },
}

struct Decided<A: Aggregate> {
    pending: Pending<A>,
    verdict: Verdict<A>,
    /// The version after it.
    sequence: i64,
    /// Its place in the group, if the log must be asked.
    append: Option<usize>,
    changes: bool,
}

struct Round<A: Aggregate> {
    left: Option<Loaded<A>>,
    again: Vec<Pending<A>>,
    conflict: bool,
    /// What kept it from being known what became of a command.
    failure: Option<Error>,
}

impl<A> Round<A>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    async fn play(inner: &Arc<Inner<A>>, id: &str, state: Option<Loaded<A>>, round: Vec<Pending<A>>) -> Self {
        // What was just loaded (or cannot exist yet) needs no second look before a refusal is told.
        let life = inner.log.memory().life();
        let state = state.filter(|state| state.life == life);
        let mut certain = state.is_none();
        let mut state = match state {
            Some(state) => state,
            None if round.first().is_some_and(|pending| pending.fresh) => {
                certain = false;
                Loaded::unborn(life)
            }
            // Boxed, as most commands find the state in memory.
            None => match Box::pin(inner.loader.load(id, None)).await {
                Ok(state) => state,
                Err(error) => {
                    return Self { left: None, again: round, conflict: false, failure: Some(error) };
                }
            },
        };

        let is_first = state.version == 0;
        let mut group: Vec<Append> = Vec::with_capacity(round.len());
        let mut decided: Vec<Decided<A>> = Vec::with_capacity(round.len());
        let mut again = Vec::new();
        let (mut spoilt, mut failure) = (false, None);
        let mut round = round.into_iter();
        let mut ids = HashSet::new();
        for pending in round.by_ref() {
            // A copy finds what the first one left only when that is committed.
            if pending.context.key.as_ref().is_some_and(|key| !ids.insert(key.command_id)) {
                again.push(pending);
                break;
            }
            match decide(inner, id, &mut state, pending, certain, &mut group).await {
                Ok((one, clean)) => {
                    certain &= !one.changes;
                    let names = one.append.is_some_and(|place| !group[place].claims.is_empty());
                    decided.push(one);
                    if !clean {
                        spoilt = true;
                        break;
                    }
                    // A group gives names up before it takes any: one taken by a command and given up by a
                    // later one of the group would stay taken.
                    if names {
                        break;
                    }
                }
                Err((pending, error)) => {
                    let _ = pending.reply.send(Err(ExecuteError::Engine(error.again())));
                    spoilt = true;
                    // Behind one that can never be written, nothing has to wait for it.
                    failure = Some(error).filter(Error::is_transient);
                    break;
                }
            }
        }
        again.extend(round);

        let period = inner.log.signal().period_alone();
        let outcomes =
            if group.is_empty() { Ok(Vec::new()) } else { append(inner, id, state.life, group).await };
        match outcomes {
            Err(error) => {
                for one in decided {
                    let _ = one.pending.reply.send(Err(ExecuteError::Engine(error.again())));
                }
                Self { left: None, again, conflict: false, failure: Some(error) }
            }
            Ok(outcomes) => {
                if let Some(last) = outcomes.iter().filter_map(Outcome::last).max() {
                    state.last = Some(last);
                    state.left_in = period;
                    if is_first {
                        state.begun_at = Some(last.1);
                    }
                }
                let (retry, broken, conflict) = settle(id, decided, &outcomes);
                let left = (!broken && !spoilt).then_some(state);
                again.splice(0..0, retry);
                Self { left: left.map(|state| snapshot(inner, id, state)), again, conflict, failure }
            }
        }
    }
}

async fn append<A>(inner: &Inner<A>, id: &str, life: u64, group: Vec<Append>) -> Result<Vec<Outcome>>
where
    A: Aggregate + Clone + 'static,
{
    #[cfg(feature = "failpoints")]
    let group = match super::defects::append(inner, id, life, group).await? {
        std::ops::ControlFlow::Continue(group) => group,
        std::ops::ControlFlow::Break(outcomes) => return Ok(outcomes),
    };
    #[cfg(not(feature = "failpoints"))]
    let _ = id;
    inner.log.committer().append(life, group).await
}

/// Decides one command on the working state and adds its share to the group. The flag tells whether the
/// working state is still that of the decided events alone.
async fn decide<A>(
    inner: &Inner<A>,
    id: &str,
    state: &mut Loaded<A>,
    pending: Pending<A>,
    certain: bool,
    group: &mut Vec<Append>,
) -> std::result::Result<(Decided<A>, bool), (Pending<A>, Error)>
where
    A: Aggregate + Clone,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync,
{
    let base = state.version;
    if let Some(expected) = pending.context.expected
        && expected != base
    {
        // It may be a copy of the very command that moved the version on.
        let needed = !certain || pending.context.key.is_some();
        let append = look_again::<A>(id, base, pending.context.key.as_ref(), needed, group);
        let verdict = Verdict::VersionMismatch { current: base };
        return Ok((Decided { pending, verdict, sequence: base, append, changes: false }, true));
    }

    let before = inner.behaviour.claims.map(|_| state.aggregate.clone());
    let sink = EventSink::default();
    let result = state.aggregate.handle(pending.command.clone(), &inner.services, &sink).await;
    let events = sink.collect().await;
    let mut append = Append {
        aggregate_type: A::TYPE,
        aggregate_id: id.to_owned(),
        expected: base,
        events: Vec::new(),
        claims: Vec::new(),
        key: pending.context.key.clone(),
        refused: result.is_err(),
        answer: None,
    };

    if let Err(refusal) = result {
        // A refusal after a first event leaves the working state changed: it is dropped.
        let clean = events.is_empty();
        append.answer =
            pending.context.answer.as_ref().and_then(|answer| answer(&Decision::Refused(&refusal)));
        let place = if append.key.is_some() {
            group.push(append);
            Some(group.len() - 1)
        } else {
            look_again::<A>(id, base, None, !certain, group)
        };
        let verdict = Verdict::Refused(refusal);
        return Ok((Decided { pending, verdict, sequence: base, append: place, changes: false }, clean));
    }

    let sequence = base + events.len() as i64;
    state.version = sequence;
    if let (Some(claims), Some(before)) = (inner.behaviour.claims, before) {
        append.claims = events
            .iter()
            .flat_map(|event| claims(&before, event))
            .map(|change| claim(&inner.log, change))
            .collect();
    }
    match serialise(&inner.log, &inner.behaviour, id, &events, &origin(&pending.context)).await {
        Ok(events) => append.events = events,
        Err(error) => return Err((pending, error)),
    }
    append.answer = pending
        .context
        .answer
        .as_ref()
        .and_then(|answer| answer(&Decision::Accepted { aggregate: &state.aggregate, sequence }));
    let changes = !append.events.is_empty();
    let kept = pending.context.with_state.then(|| state.aggregate.clone());
    let place = if changes || append.key.is_some() {
        group.push(append);
        Some(group.len() - 1)
    } else {
        look_again::<A>(id, base, None, !certain, group)
    };
    Ok((
        Decided { pending, verdict: Verdict::Accepted { state: kept }, sequence, append: place, changes },
        true,
    ))
}

/// Asks the log, with the group, whether the version a decision without events was made from still holds.
///
/// With a key it also asks whether the command is a copy.
fn look_again<A: Aggregate>(
    id: &str,
    version: i64,
    key: Option<&CommandKey>,
    needed: bool,
    group: &mut Vec<Append>,
) -> Option<usize> {
    if !needed {
        return None;
    }
    group.push(Append {
        aggregate_type: A::TYPE,
        aggregate_id: id.to_owned(),
        expected: version,
        events: Vec::new(),
        claims: Vec::new(),
        key: key.cloned(),
        refused: true,
        answer: None,
    });
    Some(group.len() - 1)
}

fn claim(log: &Log, change: ClaimChange) -> Claim {
    Claim {
        key: log.personal().claim_key(change.scope, &change.name),
        scope: change.scope.to_owned(),
        take: change.take,
    }
}

fn origin<A: Aggregate>(context: &Context<A>) -> Metadata {
    Metadata {
        event_id: None,
        command_id: context.key.as_ref().map(|key| key.command_id),
        correlation_id: context.correlation_id,
        causation_id: context.causation_id,
        actor: context.actor,
        person: None,
        traceparent: context.traceparent.clone(),
    }
}

/// New events as they are stored: personal fields sealed, each with an identity of its own.
pub(super) async fn serialise<A: Aggregate>(
    log: &Log,
    behaviour: &Behaviour<A>,
    id: &str,
    events: &[A::Event],
    origin: &Metadata,
) -> Result<Vec<NewEvent>> {
    let mut serialised = Vec::with_capacity(events.len());
    for event in events {
        let event_type = event.event_type();
        let encode = |source| Error::Decode { what: format!("a new {event_type}"), source };
        let fields = (behaviour.personal_fields)(&event_type);
        let person = if fields.is_empty() { None } else { (behaviour.person_of)(id, event) };
        let payload = match person {
            None => serde_json::to_string(event).map_err(encode)?,
            Some(person) => {
                let mut value = serde_json::to_value(event).map_err(encode)?;
                // Boxed, as few events need it and each command under way would have room for it.
                Box::pin(log.personal().seal(person, &mut value, fields)).await?;
                value.to_string()
            }
        };
        let metadata = Metadata { event_id: Some(Uuid::now_v7()), person, ..origin.clone() };
        let event_version = event.event_version();
        serialised.push(NewEvent { event_type, event_version, payload, metadata });
    }
    Ok(serialised)
}

/// Answers the decided commands. Gives back those to decide anew, whether the working state is lost, and
/// whether another process was the cause.
fn settle<A: Aggregate>(
    id: &str,
    decided: Vec<Decided<A>>,
    outcomes: &[Outcome],
) -> (Vec<Pending<A>>, bool, bool) {
    let mut retry = Vec::new();
    let (mut broken, mut conflict) = (false, false);
    for one in decided {
        let Decided { mut pending, verdict, sequence, append, changes } = one;
        let outcome = append.map(|place| &outcomes[place]);
        // What was decided on a lost state is a conflict to the log as well. All else stands, above all what
        // it appended: decided anew, that would be done twice.
        if broken && matches!(outcome, Some(Outcome::Conflict)) {
            retry.push(pending);
            continue;
        }
        let answer = match outcome {
            None => tell(id, verdict, sequence, 0, None),
            Some(Outcome::Appended { position, recorded_at, .. }) => {
                tell(id, verdict, sequence, *position, Some(*recorded_at))
            }
            Some(Outcome::Duplicate(first)) => {
                broken |= changes;
                let known =
                    pending.context.key.as_ref().is_some_and(|key| key.fingerprint == first.fingerprint);
                if known {
                    Ok(Committed {
                        aggregate_id: first.aggregate_id.clone(),
                        sequence: first.sequence,
                        position: first.position,
                        recorded_at: None,
                        aggregate: None,
                        replayed: Some(first.clone()),
                    })
                } else {
                    Err(ExecuteError::KeyReused)
                }
            }
            Some(Outcome::ClaimTaken { scope }) => {
                broken |= changes;
                Err(ExecuteError::ClaimTaken { scope: scope.clone() })
            }
            Some(Outcome::Conflict) => {
                broken = true;
                conflict = true;
                pending.fresh = false;
                if pending.contention.conflicts_at(Instant::now()) {
                    retry.push(pending);
                    continue;
                }
                Err(ExecuteError::Conflict)
            }
        };
        // A caller that has gone away needs no answer.
        let _ = pending.reply.send(answer);
    }
    (retry, broken, conflict)
}

fn tell<A: Aggregate>(
    id: &str,
    verdict: Verdict<A>,
    sequence: i64,
    position: i64,
    recorded_at: Option<chrono::DateTime<chrono::Utc>>,
) -> super::Executed<A> {
    match verdict {
        Verdict::Accepted { state } => Ok(Committed {
            aggregate_id: id.to_owned(),
            sequence,
            position,
            recorded_at,
            aggregate: state,
            replayed: None,
        }),
        Verdict::Refused(refusal) => Err(ExecuteError::Refused(refusal)),
        Verdict::VersionMismatch { current } => Err(ExecuteError::VersionMismatch { current }),
    }
}

/// Starts a snapshot in the background when the stream has grown by enough.
fn snapshot<A>(inner: &Arc<Inner<A>>, id: &str, mut state: Loaded<A>) -> Loaded<A>
where
    A: Aggregate + Clone + 'static,
    A::Command: Send + Sync,
    A::Error: Send + Sync,
{
    if !snapshots::is_due(state.version, state.snapshot) {
        return state;
    }
    state.snapshot = state.version;
    let (log, behaviour) = (inner.log.clone(), Arc::clone(&inner.behaviour));
    let (id, aggregate, version) = (id.to_owned(), state.aggregate.clone(), state.version);
    tokio::spawn(async move {
        let person = (behaviour.person_of_state)(&id, &aggregate);
        let stored = snapshots::store(&log, &id, &aggregate, version, behaviour.snapshot_shape, person).await;
        if let Err(error) = stored {
            tracing::warn!(%error, aggregate.id = id, "a snapshot could not be stored");
        }
    });
    state
}
