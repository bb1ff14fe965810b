//! A rebuild between building the new rows and switching to them, and right after.

use features::mart::Setup;
use features::shop::{customer, order, order_now, order_reads, paid_order, product};
use features::{Client, PATIENCE, eventually};

use crate::places::{ABORT, FAIL, STALL};

/// An order is placed, and shown in the end: a process that dies right after its switch holds the leases of the
/// new rows until they run out, and for so long nobody keeps those up.
async fn goes_on(buyer: &Client, product: &str) {
    let id = order(buyer, product, 1).await.is(201).text_of("id");
    eventually(PATIENCE, async || {
        let shown = buyer.get(&format!("/v1/orders/{id}")).await;
        if shown.status == 200 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    order_reads(buyer, &id, "awaiting_payment", "pending").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_may_end_fail_or_stall_on_both_sides_of_its_switch() {
    let mut mart = Setup::new().await.start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "3.00", 100).await);
    let order = paid_order(&ann, &product, 1).await;
    let before = order_now(&ann, &order).await;
    for what in [ABORT, FAIL, STALL] {
        for point in ["rebuild-before-switch", "rebuild-after-switch"] {
            let armed = format!("{point}/order_details=1*{what}");
            let output = mart.run_with(&["replay", "order_details"], &[("FAILPOINTS", &armed)]).await;
            // A failure after the switch is too late to matter.
            let succeeds = what == STALL || (what == FAIL && point == "rebuild-after-switch");
            assert_eq!(output.status.success(), succeeds, "{point}: {what}");
            assert_eq!(order_now(&ann, &order).await, before, "{point}: {what}");
            goes_on(&ann, &product).await;
        }
    }
    let whole = mart.run(&["replay", "order_details"]).await;
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    assert_eq!(order_now(&ann, &order).await, before);
    let verified = mart.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let databases = mart.databases();
    eventually(PATIENCE, async || {
        let unfinished = "select count(*) from event_store.read_models \
                          where name = 'order_details' and status = 'building'";
        let unfinished = databases.number("orders", unfinished).await;
        if unfinished == 0 { Ok(()) } else { Err(format!("{unfinished} generations are left")) }
    })
    .await;
    mart.stop().await;
}
