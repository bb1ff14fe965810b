//! What happens without a request: process managers give commands, jobs call the gateway and send messages,
//! relays publish.

mod checkout;
mod feeds;
mod manager;
mod notices;
mod settlement;

use std::sync::Arc;
use std::time::Duration;

use event_store::broker::Broker;
use event_store::subscription::{Pace, Reacting, Reactor, Retried, Source, Subscription, retry_parked};
use event_store::timers::{self, Done, Due, Queue};
use event_store::{Log, Target, commands, panics, planted, relay};
use projections::Event;
use projections::projector::Sources;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use aggregates::inventory::InventoryCommand;
use aggregates::inventory::reservations::{Reservations, ReservationsEvent};
use aggregates::inventory::stock_keeping::{StockKeeping, StockKeepingEvent};
use aggregates::notifications::NotificationsCommand;
use aggregates::notifications::notices::{Notices, NoticesEvent};
use aggregates::orders::checkout::{Checkout, CheckoutEvent};
use aggregates::orders::housekeeping::{Housekeeping, HousekeepingEvent};
use aggregates::orders::{OrderEvent, OrdersCommand};
use aggregates::payments::PaymentsCommand;
use aggregates::payments::settlement::{Settlement, SettlementEvent};

use crate::config::Service;
use crate::open::Services;
use crate::services::{InventoryService, NotificationsService, OrdersService, PaymentsService};

pub(crate) use feeds::listeners;
use feeds::{Feed, feeds_of};
use manager::{Dispatch, Forgetting, Managed, Manager, dispatch, target};

/// How often kept answers are purged.
const PURGED_EVERY: Duration = Duration::from_secs(600);
/// How soon after some messages the next are queued: nobody waits for them, and many cost less together.
const NOTICES_PACE: Duration = Duration::from_millis(200);

/// The workers of some services, running. They go on until they are to stop, whatever happens to them.
pub struct Workers {
    running: JoinSet<()>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts the relays, process managers and jobs of services; they end with `stop`.
    pub fn start(
        services: &Services,
        wanted: &[Service],
        sources: &Sources,
        stop: &CancellationToken,
    ) -> Self {
        let mut workers = Self { running: JoinSet::new(), stop: stop.clone() };
        for service in wanted {
            if let Some(log) = sources.logs.get(service.name()) {
                workers.relay(log, sources.broker.as_ref());
            }
            for subscription in subscriptions(*service, services, sources) {
                let name = subscription.name.clone();
                workers.spawn(name, move |stop| subscription.clone().run(stop));
            }
        }
        if let Some(orders) = &services.orders {
            checkout::work(&mut workers, orders.clone());
        }
        if let Some(payments) = &services.payments {
            settlement::work(&mut workers, payments.clone(), Arc::clone(&services.gateway));
        }
        if let Some(notifications) = &services.notifications {
            let (contacts, messenger) = (Arc::clone(&services.contacts), Arc::clone(&services.messenger));
            notices::work(&mut workers, notifications.clone(), contacts, messenger);
        }
        workers
    }

    /// Ends when all workers have, after `stop`.
    pub async fn join(mut self) {
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker ended badly");
            }
        }
    }

    /// Runs what `begin` begins with the token that ends it. Should it panic, it is begun again.
    fn spawn<F>(&mut self, name: String, begin: impl Fn(CancellationToken) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            panics::keep_running(&name, &stop, || begin(stop.clone())).await;
        });
    }

    /// Does the timed work of a queue.
    fn work_off<H, F>(&mut self, log: &Log, queue: Queue, handle: H)
    where
        H: Fn(Due) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Done> + Send + 'static,
    {
        let log = log.clone();
        self.spawn(format!("timed work of {}", queue.name), move |stop| {
            timers::work(log.clone(), queue, handle.clone(), stop)
        });
    }

    /// Publishes a service's log, and purges its old command rows.
    fn relay(&mut self, log: &Log, broker: Option<&Broker>) {
        if let Some(broker) = broker {
            let (log, broker) = (log.clone(), broker.clone());
            let encoder = projections::event::encoder(log.source());
            self.spawn(format!("relay of {}", log.source()), move |stop| {
                relay::run(log.clone(), broker.clone(), Arc::clone(&encoder), stop)
            });
        }
        let log = log.clone();
        self.spawn(format!("purge of {}", log.source()), move |stop| purge(log.clone(), stop));
    }
}

/// Purges old command rows until `stop`.
async fn purge(log: Log, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PURGED_EVERY) => {}
        }
        if let Err(error) = commands::purge(log.database()).await {
            tracing::warn!(%error, "old command rows could not be purged yet");
        }
    }
}

/// Applies what waits for the process managers of a service.
///
/// # Errors
/// When the databases do not answer.
pub async fn retry_waiting(
    service: Service,
    services: &Services,
    sources: &Sources,
) -> event_store::Result<Retried> {
    let mut all = Retried::default();
    for subscription in subscriptions(service, services, sources) {
        let subscriber = subscription.subscriber.as_ref();
        let retried =
            retry_parked(&subscription.home, &subscription.name, &subscription.sources, subscriber).await?;
        all.applied += retried.applied;
        all.stuck.extend(retried.stuck);
    }
    Ok(all)
}

/// The process managers of a service, each as a subscription.
fn subscriptions(service: Service, services: &Services, sources: &Sources) -> Vec<Subscription> {
    let Some(home) = sources.logs.get(service.name()) else { return Vec::new() };
    let reading = Reading { home, sources };
    let forgetting = format!("forgetting_{}", home.source());
    let mut all =
        vec![reading.subscribe(&forgetting, &[("users", &["user"])], Forgetting { home: home.clone() })];
    match service {
        Service::Users | Service::Catalog => {}
        Service::Inventory => {
            all.extend(services.inventory.iter().flat_map(|service| inventory(service, &reading)))
        }
        Service::Orders => all.extend(services.orders.iter().flat_map(|service| orders(service, &reading))),
        Service::Payments => all.extend(services.payments.iter().map(|service| payments(service, &reading))),
        Service::Notifications => {
            all.extend(services.notifications.iter().map(|service| notifications(service, &reading)));
        }
    }
    all
}

/// What the process managers of a service read, and where they keep how far they came.
struct Reading<'a> {
    home: &'a Log,
    sources: &'a Sources,
}

impl Reading<'_> {
    /// A process manager, with what it listens to.
    fn manage<P>(&self, manager: Manager<P>) -> Subscription
    where
        P: Managed,
        P::Event: Send,
        P::Command: Send,
        P::Job: Send,
    {
        self.subscribe(P::NAME, feeds_of(P::NAME), manager)
    }

    /// Only a service's own events may be read with their personal data.
    fn subscribe(&self, name: &str, feeds: &[Feed], reactor: impl Reactor) -> Subscription {
        let sources = feeds.iter().filter_map(|(source, aggregates)| {
            let log = self.sources.logs.get(source)?.clone();
            let personal = *source == self.home.source();
            Some(Source { log, aggregates: aggregates.to_vec(), personal })
        });
        Subscription {
            name: name.to_owned(),
            home: self.home.clone(),
            sources: sources.collect(),
            subscriber: Arc::new(Reacting(reactor)),
            broker: self.sources.broker.clone(),
            reader: projections::event::reader(),
            pace: Pace::REACTIONS,
        }
    }
}

fn inventory(service: &InventoryService, reading: &Reading<'_>) -> [Subscription; 2] {
    let stock = service.stock.clone();
    let to_stock: Dispatch<InventoryCommand> = Arc::new(move |command, origin| {
        let InventoryCommand::StockItem(id, command) = command;
        dispatch(stock.clone(), Target::Existing(id.to_string()), command, origin)
    });
    let reservations = Manager::new(Reservations, Arc::clone(&to_stock), |event| match event {
        Event::Order(OrderEvent::OrderCancelling { .. })
            if planted!("defect-cancellation-forgets-release") =>
        {
            None
        }
        Event::Order(event) => Some(ReservationsEvent::Orders(event.clone())),
        _ => None,
    });
    let stock_keeping = Manager::new(StockKeeping, to_stock, |event| match event {
        Event::Product(event) => Some(StockKeepingEvent::Catalog(event.clone())),
        _ => None,
    });
    [reading.manage(reservations), reading.manage(stock_keeping)]
}

fn orders(service: &OrdersService, reading: &Reading<'_>) -> [Subscription; 2] {
    let (orders, carts) = (service.orders.clone(), service.carts.clone());
    let to_orders: Dispatch<OrdersCommand> = Arc::new(move |command, origin| match command {
        OrdersCommand::Order(id, command) => {
            dispatch(orders.clone(), Target::Existing(id.to_string()), command, origin)
        }
        OrdersCommand::Cart(id, command) => {
            dispatch(carts.clone(), Target::Existing(id.to_string()), command, origin)
        }
    });
    let checkout = Checkout {
        pay_within_seconds: u32::try_from(service.pay_within.as_secs()).unwrap_or(u32::MAX),
        ..Checkout::default()
    };
    let checkout = Manager::new(checkout, Arc::clone(&to_orders), |event| match event {
        Event::StockItem(event) => Some(CheckoutEvent::Inventory(event.clone())),
        Event::Payment(event) => Some(CheckoutEvent::Payments(event.clone())),
        Event::Cart(event) => Some(CheckoutEvent::Carts(event.clone())),
        Event::Order(event) => Some(CheckoutEvent::Orders(event.clone())),
        Event::User(_) | Event::Product(_) | Event::Notification(_) => None,
    });
    let housekeeping = Manager::new(Housekeeping, to_orders, |event| match event {
        Event::User(event) => Some(HousekeepingEvent::Users(event.clone())),
        _ => None,
    });
    [reading.manage(checkout), reading.manage(housekeeping)]
}

fn payments(service: &PaymentsService, reading: &Reading<'_>) -> Subscription {
    let payments = service.payments.clone();
    let to_payments: Dispatch<PaymentsCommand> = Arc::new(move |command, origin| {
        let PaymentsCommand::Payment(id, command) = command;
        dispatch(payments.clone(), target(id.to_string(), command.is_first()), command, origin)
    });
    let settlement = Manager::new(Settlement, to_payments, |event| match event {
        Event::Order(event) => Some(SettlementEvent::Orders(event.clone())),
        Event::Payment(event) => Some(SettlementEvent::Payments(event.clone())),
        _ => None,
    });
    reading.manage(settlement)
}

fn notifications(service: &NotificationsService, reading: &Reading<'_>) -> Subscription {
    let notifications = service.notifications.clone();
    let to_notifications: Dispatch<NotificationsCommand> = Arc::new(move |command, origin| {
        let NotificationsCommand::Notification(id, command) = command;
        dispatch(notifications.clone(), target(id.to_string(), command.is_first()), command, origin)
    });
    let notices = Manager::new(Notices, to_notifications, |event| match event {
        Event::User(event) => Some(NoticesEvent::Users(event.clone())),
        Event::Order(event) => Some(NoticesEvent::Orders(event.clone())),
        Event::Payment(event) => Some(NoticesEvent::Payments(event.clone())),
        Event::Notification(event) => Some(NoticesEvent::Notifications(event.clone())),
        Event::Product(_) | Event::StockItem(_) | Event::Cart(_) => None,
    });
    Subscription { pace: Pace::every(NOTICES_PACE), ..reading.manage(notices) }
}
