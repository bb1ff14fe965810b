//! Text messages, for those who gave a phone number.

use features::shop::{self, PASSWORD, order, product, registration, unique};
use features::{Client, PATIENCE, TestMart, eventually};
use rand::Rng;
use serde_json::json;

/// How many text messages were sent to a number.
fn texts_to(mart: &TestMart, phone: &str) -> usize {
    let Ok(folder) = std::fs::read_dir(mart.setup().data_dir().join("sms")) else { return 0 };
    let mailboxes = folder.map(|entry| entry.expect("the folder can be read").path());
    let mailboxes = mailboxes.map(|path| std::fs::read_to_string(path).expect("a mailbox can be read"));
    let number = format!("To: {phone}");
    mailboxes.map(|mailbox| mailbox.lines().filter(|line| *line == number).count()).sum()
}

/// What somebody was told by text message, as the mart shows it.
async fn texts_shown(reader: &Client) -> Vec<String> {
    let rows = reader.all("/v1/notifications").await;
    let sent = rows.iter().filter(|row| row["status"] == "sent" && row["channel"] == "sms");
    let mut templates: Vec<String> =
        sent.filter_map(|row| row["template"].as_str().map(str::to_owned)).collect();
    templates.sort_unstable();
    templates
}

#[tokio::test]
async fn who_gave_a_phone_number_is_told_by_text_message_too() {
    let mart = TestMart::shared().await;
    let phone = format!("+49170{:07}", rand::rng().random_range(0..10_000_000));
    let username = unique("texted");
    let mut body = registration(&username);
    body["phone"] = json!(phone);
    drop(mart.client().post("/v1/users").json(&body).await.is(201));
    let token = shop::log_in(&mart.client(), &username, PASSWORD).await;
    let ann = mart.client().with_token(&token);
    let product = product(mart, "1.00", 5).await;
    drop(order(&ann, &product, 1).await.is(201));

    let wanted = ["order_received", "registration"];
    eventually(PATIENCE, async || {
        let shown = texts_shown(&ann).await;
        if shown == wanted { Ok(()) } else { Err(format!("text messages were {shown:?}")) }
    })
    .await;
    assert_eq!(texts_to(mart, &phone), wanted.len());
    // By mail as well, and the number is nobody else's business.
    shop::mails_become(&ann, wanted.to_vec()).await;
    assert!(!mart.log().contains(&phone), "the log holds a phone number");
}

#[tokio::test]
async fn who_gave_none_gets_mail_only() {
    let mart = TestMart::shared().await;
    let (ann, product) = (shop::customer(mart).await, product(mart, "1.00", 5).await);
    drop(order(&ann, &product, 1).await.is(201));
    shop::mails_become(&ann, vec!["registration", "order_received"]).await;
    assert_eq!(texts_shown(&ann).await, Vec::<String>::new());
}
