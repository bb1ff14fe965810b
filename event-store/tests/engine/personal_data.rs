//! Personal data is sealed at rest and dies with its key.

use std::convert::Infallible;

use event_store::subscription::Delivered;
use event_store::{Context, Target, feed};
use sqlx::Row;
use uuid::Uuid;

use crate::account::{AccountCommand, AccountEvent, bus, log, new_id, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_personal_field_is_sealed_in_the_log_and_readable_through_it() {
    let (database, log) = log().await;
    let id = new_id();
    let accounts = bus(&log);
    accounts
        .execute(
            Target::New(id.clone()),
            AccountCommand::Open { owner: "dora".to_owned() },
            Context::default(),
        )
        .await
        .expect("accepted");
    assert_eq!(accounts.load(&id).await.expect("loads").aggregate.owner.as_deref(), Some("dora"));
    let row =
        sqlx::query("select payload::text as payload, metadata::text as metadata from event_store.events")
            .fetch_one(log.database())
            .await
            .expect("stored");
    assert!(!row.get::<String, _>("payload").contains("dora"));
    let claim: Vec<u8> = sqlx::query_scalar("select key from event_store.claims")
        .fetch_one(log.database())
        .await
        .expect("claimed");
    assert!(!claim.windows(4).any(|window| window == b"dora"));

    let mut event = feed::read(log.database(), "accounts", 0, 10).await.expect("read").remove(0);
    event.open(log.personal()).await.expect("opened");
    assert_eq!(
        event.decode::<AccountEvent>().expect("decodes"),
        AccountEvent::AccountOpened { owner: Some("dora".into()) }
    );

    let person = Uuid::parse_str(&id).expect("a uuid");
    log.personal().forget(person).await.expect("forgotten");
    assert_eq!(
        accounts.load(&id).await.expect("loads").aggregate.owner,
        None,
        "what is remembered of it, too"
    );
    let elsewhere = open(&database).await;
    assert_eq!(bus(&elsewhere).load(&id).await.expect("loads").aggregate.owner, None);
    let mut event = feed::read(log.database(), "accounts", 0, 10).await.expect("read").remove(0);
    event.open(log.personal()).await.expect("opened");
    assert_eq!(event.decode::<AccountEvent>().expect("decodes"), AccountEvent::AccountOpened { owner: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_opened_for_one_reader_of_an_event_stays_sealed_for_the_others() {
    let (_database, log) = log().await;
    let open = AccountCommand::Open { owner: "dora".to_owned() };
    bus(&log).execute(Target::New(new_id()), open, Context::default()).await.expect("accepted");
    let recorded = feed::read(log.database(), "accounts", 0, 10).await.expect("read").remove(0);
    let read = |event: &Delivered| {
        event.read_as(|event| Ok::<_, Infallible>(event.payload.clone())).expect("it is there")
    };
    let sealed = Delivered::stored("accounts", recorded);
    let mut opened = sealed.clone();
    assert!(!read(&opened).contains("dora"));
    opened.open(&log).await.expect("opened");
    assert!(read(&opened).contains("dora"));
    assert!(!read(&sealed).contains("dora") && !read(&sealed.clone()).contains("dora"));
}
