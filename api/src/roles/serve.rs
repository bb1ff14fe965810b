//! `mart serve`, `mart work` and `mart project`: one role for some services, on databases and a broker that
//! are given, or on those of a running `mart up`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use projections::projector::Sources;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::RoleOptions;
use crate::config::{ListenOptions, Selection, Service};
use crate::contacts::LocalContacts;
use crate::grpc::{self, UserAuthService};
use crate::open::{self, Opening, Services};
use crate::process::{self, Process};
use crate::running::Databases;
use crate::server::ServerError;
use crate::services::UsersService;
use crate::stop_signals::{NO_SIGNALS, StopSignals};
use crate::{keys, server, telemetry};

/// Serves the HTTP and gRPC interface of some services.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn serve(options: RoleOptions) -> anyhow::Result<()> {
    let listener = server::listen(options.listen.http_addr()).await?;
    let address = process::address_of(&listener, options.listen.http_addr());
    let opened = Opened::new(&options).await?;
    let services = opened.services(&options)?;
    let mut process = Process::default();
    if let (Some(address), Some(users)) = (options.listen.grpc_addr, &services.users) {
        grpc(&mut process, address, users, &options.listen).await?;
    }
    process.serve(listener, &services, &opened.sources, &options.listen);
    let ready = format!("Online Mart serves {} on http://{address}", names(&opened.wanted));
    opened.run(process, &ready).await
}

/// Relays, process managers, timers, gateway and mail calls of some services.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn work(options: RoleOptions) -> anyhow::Result<()> {
    let listener = state_listener(&options.listen).await?;
    let opened = Opened::new(&options).await?;
    let services = opened.services(&options)?;
    let mut process = Process::default();
    process.work(&services, &opened.wanted, &opened.sources);
    let state = process.tell_state(listener, &opened.sources, &options.listen);
    let ready = format!("Online Mart works for {}{}", names(&opened.wanted), told_at(state));
    opened.run(process, &ready).await
}

/// Keeps the read models of some services.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn project(options: RoleOptions) -> anyhow::Result<()> {
    let listener = state_listener(&options.listen).await?;
    let opened = Opened::new(&options).await?;
    let mut process = Process::default();
    process.project(&opened.wanted, &opened.sources);
    let state = process.tell_state(listener, &opened.sources, &options.listen);
    let ready = format!("Online Mart projects {}{}", names(&opened.wanted), told_at(state));
    opened.run(process, &ready).await
}

/// Serves gRPC for the users service.
///
/// # Errors
/// When the address is taken or a certificate cannot be read.
pub(super) async fn grpc(
    process: &mut Process,
    address: SocketAddr,
    users: &UsersService,
    listen: &ListenOptions,
) -> anyhow::Result<()> {
    let listener = server::listen(address).await?;
    let stop = CancellationToken::new();
    let contacts = Arc::new(LocalContacts::new(users.users.clone()));
    let service = UserAuthService::new(Arc::clone(&users.surroundings.auth), contacts);
    let (tls, token) = (listen.grpc_tls(), stop.clone());
    let task = tokio::spawn(async move {
        if let Err(error) = grpc::serve(listener, service, tls.as_ref(), token).await {
            tracing::error!(%error, "the gRPC server ended");
        }
    });
    process.serve_with(stop, task);
    Ok(())
}

/// Where a role that serves no routes tells how it is: nowhere unless an address was given, so that several of
/// them run on one machine without a thought.
async fn state_listener(listen: &ListenOptions) -> Result<Option<TcpListener>, ServerError> {
    match listen.http_addr {
        Some(address) => server::listen(address).await.map(Some),
        None => Ok(None),
    }
}

fn told_at(state: Option<SocketAddr>) -> String {
    state.map(|address| format!("; how it is: http://{address}/readyz")).unwrap_or_default()
}

/// What a role has open.
struct Opened {
    wanted: Vec<Service>,
    sources: Sources,
    folder: PathBuf,
    databases: Databases,
}

impl Opened {
    async fn new(options: &RoleOptions) -> anyhow::Result<Self> {
        telemetry::install_metrics();
        let wanted = Selection::services(&options.services);
        let folder = open::data_dir(&options.storage)?;
        let master_key = keys::master_key(&options.storage.master_key())?;
        let databases = Databases::find(&options.storage).await?;
        let logs = open::logs(&databases.urls, &wanted, &open::with_sources(&wanted), master_key).await?;
        open::migrate(&logs).await?;
        let broker = open::broker_beside(&options.broker, &folder).await?;
        if broker.is_none() {
            tracing::warn!(
                "no broker is given (MART_KAFKA_BROKERS): nothing is published, and logs are followed"
            );
        }
        Ok(Self { wanted, sources: Sources { logs, broker }, folder, databases })
    }

    fn services(&self, options: &RoleOptions) -> anyhow::Result<Services> {
        let opening = Opening {
            sources: &self.sources,
            data_dir: &self.folder,
            token_key: options.storage.token_key(),
            listen: &options.listen,
            outward: &options.outward,
            users_grpc: options.listen.users_client(),
        };
        open::services(&opening, &self.wanted)
    }

    /// Says that the process is ready, and runs it until it is asked to stop.
    async fn run(self, process: Process, ready: &str) -> anyhow::Result<()> {
        let mut asked_to_stop = StopSignals::listen().context(NO_SIGNALS)?;
        println!("{ready}");
        asked_to_stop.received().await;
        tracing::info!("stopping");
        process.stop().await;
        drop(self.sources);
        self.databases.close().await;
        Ok(())
    }
}

fn names(services: &[Service]) -> String {
    services.iter().map(|service| service.name()).collect::<Vec<_>>().join(", ")
}
