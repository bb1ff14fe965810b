//! A rebuild that is killed, anywhere, leaves the live read models as they were; the next one starts clean.

use std::time::Duration;

use features::mart::Setup;
use features::shop::{customer, order_now, paid_order, product};
use rand::Rng;

use crate::room;

/// How often the rebuild is killed.
const KILLS: usize = 6;
/// How long a rebuild of all read models may have run when it is killed; it takes about so long.
const KILLED_WITHIN_MS: u64 = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_killed_at_any_point_changes_nothing_and_the_next_one_starts_clean() {
    let _room = room().await;
    let mut mart = Setup::new().await.start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "3.00", 100).await);
    let order = paid_order(&ann, &product, 1).await;
    let before = order_now(&ann, &order).await;
    for _ in 0..KILLS {
        let mut rebuild = mart.begin(&["replay", "--all"]);
        let lives = Duration::from_millis(rand::rng().random_range(0..KILLED_WITHIN_MS));
        // It may be done before it is killed, which changes nothing either.
        drop(tokio::time::timeout(lives, rebuild.ended()).await);
        rebuild.kill();
        assert_eq!(order_now(&ann, &order).await, before);
        // Selling goes on meanwhile.
        paid_order(&ann, &product, 1).await;
    }
    let whole = mart.run(&["replay", "--all"]).await;
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    assert_eq!(order_now(&ann, &order).await, before);
    let verified = mart.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let databases = mart.databases();
    let building = "select count(*) from event_store.read_models where status = 'building'";
    assert_eq!(databases.number("orders", building).await, 0);
    mart.stop().await;
}
