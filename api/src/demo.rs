//! The people, products and stock of an empty mart, to try it with. Every id and command follows from its
//! name, so filling twice is filling once.

use anyhow::Context as _;
use cqrs_es::Aggregate;
use event_store::append::CommandKey;
use event_store::{CommandBus, Context, ExecuteError, Target, feed};
use uuid::Uuid;

use aggregates::carts::CartCommand;
use aggregates::catalog::ProductCommand;
use aggregates::identifiers::{CartItemId, ProductId, UserId};
use aggregates::money::{Currency, Money};
use aggregates::users::{Role, UserCommand};

use crate::open::Services;

/// An admin.
pub const ADMIN_EMAIL: &str = "admin1@email.com";
/// A customer.
pub const CUSTOMER_EMAIL: &str = "nonadmin3@email.com";
/// The password of all of them.
pub const PASSWORD: &str = "testPass123";

/// E-mail address, username, first and last name, role.
const PEOPLE: [(&str, &str, &str, &str, Role); 4] = [
    (ADMIN_EMAIL, "admin1", "Ada", "Admin", Role::Admin),
    ("admin2@email.com", "admin2", "Alan", "Admin", Role::Admin),
    (CUSTOMER_EMAIL, "nonadmin3", "Nora", "Customer", Role::Customer),
    ("nonadmin4@email.com", "nonadmin4", "Ned", "Customer", Role::Customer),
];

/// Name, description, country of origin, price in cents, pieces.
const PRODUCTS: [(&str, &str, &str, i64, u32); 8] = [
    ("item_1", "The first item of the warehouse", "Germany", 10_000, 10),
    ("item_2", "The second item of the warehouse", "France", 5_000, 5),
    ("item_3", "The third item of the warehouse", "Spain", 7_000, 7),
    ("Product_1", "A product to try the shop with", "Not defined", 9_999, 100),
    ("Product_2", "A product to try the shop with", "Not defined", 14_999, 100),
    ("Product_3", "A product to try the shop with", "Not defined", 19_999, 100),
    ("Product_4", "A product to try the shop with", "Not defined", 24_999, 100),
    ("Product_5", "A product to try the shop with", "Not defined", 29_999, 100),
];

/// Whose cart holds what: the user, the product, how many.
const CARTS: [(&str, &str, u32); 4] = [
    (ADMIN_EMAIL, "Product_1", 1),
    ("admin2@email.com", "Product_2", 2),
    (CUSTOMER_EMAIL, "Product_3", 1),
    ("nonadmin4@email.com", "Product_4", 3),
];

/// Fills a mart that has no users and no products.
///
/// # Errors
/// When the database does not answer.
pub async fn fill_empty(services: &Services) -> anyhow::Result<bool> {
    let (Some(users), Some(catalog), Some(orders)) = (&services.users, &services.catalog, &services.orders)
    else {
        return Ok(false);
    };
    // Products come last: as long as there are none, filling was not finished.
    if feed::head(catalog.surroundings.log.database()).await? > 0 {
        return Ok(false);
    }
    let people = feed::head(users.surroundings.log.database()).await?;
    if people == 0 || people <= i64::try_from(PEOPLE.len())? {
        let password_hash = users.passwords.hash(PASSWORD.to_owned().into()).await?;
        for (email, username, first_name, last_name, role) in PEOPLE {
            let user_id = UserId(id_of(email));
            let command = UserCommand::Register {
                user_id,
                email: email.to_owned(),
                username: Some(username.to_owned()),
                first_name: first_name.to_owned(),
                last_name: last_name.to_owned(),
                phone: None,
                password_hash: password_hash.clone(),
                role,
            };
            give(&users.users, user_id.to_string(), command, email).await?;
        }
    }
    for (email, product, quantity) in CARTS {
        let command = CartCommand::AddItem {
            item_id: CartItemId(id_of(&format!("{email}/{product}"))),
            product_id: ProductId(id_of(product)),
            quantity,
            max_per_line: aggregates::orders::checkout::DEFAULT_MAX_PER_LINE,
            merge: false,
        };
        give(&orders.carts, id_of(email).to_string(), command, email).await?;
    }
    for (name, description, country, price, pieces) in PRODUCTS {
        let command = ProductCommand::List {
            name: name.to_owned(),
            description: description.to_owned(),
            country_of_origin: Some(country.to_owned()),
            price: Money::new(price, Currency::USD),
            sku: None,
            categories: Vec::new(),
            images: Vec::new(),
            attributes: std::collections::BTreeMap::new(),
            opening_stock: Some(pieces),
        };
        give(&catalog.products, id_of(name).to_string(), command, name).await?;
    }
    Ok(true)
}

fn id_of(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("mart demo {name}").as_bytes())
}

async fn give<A>(bus: &CommandBus<A>, id: String, command: A::Command, name: &str) -> anyhow::Result<()>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    let context = Context {
        key: Some(CommandKey {
            command_id: Uuid::new_v5(&id_of(name), A::TYPE.as_bytes()),
            principal: "demo".to_owned(),
            fingerprint: Vec::new(),
            derived: true,
        }),
        ..Context::default()
    };
    match bus.execute(Target::Existing(id), command, context).await {
        // What stands already was stored by an earlier start, whose command row may be gone by now.
        Ok(_) | Err(ExecuteError::Refused(_) | ExecuteError::ClaimTaken { .. }) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("{error}")).with_context(|| format!("{name} cannot be stored")),
    }
}
