//! A process of the mart, whatever its roles: what it opens, runs and stops, in which order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use event_store::broker::Broker;
use futures::FutureExt;
use projections::projector::Sources;
use projections::registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::config::{ListenOptions, Service};
use crate::documentation::{self, Readiness, ReadinessCheck};
use crate::open::Services;
use crate::work::Workers;
use crate::{routes, server};

/// How long `/readyz` waits for the broker.
const BROKER_PATIENCE: Duration = Duration::from_secs(1);

/// What is running, in the order it is stopped: requests first, then work, then projectors.
#[derive(Default)]
pub struct Process {
    servers: Vec<(CancellationToken, JoinHandle<()>)>,
    workers: Option<(CancellationToken, Workers)>,
    projectors: Vec<(CancellationToken, Vec<JoinHandle<()>>)>,
}

impl Process {
    /// Serves the routes of the services that are open, on a socket that listens already.
    pub fn serve(
        &mut self,
        listener: TcpListener,
        services: &Services,
        sources: &Sources,
        listen: &ListenOptions,
    ) {
        let stop = CancellationToken::new();
        self.serve_routes(listener, router(services, sources, &stop), listen, stop);
    }

    /// Tells how the process is, on a socket that listens already, when there is one. Gives its address.
    pub fn tell_state(
        &mut self,
        listener: Option<TcpListener>,
        sources: &Sources,
        listen: &ListenOptions,
    ) -> Option<SocketAddr> {
        let listener = listener?;
        let address = listener.local_addr().ok();
        let stop = CancellationToken::new();
        self.serve_routes(listener, documentation::state(readiness(sources, &stop)), listen, stop);
        address
    }

    fn serve_routes(
        &mut self,
        listener: TcpListener,
        routes: Router,
        listen: &ListenOptions,
        stop: CancellationToken,
    ) {
        let options = listen.server();
        let router = server::edge(routes, &options);
        let task = tokio::spawn(server::serve(listener, router, options, stop.clone()));
        self.serve_with(stop, task);
    }

    /// Runs a server that ends with its token.
    pub fn serve_with(&mut self, stop: CancellationToken, task: JoinHandle<()>) {
        self.servers.push((stop, task));
    }

    /// Relays, process managers, timers and jobs of some services.
    pub fn work(&mut self, services: &Services, wanted: &[Service], sources: &Sources) {
        let stop = CancellationToken::new();
        let workers = Workers::start(services, wanted, sources, &stop);
        self.workers = Some((stop, workers));
    }

    /// Keeps the read models of some services.
    pub fn project(&mut self, wanted: &[Service], sources: &Sources) {
        for service in wanted {
            if let Some(home) = sources.logs.get(service.name()) {
                let stop = CancellationToken::new();
                let tasks = registry::run_projectors(service.name(), home, sources, &stop);
                self.projectors.push((stop, tasks));
            }
        }
    }

    /// Stops: requests are answered to the end, their effects are worked off, then the read models stop.
    pub async fn stop(self) {
        for (stop, _) in &self.servers {
            stop.cancel();
        }
        for (_, task) in self.servers {
            ended(task.await);
        }
        if let Some((stop, workers)) = self.workers {
            stop.cancel();
            workers.join().await;
        }
        for (stop, tasks) in self.projectors {
            stop.cancel();
            for task in tasks {
                ended(task.await);
            }
        }
    }
}

fn ended(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "a task ended badly");
    }
}

/// The routes of the services that are open.
fn router(services: &Services, sources: &Sources, stop: &CancellationToken) -> Router {
    let mut routes = OpenApiRouter::new();
    if let Some(service) = &services.users {
        routes = routes.merge(routes::users::routes(service.clone()));
    }
    if let Some(service) = &services.catalog {
        routes = routes.merge(routes::catalog::routes(service.clone()));
    }
    if let Some(service) = &services.inventory {
        routes = routes.merge(routes::inventory::routes(service.clone()));
    }
    if let Some(service) = &services.orders {
        routes = routes
            .merge(routes::carts::routes(service.clone()))
            .merge(routes::orders::routes(service.clone()));
    }
    if let Some(service) = &services.payments {
        routes = routes.merge(routes::payments::routes(service.clone()));
    }
    if let Some(service) = &services.notifications {
        routes = routes.merge(routes::notifications::routes(service.clone()));
    }
    documentation::router(routes, readiness(sources, stop))
}

/// Ready means that the databases answer. A broker that is down is told and no reason to send requests away:
/// the mart goes on without it. A process that stops is not ready, although it still answers.
fn readiness(sources: &Sources, stop: &CancellationToken) -> ReadinessCheck {
    let (sources, stop) = (sources.clone(), stop.clone());
    Arc::new(move || {
        let (sources, stop) = (sources.clone(), stop.clone());
        async move {
            let mut ready = !stop.is_cancelled();
            let mut degraded = Vec::new();
            if !ready {
                degraded.push("the process is stopping".to_owned());
            }
            for (service, log) in &sources.logs {
                if log.signal().refresh().await.is_err() {
                    ready = false;
                    degraded.push(format!("the database of {service} does not answer"));
                }
            }
            if let Some(broker) = &sources.broker
                && !is_up(broker).await
            {
                degraded.push("kafka does not answer: read models follow the logs".to_owned());
            }
            Readiness { ready, degraded }
        }
        .boxed()
    })
}

async fn is_up(broker: &Broker) -> bool {
    tokio::time::timeout(BROKER_PATIENCE, broker.is_up()).await.unwrap_or(false)
}

/// The address of a listening socket, as one would type it.
pub fn address_of(listener: &TcpListener, fallback: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(fallback)
}
