//! The stories of the shop (`stories/*.feature`), told to a running mart.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use cucumber::writer::Stats as _;
use cucumber::{World, given, then, when};
use features::eventually::{PATIENCE, eventually};
use features::mart::{Setup, TestMart};
use features::shop::{self, Person};
use features::{Client, Reply};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How many scenarios are told at once: each is a customer.
const SCENARIOS_AT_ONCE: usize = 8;
/// How long an order that nobody pays may take to expire: two seconds, and what a busy machine needs.
const EXPIRED_WITHIN: Duration = Duration::from_secs(30);

/// What a story is about.
#[derive(World)]
#[world(init = Self::open)]
struct Story {
    mart: &'static TestMart,
    customer: Option<Person>,
    product: Option<String>,
    orders: Vec<Value>,
    replies: Vec<Reply>,
}

impl fmt::Debug for Story {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let customer = self.customer.as_ref().map(|customer| &customer.username);
        formatter
            .debug_struct("Story")
            .field("customer", &customer)
            .field("product", &self.product)
            .field("orders", &self.orders)
            .field("last", &self.replies.last().map(ToString::to_string))
            .finish_non_exhaustive()
    }
}

impl Story {
    async fn open() -> Self {
        Self {
            mart: TestMart::shared().await,
            customer: None,
            product: None,
            orders: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn customer(&self) -> &Person {
        self.customer.as_ref().expect("the story begins with a customer")
    }

    fn product(&self) -> &str {
        self.product.as_deref().expect("the story has a product")
    }

    fn order(&self) -> String {
        let order = self.orders.last().expect("the story has an order");
        order["id"].as_str().expect("an order has an id").to_owned()
    }

    fn last(&self) -> Reply {
        self.replies.last().expect("somebody asked for something").clone()
    }

    async fn log_in(&mut self, name: &str, password: &str) {
        let body = json!({"username": name, "password": password});
        let reply = self.mart.client().post("/v1/auth/login").json(&body).await;
        self.replies.push(reply);
    }

    async fn place_order(&mut self, quantity: i64) {
        let reply = shop::order(self.customer(), self.product(), quantity).await;
        if reply.status == 201 {
            self.orders.push(reply.body.clone());
        }
        self.replies.push(reply);
    }

    async fn pay(&mut self, card: &str) {
        let reply = shop::pay(self.customer(), &self.order(), card).await;
        self.replies.push(reply);
    }

    async fn by_staff(&mut self, what: &str) {
        let admin = self.mart.admin().await;
        let reply = admin.post(&format!("/v1/orders/{}/{what}", self.order())).json(&json!({})).await;
        self.replies.push(reply.is(200));
    }

    async fn cancel(&mut self, who: Client) {
        let reply = who.post(&format!("/v1/orders/{}/cancel", self.order())).await;
        self.replies.push(reply);
    }
}

#[given(expr = "a mart that keeps goods for {int} seconds")]
async fn a_mart_that_keeps_goods_for(story: &mut Story, seconds: u64) {
    static HASTY: OnceCell<TestMart> = OnceCell::const_new();
    let start = || async { Setup::new().await.with("MART_PAY_WITHIN", &format!("{seconds}s")).start().await };
    story.mart = HASTY.get_or_init(start).await;
}

#[given("a customer")]
async fn a_customer(story: &mut Story) {
    story.customer = Some(shop::customer(story.mart).await);
}

#[given(expr = "a product for {word} with {int} in stock")]
async fn a_product(story: &mut Story, price: String, pieces: u32) {
    story.product = Some(shop::product(story.mart, &price, pieces).await);
}

#[given(expr = "an order of {int} of it")]
async fn an_order(story: &mut Story, quantity: i64) {
    story.place_order(quantity).await;
    drop(story.last().is(201));
}

#[given(expr = "a paid order of {int} of it")]
async fn a_paid_order(story: &mut Story, quantity: i64) {
    let id = shop::paid_order(story.customer(), story.product(), quantity).await;
    let order = shop::order_now(story.customer(), &id).await;
    story.orders.push(order);
}

#[when("John registers")]
async fn john_registers(story: &mut Story) {
    let registration = shop::registration(&shop::unique("john"));
    let reply = story.mart.client().post("/v1/users").json(&registration).await;
    story.replies.push(reply);
}

#[when("somebody else registers with the same e-mail address")]
async fn the_same_address_registers(story: &mut Story) {
    let mut registration = shop::registration(&shop::unique("other"));
    registration["email"] = json!(story.customer().email);
    let reply = story.mart.client().post("/v1/users").json(&registration).await;
    story.replies.push(reply);
}

#[when("somebody logs in with a wrong password")]
async fn a_wrong_password(story: &mut Story) {
    let email = story.customer().email.clone();
    story.log_in(&email, "testPass124").await;
}

#[when("somebody logs in with an unknown name")]
async fn an_unknown_name(story: &mut Story) {
    story.log_in(&shop::unique("nobody"), shop::PASSWORD).await;
}

#[when("they refresh their tokens")]
async fn refresh(story: &mut Story) {
    let body = json!({"refresh_token": story.customer().refresh_token});
    let reply = story.mart.client().post("/v1/auth/refresh").json(&body).await.is(200);
    story.replies.push(reply);
}

#[when("they erase their account")]
async fn erase(story: &mut Story) {
    let reply = story.customer().delete("/v1/users/me").await.is(204);
    story.replies.push(reply);
}

#[when(expr = "they put {int} of it into their cart")]
async fn put_into_cart(story: &mut Story, quantity: i64) {
    let body = json!({"product_id": story.product(), "quantity": quantity});
    let reply = story.customer().post("/v1/carts/me/items").json(&body).await.is(201);
    story.replies.push(reply);
}

#[when("they check out")]
async fn check_out(story: &mut Story) {
    let body = json!({"shipping_address": shop::ADDRESS, "customer_notes": "ring twice"});
    let reply = story.customer().post("/v1/carts/me/checkout").json(&body).await.is(201);
    story.orders.push(reply.body.clone());
    story.replies.push(reply);
}

#[when(expr = "they order {int} of it")]
async fn order(story: &mut Story, quantity: i64) {
    story.place_order(quantity).await;
}

#[when(expr = "{int} more comes in")]
async fn goods_come_in(story: &mut Story, quantity: i64) {
    let admin = story.mart.admin().await;
    let additions = format!("/v1/inventory/{}/additions", story.product());
    let reply = admin.post(&additions).json(&json!({"quantity": quantity})).await.is(200);
    story.replies.push(reply);
}

#[when("they pay with a good card")]
async fn pay_with_a_good_card(story: &mut Story) {
    story.pay(shop::GOOD_CARD).await;
}

#[when("they pay with a declined card")]
async fn pay_with_a_declined_card(story: &mut Story) {
    story.pay(shop::DECLINED_CARD).await;
}

#[when("they pay with a silent card")]
async fn pay_with_a_silent_card(story: &mut Story) {
    story.pay(shop::SILENT_CARD).await;
}

#[when("the staff ships the order")]
async fn ship(story: &mut Story) {
    story.by_staff("shipments").await;
}

#[when("the staff delivers the order")]
async fn deliver(story: &mut Story) {
    story.by_staff("deliveries").await;
}

#[when("they send the order back")]
async fn send_back(story: &mut Story) {
    let returns = format!("/v1/orders/{}/returns", story.order());
    let reply = story.customer().post(&returns).json(&json!({})).await.is(200);
    story.replies.push(reply);
    story.by_staff("returns").await;
}

#[when("they cancel the order")]
async fn cancel(story: &mut Story) {
    let customer = story.customer().client.clone();
    story.cancel(customer).await;
}

#[when("an admin cancels the order")]
async fn an_admin_cancels(story: &mut Story) {
    let admin = story.mart.admin().await;
    story.cancel(admin).await;
}

#[when(expr = "the order_details are rebuilt while they buy {int} more")]
async fn rebuild(story: &mut Story, more: usize) {
    let (customer, product) = (story.customer().clone(), story.product().to_owned());
    let buying = async {
        let mut orders = Vec::new();
        for _each in 0..more {
            orders.push(shop::paid_order(&customer, &product, 1).await);
        }
        orders
    };
    let (rebuilt, bought) = tokio::join!(story.mart.run(&["replay", "order_details"]), buying);
    let told = String::from_utf8_lossy(&rebuilt.stderr).into_owned();
    assert!(rebuilt.status.success(), "the rebuild ended with {}: {told}", rebuilt.status);
    for id in bought {
        let order = shop::order_now(&customer, &id).await;
        story.orders.push(order);
    }
}

#[then("he is told who he is, without his password")]
async fn told_who_he_is(story: &mut Story) {
    let user = story.last().is(201);
    assert_eq!((&user.body["first_name"], &user.body["role"]), (&json!("John"), &json!("customer")));
    assert!(!user.text.contains("password") && !user.text.contains(shop::PASSWORD), "{user}");
    assert_eq!(user.header("location"), Some(format!("/v1/users/{}", user.text_of("id")).as_str()));
}

#[then("he can log in with his e-mail address and with his username")]
async fn can_log_in(story: &mut Story) {
    let user = story.last();
    for name in ["email", "username"] {
        story.log_in(&user.text_of(name), shop::PASSWORD).await;
        let tokens = story.last().is(200);
        assert_eq!((&tokens.body["user"], &tokens.body["token_type"]), (&user.body, &json!("bearer")));
    }
    let tokens = story.last();
    story.customer = Some(Person {
        client: story.mart.client().with_token(&tokens.text_of("access_token")),
        id: user.text_of("id"),
        email: user.text_of("email"),
        username: user.text_of("username"),
        refresh_token: tokens.text_of("refresh_token"),
    });
}

#[then(expr = "that is refused with 409, as the {word} is taken")]
async fn taken(story: &mut Story, field: String) {
    story.last().refuses_fields(409, &format!("{field}_taken"), &[&field]);
}

#[then("both were refused alike")]
async fn refused_alike(story: &mut Story) {
    let told = story.replies.iter().map(|reply| {
        let mut body = reply.clone().refuses(401, "invalid_credentials").body;
        body["instance"] = Value::Null;
        body
    });
    let told: Vec<Value> = told.collect();
    assert_eq!(told[0], told[1]);
}

#[then("the new access token works")]
async fn new_token_works(story: &mut Story) {
    let token = story.last().text_of("access_token");
    drop(story.mart.client().with_token(&token).get("/v1/users/me").await.is(200));
}

#[then("the old refresh token does not")]
async fn old_refresh_token(story: &mut Story) {
    let body = json!({"refresh_token": story.customer().refresh_token});
    let reply = story.mart.client().post("/v1/auth/refresh").json(&body).await;
    reply.refuses(401, "unauthorized");
}

#[then("their token is dead")]
async fn token_is_dead(story: &mut Story) {
    story.customer().get("/v1/users/me").await.refuses(401, "unauthorized");
    let customer = story.customer();
    // The other services ask the users service no more than every few seconds.
    eventually(PATIENCE, async || {
        let reply = customer.get("/v1/orders").await;
        if reply.status == 401 { Ok(()) } else { Err(reply.to_string()) }
    })
    .await;
}

#[then("their e-mail address can be registered anew")]
async fn registered_anew(story: &mut Story) {
    let mut registration = shop::registration(&story.customer().username);
    registration["first_name"] = json!("Jane");
    let reply = story.mart.client().post("/v1/users").json(&registration).await.is(201);
    assert_ne!(reply.text_of("id"), story.customer().id);
}

#[then(regex = r"^these mails were sent, each once: (.+)$")]
async fn mails(story: &mut Story, templates: String) {
    let templates: Vec<&str> = templates.split(", ").collect();
    let rows = shop::mails_become(story.customer(), templates).await;
    let subjects = [
        ("registration", "New User Registration "),
        ("order_received", "Order Confirmation"),
        ("payment_received", "Payment Confirmation and Order Dispatch Notification from Online Mart"),
    ];
    for row in rows {
        let subject = subjects.iter().find(|(template, _)| row["template"] == *template);
        assert_eq!(row["subject"].as_str(), subject.map(|(_, subject)| *subject), "{row}");
    }
}

#[then(expr = "the cart costs {word}")]
async fn cart_costs(story: &mut Story, total: String) {
    let cart = story.customer().get("/v1/carts/me").await.is(200);
    assert_eq!(cart.body["total"], total, "{cart}");
    assert_eq!(cart.body, story.last().body, "the answer to the write shows what is read");
}

#[then(expr = "the order awaits a payment of {word}")]
async fn awaits_payment(story: &mut Story, total: String) {
    let placed = story.last().is(201);
    assert_eq!(placed.body["total"], total, "{placed}");
    let order = shop::order_now(story.customer(), &placed.text_of("id")).await;
    assert_eq!(order, placed.body, "the answer to the write shows what is read");
    assert_eq!(
        (&order["order_status"], &order["payment_status"]),
        (&json!("awaiting_payment"), &json!("pending"))
    );
}

#[then("the cart is empty")]
async fn cart_is_empty(story: &mut Story) {
    let cart = story.customer().get("/v1/carts/me").await.is(200);
    assert_eq!((&cart.body["items"], &cart.body["total"]), (&json!([]), &json!("0.00")), "{cart}");
}

#[then(expr = "the stock is {int} on hand, {int} available, {int} reserved and {int} committed")]
async fn stock_is(story: &mut Story, on_hand: i64, available: i64, reserved: i64, committed: i64) {
    let admin = story.mart.admin().await;
    shop::stock_becomes(&admin, story.product(), [on_hand, available, reserved, committed]).await;
}

#[then(regex = r"^that is refused with (card_declined|not_cancellable|payment_closed)$")]
async fn refused_with(story: &mut Story, code: String) {
    story.last().refuses(if code == "card_declined" { 402 } else { 409 }, &code);
}

#[then(expr = "that is refused with insufficient_stock, {int} being available")]
async fn out_of_stock(story: &mut Story, available: i64) {
    let reply = story.last().refuses_fields(409, "insufficient_stock", &["items"]);
    let line = json!([{"product_id": story.product(), "requested": 2, "available": available}]);
    assert_eq!(reply.body["errors"]["items"], line, "{reply}");
}

#[then("the payment goes on")]
async fn payment_goes_on(story: &mut Story) {
    let reply = story.last();
    assert!([200, 202].contains(&reply.status), "{reply}");
}

#[then(regex = r"^the order is (\w+) and (\w+)$")]
async fn order_is(story: &mut Story, status: String, payment: String) {
    shop::order_reads(story.customer(), &story.order(), &status, &payment).await;
}

#[then("the order expires")]
async fn order_expires(story: &mut Story) {
    let (customer, id) = (story.customer(), story.order());
    eventually(EXPIRED_WITHIN, async || {
        let order = shop::order_now(customer, &id).await;
        if order["order_status"] == "expired" { Ok(()) } else { Err(order.to_string()) }
    })
    .await;
}

#[then(expr = "the history of the order goes from {word} to {word}")]
async fn history(story: &mut Story, first: String, last: String) {
    let customer = story.customer();
    let history = customer.all(&format!("/v1/orders/{}/history", story.order())).await;
    let kinds: Vec<&str> = history.iter().filter_map(|entry| entry["type"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&first.as_str()), "{kinds:?}");
    assert!(kinds.contains(&last.as_str()), "{kinds:?}");
    let sequences: Vec<i64> = history.iter().filter_map(|entry| entry["sequence"].as_i64()).collect();
    let dense: Vec<i64> = (1..).take(history.len()).collect();
    assert_eq!(sequences, dense);
}

#[then(expr = "all their {int} orders read as before, and the new ones are there too")]
async fn orders_read_as_before(story: &mut Story, count: usize) {
    let listed = story.customer().all("/v1/orders").await;
    assert_eq!((listed.len(), story.orders.len()), (count, count));
    for before in &story.orders {
        let id = before["id"].as_str().expect("an order has an id");
        assert_eq!(&shop::order_now(story.customer(), id).await, before);
        assert!(listed.contains(before), "{before} is not in the list");
    }
}

#[then("the rebuilt read models equal the events")]
async fn verified(story: &mut Story) {
    let verified = story.mart.run(&["replay", "order_details", "--verify"]).await;
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success(), "{told}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let told = Story::cucumber()
        .max_concurrent_scenarios(SCENARIOS_AT_ONCE)
        .fail_on_skipped()
        .run(concat!(env!("CARGO_MANIFEST_DIR"), "/stories"))
        .await;
    if told.execution_has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
