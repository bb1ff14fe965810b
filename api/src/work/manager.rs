//! A process manager as a subscriber: events in, commands with derived ids and timers out.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use cqrs_es::Aggregate;
use event_store::append::CommandKey;
use event_store::execute::Decision;
use event_store::subscription::{ApplyError, Delivered, Reactor};
use event_store::timers::{Timer, TimerChanges};
use event_store::{CommandBus, Context, Error, ExecuteError, Log, Target, crash_point};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use projections::{Event, Happened};
use uuid::Uuid;

use aggregates::process::{Cause, ProcessManager, Reaction, command_id};
use aggregates::users::UserEvent;

/// Where a command comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    command_id: Uuid,
    process: &'static str,
    causation_id: Uuid,
    correlation_id: Option<Uuid>,
    traceparent: Option<String>,
}

impl Origin {
    /// The origin of the command that a process manager gives in a step because of an event.
    fn of<P: ProcessManager>(delivered: &Delivered, step: &str) -> Self {
        let event_id = delivered.event_id();
        Self {
            command_id: command_id(event_id, step),
            process: P::NAME,
            causation_id: event_id,
            correlation_id: delivered.metadata.correlation_id,
            traceparent: delivered.metadata.traceparent.clone(),
        }
    }

    /// Makes this the origin of a command that another one was merged into.
    fn join(&mut self, other: &Self) {
        self.command_id = Uuid::new_v5(&self.command_id, other.command_id.as_bytes());
    }
}

/// Gives a command to its aggregate. A refusal is an answer; only a failure of the plumbing is an error.
pub(super) type Dispatch<C> =
    Arc<dyn Fn(C, Origin) -> BoxFuture<'static, Result<(), ApplyError>> + Send + Sync>;

/// Gives a command to an aggregate through its bus.
pub(super) fn dispatch<A>(
    bus: CommandBus<A>,
    aggregate_id: String,
    command: A::Command,
    origin: Origin,
) -> BoxFuture<'static, Result<(), ApplyError>>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    Box::pin(async move {
        let context = Context {
            key: Some(CommandKey {
                command_id: origin.command_id,
                principal: origin.process.to_owned(),
                fingerprint: Vec::new(),
                derived: true,
            }),
            causation_id: Some(origin.causation_id),
            correlation_id: origin.correlation_id,
            traceparent: origin.traceparent,
            // A refusal is the answer to a derived command once and for all, whatever happens later.
            answer: Some(Arc::new(|decision: &Decision<'_, A>| match decision {
                Decision::Refused(refusal) => {
                    Some(serde_json::json!({ "refused": refusal.to_string() }).to_string())
                }
                Decision::Accepted { .. } => None,
            })),
            ..Context::default()
        };
        match bus.execute(Target::Existing(aggregate_id.clone()), command, context).await {
            Ok(_) => Ok(()),
            Err(ExecuteError::Refused(refusal)) => {
                tracing::debug!(process = origin.process, aggregate.id = aggregate_id, %refusal, "a derived command was refused");
                Ok(())
            }
            Err(ExecuteError::Engine(error)) => Err(error.into()),
            Err(ExecuteError::Conflict | ExecuteError::Busy) => Err(event_store::Error::Busy.into()),
            Err(
                error @ (ExecuteError::ClaimTaken { .. }
                | ExecuteError::KeyReused
                | ExecuteError::VersionMismatch { .. }),
            ) => Err(ApplyError::Event(error.to_string())),
        }
    })
}

/// What a process manager must be to be run here.
pub(super) trait Managed: ProcessManager + Send + Sync + 'static {}

impl<P: ProcessManager + Send + Sync + 'static> Managed for P {}

/// What a process manager gives because of an event.
type Given<P> = Vec<Reaction<<P as ProcessManager>::Command, <P as ProcessManager>::Job>>;

/// A process manager, and where its commands go.
pub(super) struct Manager<P: ProcessManager> {
    process: P,
    dispatch: Dispatch<P::Command>,
    listens_to: fn(Event) -> Option<P::Event>,
}

impl<P: Managed> Manager<P> {
    pub(super) fn new(
        process: P,
        dispatch: Dispatch<P::Command>,
        listens_to: fn(Event) -> Option<P::Event>,
    ) -> Self {
        Self { process, dispatch, listens_to }
    }

    pub(super) fn name(&self) -> &'static str {
        P::NAME
    }

    fn reactions(&self, delivered: &Delivered) -> Result<Given<P>, ApplyError> {
        let happened = Happened::read(delivered)?;
        let cause = Cause {
            event_id: happened.event_id,
            source: happened.source,
            aggregate_id: happened.aggregate_id,
            sequence: happened.sequence,
            position: happened.position,
            recorded_at: happened.recorded_at,
            actor: happened.actor,
        };
        let Some(event) = (self.listens_to)(happened.event) else { return Ok(Vec::new()) };
        self.process.react(&cause, &event).map_err(|error| ApplyError::Event(error.to_string()))
    }
}

#[async_trait]
impl<P> Reactor for Manager<P>
where
    P: Managed,
    P::Event: Send,
    P::Command: Send,
    P::Job: Send,
{
    /// Gives the commands of a batch side by side. They enter the queues of their aggregates in the order of
    /// the events, and the bus keeps that order for each aggregate.
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        let mut commands: Vec<(P::Command, Origin)> = Vec::new();
        let mut latest: HashMap<Uuid, usize> = HashMap::new();
        let mut changes = TimerChanges::default();
        for delivered in batch {
            for reaction in self.reactions(delivered)? {
                match reaction {
                    Reaction::Command { step, target } => {
                        let origin = Origin::of::<P>(delivered, &step);
                        if let Some(aggregate) = P::merges_for(&target) {
                            // With the last one only, so that none overtakes another.
                            let earlier = latest.get(&aggregate).and_then(|index| commands.get_mut(*index));
                            if let Some((earlier, origins)) = earlier
                                && P::merge(earlier, &target)
                            {
                                origins.join(&origin);
                                continue;
                            }
                            latest.insert(aggregate, commands.len());
                        }
                        commands.push((target, origin));
                    }
                    Reaction::Schedule { id, due_at, job } => {
                        let command = serde_json::to_value(job).map_err(|error| {
                            ApplyError::Event(format!("a job cannot be written: {error}"))
                        })?;
                        changes.set(Timer { id, queue: P::NAME.to_owned(), due_at, command });
                    }
                    Reaction::Unschedule { id } => changes.clear(id),
                }
            }
        }
        let mut given = FuturesUnordered::new();
        for (target, origin) in commands {
            let mut command = (self.dispatch)(target, origin);
            // The first poll puts the command into its queue, so that order is kept from here on.
            match futures::poll!(&mut command) {
                Poll::Ready(done) => done?,
                Poll::Pending => given.push(command),
            }
        }
        while let Some(done) = given.next().await {
            done?;
            crash_point!("process-after-command", P::NAME, Err(Error::ShuttingDown.into()));
        }
        crash_point!("process-before-checkpoint", P::NAME, Err(Error::ShuttingDown.into()));
        Ok(changes)
    }
}

/// Destroys the personal keys of erased users.
pub(super) struct Forgetting {
    pub(super) home: Log,
}

#[async_trait]
impl Reactor for Forgetting {
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        for delivered in batch {
            let happened = Happened::read(delivered)?;
            if let Event::User(UserEvent::UserErased { user_id }) = happened.event {
                self.home.personal().forget(user_id.0).await?;
            }
        }
        Ok(TimerChanges::default())
    }
}
