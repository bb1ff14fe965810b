//! Breaks what the schedule says when it says so, and lifts it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use features::databases::SERVICES;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgConnection;

use crate::fault::Fault;
use crate::link::{Condition, Link};
use crate::mart::Mart;
use crate::postgres::End;
use crate::records;
use crate::schedule::Step;
use crate::troubles::Troubles;
use crate::world::World;

/// How much later everything comes on a slow link, at least and at most, in milliseconds.
const SLOW_MS: (u64, u64) = (20, 400);
/// The pause before a trap that may be sprung is set again.
const SET_AGAIN: Duration = Duration::from_millis(250);
/// How long a broker that refused may go on with requests of connections that are cut.
const LATE: Duration = Duration::from_millis(300);

/// Carries out a schedule. Faults overlap as they will; each is lifted before this ends.
///
/// # Errors
/// When something that was broken cannot be mended.
pub async fn carry_out(world: &Arc<World>, troubles: &Troubles, steps: Vec<Step>) -> Result<()> {
    let mut under_way = tokio::task::JoinSet::new();
    for step in steps {
        tokio::time::sleep(step.at.saturating_sub(troubles.now())).await;
        let (world, troubles) = (Arc::clone(world), troubles.clone());
        under_way.spawn(async move {
            let broken = troubles.begin(step.fault);
            let result = break_and_mend(&world, &step).await;
            drop(broken);
            (step.fault, result)
        });
    }
    while let Some(ended) = under_way.join_next().await {
        let (fault, result) = ended?;
        if let Err(error) = result {
            troubles.complain(format!("after {fault}: {error:#}"));
        }
    }
    Ok(())
}

async fn break_and_mend(world: &World, step: &Step) -> Result<()> {
    let chosen = |count: usize| usize::try_from(step.choice % count.max(1) as u64).unwrap_or(0);
    let mart = &world.marts[chosen(world.marts.len())];
    // Another part of the number, so that which process and which link are apart.
    let detail = step.choice >> 32;
    match step.fault {
        Fault::Kill => mart.kill(step.lasting).await,
        Fault::Pause => {
            mart.signal(Signal::SIGSTOP);
            tokio::time::sleep(step.lasting).await;
            mart.signal(Signal::SIGCONT);
            Ok(())
        }
        Fault::PostgresStop => world.postgres.fail(End::Immediate, step.lasting).await,
        Fault::PostgresKill => world.postgres.fail(End::Killed, step.lasting).await,
        Fault::BackendEnd => excused(end_backend(world, detail).await),
        Fault::BackendKill => excused(kill_backend(world, detail).await),
        Fault::CommitCut => spring(&mart.to_postgres, step.lasting).await,
        Fault::ProduceCut => {
            let workers = world.role("work");
            spring(&workers[chosen(workers.len())].to_broker, step.lasting).await
        }
        Fault::BrokerDown => {
            world.broker.take_down().await?;
            tokio::time::sleep(step.lasting).await;
            world.broker.bring_up().await
        }
        Fault::BrokerEmptied => world.empty_broker(step.lasting).await,
        Fault::BrokerErrors => {
            world.broker.refuse().await;
            tokio::time::sleep(step.lasting).await;
            for mart in &world.marts {
                mart.to_broker.set(Condition::Cut);
            }
            tokio::time::sleep(LATE).await;
            world.broker.accept().await;
            for mart in &world.marts {
                mart.to_broker.set(Condition::Open);
            }
            Ok(())
        }
        Fault::LinkDelay => {
            let (least, most) = SLOW_MS;
            let delay = Duration::from_millis(least + detail % (most - least));
            afflict(link_of(mart, detail), Condition::Slow(delay), step.lasting).await
        }
        Fault::LinkStall => afflict(link_of(mart, detail), Condition::Stalled, step.lasting).await,
        Fault::LinkCut => afflict(link_of(mart, detail), Condition::Cut, step.lasting).await,
        Fault::Repeat => excused(records::repeat(world, service_of(detail)).await),
        Fault::Poison => excused(records::poison(world, service_of(detail), step.lasting, detail).await),
        Fault::GatewaySilent => {
            world.gateway.set_silent(true);
            tokio::time::sleep(step.lasting).await;
            world.gateway.set_silent(false);
            Ok(())
        }
        Fault::Clock => {
            let offset = if detail.is_multiple_of(2) { "3600" } else { "-3600" };
            mart.set("MART_CLOCK_OFFSET", Some(offset.to_owned()));
            let wrong = mart.kill(Duration::ZERO).await;
            tokio::time::sleep(step.lasting).await;
            mart.set("MART_CLOCK_OFFSET", None);
            wrong.and(mart.kill(Duration::ZERO).await)
        }
        Fault::MailFails => {
            world.mail.set_failing(true);
            tokio::time::sleep(step.lasting).await;
            world.mail.set_failing(false);
            Ok(())
        }
    }
}

/// A broker that is down takes no records, and a server that is down has no backends and tells nothing: another
/// fault, which excuses this one.
fn excused(done: Result<()>) -> Result<()> {
    drop(done);
    Ok(())
}

fn service_of(detail: u64) -> &'static str {
    SERVICES[usize::try_from(detail % SERVICES.len() as u64).unwrap_or(0)]
}

fn link_of(mart: &Mart, detail: u64) -> &Link {
    if detail.is_multiple_of(2) { &mart.to_postgres } else { &mart.to_broker }
}

async fn afflict(link: &Link, condition: Condition, lasting: Duration) -> Result<()> {
    link.set(condition);
    tokio::time::sleep(lasting).await;
    link.set(Condition::Open);
    Ok(())
}

/// Sets the trap between an effect and its answer, again and again: one connection after the other is caught.
async fn spring(link: &Link, lasting: Duration) -> Result<()> {
    let until = Instant::now() + lasting;
    while Instant::now() < until {
        link.arm(true);
        tokio::time::sleep(SET_AGAIN).await;
    }
    link.arm(false);
    Ok(())
}

/// Tells some backend of a service to end. It may be the one that asks for it.
async fn end_backend(world: &World, detail: u64) -> Result<()> {
    let mut connection = world.postgres.connect(service_of(detail)).await?;
    if let Some(pid) = some_backend(&mut connection, detail).await? {
        sqlx::query("select pg_terminate_backend($1)").bind(pid).execute(&mut connection).await?;
    }
    Ok(())
}

/// Kills some backend of a service, which costs the server what it had not written yet.
async fn kill_backend(world: &World, detail: u64) -> Result<()> {
    let mut connection = world.postgres.connect(service_of(detail)).await?;
    if let Some(pid) = some_backend(&mut connection, detail).await? {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    // Until it has recovered, the server is broken for everybody.
    world.head(service_of(detail)).await?;
    Ok(())
}

async fn some_backend(connection: &mut PgConnection, detail: u64) -> Result<Option<i32>> {
    let pid = sqlx::query_scalar(
        "with backends as (select pid, row_number() over (order by backend_start, pid) - 1 as number, \
                           count(*) over () as count from pg_stat_activity \
                           where datname = current_database() and pid <> pg_backend_pid()) \
         select pid from backends where number = $1 % count",
    )
    .bind(i64::try_from(detail)?)
    .fetch_optional(connection)
    .await?;
    Ok(pid)
}
