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
use event_store::{CommandBus, Context, Error, ExecuteError, Log, Target, commands, crash_point};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use projections::{Event, Happened};
use uuid::Uuid;

use aggregates::identifiers::derive;
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

    /// Makes this the origin of a command that another one was merged into. The event it was given for first remains
    /// its cause.
    fn join(&mut self, other: &Self) {
        self.command_id = derive(self.command_id, other.command_id.as_bytes());
    }
}

/// The commands of a batch, in the order of their events.
struct Commands<P: ProcessManager> {
    given: Vec<(P::Command, Origin)>,
    /// The last one for each aggregate whose commands may be merged.
    last: HashMap<Uuid, usize>,
}

impl<P: ProcessManager> Default for Commands<P> {
    fn default() -> Self {
        Self { given: Vec::new(), last: HashMap::new() }
    }
}

impl<P: ProcessManager> Commands<P> {
    fn add(&mut self, command: P::Command, origin: Origin) {
        if let Some(aggregate) = P::merges_for(&command) {
            // With the last one only, so that none overtakes another.
            let earlier = self.last.get(&aggregate).and_then(|index| self.given.get_mut(*index));
            if let Some((earlier, origins)) = earlier
                && P::merge(earlier, &command)
            {
                origins.join(&origin);
                return;
            }
            self.last.insert(aggregate, self.given.len());
        }
        self.given.push((command, origin));
    }
}

/// Gives a command to its aggregate. A refusal is an answer; only a failure of the plumbing is an error.
pub(super) type Dispatch<C> =
    Arc<dyn Fn(C, Origin) -> BoxFuture<'static, Result<(), ApplyError>> + Send + Sync>;

/// Where a command goes: what is asked something for the first time has no history to be loaded.
pub(super) fn target(aggregate_id: String, is_first: bool) -> Target {
    if is_first { Target::New(aggregate_id) } else { Target::Existing(aggregate_id) }
}

/// Gives a command to an aggregate through its bus.
pub(super) fn dispatch<A>(
    bus: CommandBus<A>,
    target: Target,
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
        match bus.execute(target, command, context).await {
            Ok(_) => Ok(()),
            Err(ExecuteError::Refused(refusal)) => {
                tracing::debug!(process = origin.process, command.id = %origin.command_id, %refusal, "a derived command was refused");
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
    listens_to: fn(&Event) -> Option<P::Event>,
}

impl<P: Managed> Manager<P> {
    pub(super) fn new(
        process: P,
        dispatch: Dispatch<P::Command>,
        listens_to: fn(&Event) -> Option<P::Event>,
    ) -> Self {
        Self { process, dispatch, listens_to }
    }

    fn reactions(&self, delivered: &Delivered) -> Result<Given<P>, ApplyError> {
        let happened = Happened::shared(delivered)?;
        let Some(event) = (self.listens_to)(&happened.event) else { return Ok(Vec::new()) };
        let cause = Cause {
            event_id: happened.event_id,
            source: happened.source,
            aggregate_id: happened.aggregate_id.clone(),
            sequence: happened.sequence,
            position: happened.position,
            recorded_at: happened.recorded_at,
            actor: happened.actor,
        };
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
        let mut commands = Commands::<P>::default();
        let mut changes = TimerChanges::default();
        for delivered in batch {
            for reaction in self.reactions(delivered)? {
                match reaction {
                    Reaction::Command { step, target } => {
                        commands.add(target, Origin::of::<P>(delivered, &step));
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
        for (target, origin) in commands.given {
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

    fn queues_at_once(&self) -> bool {
        true
    }
}

/// Destroys the personal keys of erased users, and what was answered to them.
pub(super) struct Forgetting {
    pub(super) home: Log,
}

#[async_trait]
impl Reactor for Forgetting {
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        for delivered in batch {
            let happened = Happened::shared(delivered)?;
            if let Event::User(UserEvent::UserErased { user_id }) = &happened.event {
                self.home.personal().forget(user_id.0).await?;
                commands::forget_answers(self.home.connections(), user_id.0).await?;
            }
        }
        Ok(TimerChanges::default())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use aggregates::identifiers::{OrderId, ProductId, UserId};
    use aggregates::orders::checkout::Checkout;
    use aggregates::orders::{OrderCommand, OrdersCommand};

    use super::*;

    fn origin(number: u128) -> Origin {
        Origin {
            command_id: Uuid::from_u128(number),
            process: Checkout::NAME,
            causation_id: Uuid::from_u128(number),
            correlation_id: None,
            traceparent: None,
        }
    }

    fn reserved(order: u128, products: &[u128]) -> OrdersCommand {
        let product_ids = products.iter().map(|product| ProductId(Uuid::from_u128(*product))).collect();
        let command = OrderCommand::RecordReserved { product_ids, now: DateTime::UNIX_EPOCH };
        OrdersCommand::Order(OrderId(Uuid::from_u128(order)), command)
    }

    fn cancel(order: u128) -> OrdersCommand {
        OrdersCommand::Order(OrderId(Uuid::from_u128(order)), OrderCommand::Cancel { by_admin: false })
    }

    fn given(commands: &[OrdersCommand]) -> (Vec<OrdersCommand>, Vec<Uuid>) {
        let mut all = Commands::<Checkout>::default();
        for (number, command) in commands.iter().enumerate() {
            all.add(command.clone(), origin(number as u128));
        }
        all.given.into_iter().map(|(command, origin)| (command, origin.command_id)).unzip()
    }

    #[test]
    fn answers_of_the_stock_to_one_order_are_one_command() {
        let (commands, ids) =
            given(&[reserved(1, &[1]), reserved(2, &[1]), reserved(1, &[2]), reserved(1, &[3])]);
        assert_eq!(commands, [reserved(1, &[1, 2, 3]), reserved(2, &[1])]);
        let (_, again) = given(&[reserved(1, &[1]), reserved(2, &[1]), reserved(1, &[2]), reserved(1, &[3])]);
        assert_eq!(ids, again, "the same events give the same ids");
        assert_ne!(ids[0], Uuid::from_u128(0), "nor is it the id of one of them");
    }

    #[test]
    fn no_answer_overtakes_another_command_to_its_order() {
        let commands = [reserved(1, &[1]), cancel(1), reserved(1, &[2])];
        assert_eq!(given(&commands).0, commands);
    }

    #[test]
    fn commands_to_a_cart_are_given_one_by_one() {
        let clear = OrdersCommand::Cart(UserId(Uuid::from_u128(1)), aggregates::carts::CartCommand::Clear);
        let commands = [clear.clone(), clear];
        assert_eq!(given(&commands).0, commands);
    }
}
