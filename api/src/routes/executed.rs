//! Commands as handlers give them: what they left, also when this copy of a request was not the first.

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use event_store::execute::Loaded;
use event_store::{CommandBus, Context, Recorded, Target, feed};

use crate::problem::Problem;
use crate::service::{engine, refused};

/// What a command left.
#[derive(Debug)]
pub(crate) struct Done<A> {
    /// The aggregate; of a repeated request the one its first copy went to.
    pub(crate) id: String,
    /// The state: right after the command, or as it is now when the request was repeated.
    pub(crate) state: A,
    /// The version of that state.
    pub(crate) version: i64,
    /// The version right after the command.
    pub(crate) sequence: i64,
    /// The position of the command's last event; 0 when nothing had to change.
    pub(crate) position: i64,
    /// When the events were recorded, for the first copy.
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    /// Whether an earlier copy of the request had done it.
    pub(crate) repeated: bool,
}

/// Carries out a command of an aggregate that claims no names. `refuse` tells the refusals of the domain.
///
/// # Errors
/// The refusal, or that the database is unavailable.
pub(crate) async fn carry_out<A>(
    bus: &CommandBus<A>,
    target: Target,
    command: A::Command,
    context: Context<A>,
    refuse: fn(A::Error) -> Problem,
) -> Result<Done<A>, Problem>
where
    A: Aggregate<Services = ()> + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    let unclaimed = |scope: &str| Problem::internal(format!("{} claims no {scope}", A::TYPE));
    carry_out_claiming(bus, target, command, context, refuse, unclaimed).await
}

/// Carries out a command. `refuse` tells the refusals of the domain, `taken` the names that belong to others.
///
/// # Errors
/// The refusal, or that the database is unavailable.
pub(crate) async fn carry_out_claiming<A>(
    bus: &CommandBus<A>,
    target: Target,
    command: A::Command,
    context: Context<A>,
    refuse: fn(A::Error) -> Problem,
    taken: fn(&str) -> Problem,
) -> Result<Done<A>, Problem>
where
    A: Aggregate<Services = ()> + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    let executed = bus.execute(target, command.clone(), context).await;
    let committed = executed.map_err(|error| refused(error, refuse, taken))?;
    let known = committed.aggregate.filter(|_| committed.replayed.is_none());
    if let Some(state) = known {
        return Ok(Done {
            id: committed.aggregate_id,
            state,
            version: committed.sequence,
            sequence: committed.sequence,
            position: committed.position,
            recorded_at: committed.recorded_at,
            repeated: false,
        });
    }
    let Loaded { aggregate, version, .. } = bus.load(&committed.aggregate_id).await.map_err(engine)?;
    if committed.replayed.is_some_and(|first| first.refused) {
        return Err(refusal_of(aggregate, command, refuse).await);
    }
    Ok(Done {
        id: committed.aggregate_id,
        state: aggregate,
        version,
        sequence: committed.sequence,
        position: committed.position,
        recorded_at: None,
        repeated: true,
    })
}

/// Why the first copy of a command was refused. The state tells it, unless it changed in between.
async fn refusal_of<A>(mut state: A, command: A::Command, refuse: fn(A::Error) -> Problem) -> Problem
where
    A: Aggregate<Services = ()>,
{
    match state.handle(command, &(), &EventSink::default()).await {
        Err(refusal) => refuse(refusal),
        Ok(()) => Problem::conflict("request_refused", "the first copy of this request was refused"),
    }
}

/// The position of the last event of an aggregate.
///
/// # Errors
/// When the database is unavailable.
pub(crate) async fn position_of<A>(bus: &CommandBus<A>, id: &str, loaded: &Loaded<A>) -> Result<i64, Problem>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    match loaded.position() {
        None => Ok(event_at(bus, id, loaded.version).await?.position),
        Some(known) => Ok(known),
    }
}

/// When the first event of an aggregate was recorded.
///
/// # Errors
/// When the database is unavailable.
pub(crate) async fn begun_at<A>(
    bus: &CommandBus<A>,
    id: &str,
    loaded: &Loaded<A>,
) -> Result<DateTime<Utc>, Problem>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    match loaded.begun_at {
        None => Ok(event_at(bus, id, 1).await?.recorded_at),
        Some(known) => Ok(known),
    }
}

/// The event that made a version of an aggregate, personal fields sealed.
///
/// # Errors
/// When the database is unavailable, or there is no such version.
pub(crate) async fn event_at<A>(bus: &CommandBus<A>, id: &str, sequence: i64) -> Result<Recorded, Problem>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    let found = feed::read_stream(bus.log().database(), A::TYPE, id, sequence - 1, 1).await;
    let event = found.map_err(engine)?.pop();
    event.ok_or_else(|| Problem::internal(format!("{} {id} has no version {sequence}", A::TYPE)))
}
