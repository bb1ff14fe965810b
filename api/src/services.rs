//! The services as their routes, workers and seeds see them: command buses, read models, and what they need
//! of the world outside.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cqrs_es::Aggregate;
use event_store::execute::ClaimChange;
use event_store::{Behaviour, CommandBus, Log};

use aggregates::carts::Cart;
use aggregates::catalog::Product;
use aggregates::inventory::StockItem;
use aggregates::notifications::Notification;
use aggregates::orders::Order;
use aggregates::payments::Payment;
use aggregates::records::{Claim, Recorded};
use aggregates::users::User;
use projections::catalog::ProductListing;
use projections::inventory::StockLevels;
use projections::notifications::MessageLog;
use projections::orders::price_list::Prices;
use projections::orders::{CartContents, Customers, OrderDetails};
use projections::payments::Payments;
use projections::users::UserDirectory;
use projections::{Live, Remembered};

use crate::arrivals::Arrivals;
use crate::gateway::Gateway;
use crate::hearing::Hearing;
use crate::limits::Limits;
use crate::passwords::Passwords;
use crate::service::{Reads, Surroundings};
use crate::tokens::Tokens;

/// How many aggregates of a type are held in memory.
const CACHED_AGGREGATES: usize = 20_000;

/// The users service.
#[derive(Clone)]
pub struct UsersService {
    /// What its routes share.
    pub surroundings: Surroundings,
    /// Users.
    pub users: CommandBus<User>,
    /// The user directory.
    pub directory: Live<UserDirectory>,
    /// Signs access tokens.
    pub tokens: Arc<Tokens>,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// How often log-in and registration may be tried.
    pub limits: Arc<Limits>,
    /// How long an access token is good.
    pub access_token_ttl: Duration,
}

/// The catalogue.
#[derive(Clone)]
pub struct CatalogService {
    /// What its routes share.
    pub surroundings: Surroundings,
    /// Products.
    pub products: CommandBus<Product>,
    /// The product listing.
    pub listing: Live<ProductListing>,
    /// Lists of products as they were answered, by what was asked.
    pub pages: Remembered<String, Bytes>,
}

/// The stock.
#[derive(Clone)]
pub struct InventoryService {
    /// What its routes share.
    pub surroundings: Surroundings,
    /// Stock items.
    pub stock: CommandBus<StockItem>,
    /// The stock levels.
    pub levels: Live<StockLevels>,
}

/// Carts and orders.
#[derive(Clone)]
pub struct OrdersService {
    /// What its routes share.
    pub surroundings: Surroundings,
    /// Orders.
    pub orders: CommandBus<Order>,
    /// Carts.
    pub carts: CommandBus<Cart>,
    /// Orders as customers see them.
    pub details: Live<OrderDetails>,
    /// Carts as customers see them.
    pub contents: Live<CartContents>,
    /// What products cost, as far as this service has heard.
    pub prices: Prices,
    /// Which users there are, as far as this service has heard.
    pub customers: Live<Customers>,
    /// Wakes those who wait for an order to change.
    pub arrivals: Arrivals,
    /// How long an order may be unpaid.
    pub pay_within: Duration,
}

/// Payments.
#[derive(Clone)]
pub struct PaymentsService {
    /// What its routes share.
    pub surroundings: Surroundings,
    /// Payments.
    pub payments: CommandBus<Payment>,
    /// Payments as customers see them.
    pub listing: Live<Payments>,
    /// Wakes those who wait for a payment to change.
    pub arrivals: Arrivals,
    /// The payment gateway.
    pub gateway: Arc<dyn Gateway>,
    /// Settlement, listening to orders.
    pub settlement: Hearing,
    /// The orders service, where it runs in this process: an answer waits for it, so that the order shows as
    /// paid right after.
    pub orders: Option<OrdersNearby>,
}

/// The orders service as a payment sees it.
#[derive(Clone)]
pub struct OrdersNearby {
    /// Checkout, listening to payments.
    pub checkout: Hearing,
    /// Orders.
    pub orders: CommandBus<Order>,
    /// The read models of orders.
    pub reads: Arc<dyn Reads>,
}

/// Mail and text messages.
#[derive(Clone)]
pub struct NotificationsService {
    /// What its routes share.
    pub surroundings: Surroundings,
    /// Notifications.
    pub notifications: CommandBus<Notification>,
    /// The message log.
    pub messages: Live<MessageLog>,
}

/// The command bus of an aggregate on its service's log.
pub fn bus<A>(log: &Log) -> CommandBus<A>
where
    A: Aggregate<Services = ()> + Recorded + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    CommandBus::new(log.clone(), (), behaviour::<A>(), CACHED_AGGREGATES)
}

fn claims<A: Recorded>(before: &A, event: &A::Event) -> Vec<ClaimChange> {
    let claims = A::CLAIMS.map(|claims| claims(before, event)).unwrap_or_default();
    let change = |claim: Claim| ClaimChange { scope: claim.scope, name: claim.key, take: claim.take };
    claims.into_iter().map(change).collect()
}

/// What the engine must know of an aggregate, as the domain says it.
fn behaviour<A: Recorded>() -> Behaviour<A> {
    Behaviour {
        claims: A::CLAIMS.map(|_| claims::<A> as _),
        personal_fields: A::personal_fields,
        person_of: A::person_of,
        person_of_state: A::person_of_state,
        ..Behaviour::default()
    }
}
