//! Rows that a query finds in the memory of the projector that wrote them.

use aggregates::catalog::Product;
use event_store::event::partition_of;
use event_store::feed;
use event_store::read_your_writes::Place;
use projections::orders::PriceList;
use uuid::Uuid;

use crate::answering::listed;
use crate::mart::{Mart, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_believed_until_another_process_has_moved_the_checkpoint_of_its_partition() {
    let mut mart = Mart::of(&["catalog", "users", "orders"]).await;
    mart.project("orders").await;
    let product = Uuid::now_v7().to_string();
    mart.given::<Product>("catalog", &product, vec![listed("Apple", 250)]).await;
    mart.settle("orders").await;
    let (live, home) = (mart.live::<PriceList>("orders"), mart.log("orders"));
    let price = async || {
        let row = live.find(&product).await.expect("answers");
        row.expect("the product is known").price_minor
    };
    assert_eq!(price().await, 250);

    // What another process would do that has taken the partition over.
    let table = live.table().await.expect("it is there");
    sqlx::query(&format!("update {table} set price_minor = 300"))
        .execute(home.database())
        .await
        .expect("written");
    assert_eq!(price().await, 250, "the database was not asked");
    let partition = partition_of(&product);
    let position = feed::head(mart.log("catalog").database()).await.expect("a head") + 1;
    let moved = sqlx::query(
        "update event_store.checkpoints set position = $3 where subscription = $1 and partition = $2",
    );
    let subscription = live.generation().await.expect("it is live").subscription();
    let moved = moved.bind(subscription).bind(partition).bind(position);
    assert_eq!(moved.execute(home.database()).await.expect("moved").rows_affected(), 1);
    let place = Place { source: "catalog".to_owned(), partition: Some(partition), position };
    assert!(live.wait(&place, None, PATIENCE).await.expect("answers"), "it is not found out");
    assert_eq!(price().await, 300);
    mart.stop().await;
}
