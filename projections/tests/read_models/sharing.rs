//! Two processes that share the partitions of a read model, and a row that both write.

use aggregates::catalog::Product;
use aggregates::inventory::{Levels, StockItem, StockItemEvent};
use event_store::feed;
use event_store::subscription::{Delivered, Subscriber};
use projections::catalog::ProductListing;
use projections::generations;
use projections::projector::Projector;
use uuid::Uuid;

use crate::answering::listed;
use crate::mart::{Mart, PATIENCE};

async fn delivered(mart: &Mart, service: &'static str) -> Vec<Delivered> {
    let log = mart.log(service);
    let events = feed::read(log.database(), service, 0, 100).await.expect("readable");
    events.into_iter().map(|recorded| Delivered::stored(service, recorded)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_of_two_processes_overwrites_what_the_other_wrote_into_a_row() {
    let mart = Mart::of(&["catalog", "inventory"]).await;
    let home = mart.log("catalog").clone();
    let generation = generations::ensure::<ProductListing>(&home).await.expect("made");
    let product = Uuid::now_v7();
    mart.given::<Product>("catalog", &product.to_string(), vec![listed("Apple", 250)]).await;
    let levels = Levels { on_hand: 7, ..Levels::default() };
    let received = StockItemEvent::StockReceived { quantity: 7, reason: None, levels };
    mart.given::<StockItem>("inventory", &product.to_string(), vec![received]).await;
    let (products, stock) = (delivered(&mart, "catalog").await, delivered(&mart, "inventory").await);

    let mut first = home.database().begin().await.expect("begins");
    let projector = Projector::<ProductListing>::new(&home, &generation, &mart.sources);
    projector.write(&products, &mut first).await.expect("written");
    let second = tokio::spawn({
        let (home, sources) = (home.clone(), mart.sources.clone());
        let generation = generation.clone();
        async move {
            let projector = Projector::<ProductListing>::new(&home, &generation, &sources);
            let mut second = home.database().begin().await.expect("begins");
            projector.write(&stock, &mut second).await.expect("written");
            second.commit().await.expect("commits");
        }
    });
    let waiting = async {
        loop {
            let waiting: bool = sqlx::query_scalar("select exists (select from pg_locks where not granted)")
                .fetch_one(home.database())
                .await
                .expect("answers");
            if waiting {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the second waits for the first");
    first.commit().await.expect("commits");
    second.await.expect("ends");

    let row = mart.live::<ProductListing>("catalog").find(&product.to_string()).await.expect("answers");
    let row = row.expect("the product is listed");
    assert_eq!(
        (row.name.as_str(), row.price_minor, row.available, row.is_available),
        ("Apple", 250, 7, true)
    );
    mart.stop().await;
}
