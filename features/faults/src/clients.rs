//! The people of the shop: customers who buy, and staff who keep it. Each does one thing after the other, by a
//! stream of chance of its own, and repeats under the same key what was not answered.

mod caller;
mod customer;
mod staff;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::history::{History, Operation, Outcome};
use crate::mart::Mart;
use crate::schedule::stream;
use crate::troubles::Troubles;

pub use caller::{Ask, Caller, Person};

/// How many customers buy at the same time.
const CUSTOMERS: usize = 5;

/// What the people of a shop share.
#[derive(Debug, Clone)]
pub struct Shop {
    /// The processes that serve.
    pub serving: Vec<Arc<Mart>>,
    /// What is written down.
    pub history: Arc<History>,
    /// What is broken.
    pub troubles: Troubles,
    shelf: Arc<Mutex<Vec<String>>>,
    /// Those who are known, as they last logged in.
    people: Arc<Mutex<HashMap<Uuid, Person>>>,
}

impl Shop {
    /// A shop with nothing on its shelf.
    pub fn new(serving: Vec<Arc<Mart>>, history: Arc<History>, troubles: Troubles) -> Self {
        Self { serving, history, troubles, shelf: Arc::default(), people: Arc::default() }
    }

    fn put_on_shelf(&self, product: String) {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).push(product);
    }

    fn knows(&self, person: &Person) {
        self.people.lock().unwrap_or_else(PoisonError::into_inner).insert(person.id, person.clone());
    }

    fn person(&self, user: Uuid) -> Option<Person> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner).get(&user).cloned()
    }

    /// Some product.
    fn product(&self, random: &mut StdRng) -> Option<String> {
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        (!shelf.is_empty()).then(|| shelf[random.random_range(0..shelf.len())].clone())
    }

    /// Asks again, under the same keys, for everything whose outcome is unknown: all clients at once, each for one
    /// thing after the other, in the order in which it asked first.
    pub async fn resolve(&self, seed: u64) {
        let mut unknown: HashMap<String, Vec<(usize, Operation)>> = HashMap::new();
        for (place, operation) in self.history.operations().into_iter().enumerate() {
            if operation.outcome == Outcome::Unknown && !operation.kind.is_passing() {
                unknown.entry(operation.client.clone()).or_default().push((place, operation));
            }
        }
        let clients = unknown.into_values().map(|operations| self.resolve_in_order(operations, seed));
        futures::future::join_all(clients).await;
    }

    async fn resolve_in_order(&self, operations: Vec<(usize, Operation)>, seed: u64) {
        for (place, operation) in operations {
            let mut caller = Caller::new(self, &operation.client, stream(seed, "resolving"));
            caller.person = operation.user.and_then(|user| self.person(user));
            match caller.resolve(&operation).await {
                Ok(told) => self.history.resolved(place, told),
                Err(error) => self.troubles.complain(format!("{error:#}")),
            }
        }
    }

    /// Fills the shelf, which needs a mart that works.
    ///
    /// # Errors
    /// When the shop cannot be opened.
    pub async fn open(&self, seed: u64) -> anyhow::Result<Open> {
        let staff = staff::Staff::open(self, stream(seed, "staff")).await?;
        let mut customers = Vec::new();
        for number in 0..CUSTOMERS {
            let name = format!("customer-{number}");
            customers.push(customer::Visits::begin(self, &name, stream(seed, &name)).await?);
        }
        Ok(Open { staff, customers })
    }
}

/// A shop that is open.
#[derive(Debug)]
pub struct Open {
    staff: staff::Staff,
    customers: Vec<customer::Visits>,
}

impl Open {
    /// Lets everybody do what they do until `stop`.
    pub async fn run(mut self, stop: &CancellationToken) {
        let customers = self.customers.into_iter().map(|customer| customer.run(stop.clone()));
        tokio::join!(self.staff.run(stop), futures::future::join_all(customers));
    }
}

/// Waits for a moment, or until it is time to stop.
async fn pause(random: &mut StdRng, milliseconds: std::ops::RangeInclusive<u64>, stop: &CancellationToken) {
    let moment = std::time::Duration::from_millis(random.random_range(milliseconds));
    // Whether it is over or to stop makes no difference here: the loop looks by itself.
    drop(tokio::time::timeout(moment, stop.cancelled()).await);
}
