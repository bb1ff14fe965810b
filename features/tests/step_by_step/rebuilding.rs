//! A rebuild between building the new rows and switching to them, and right after.

use features::PATIENCE;
use features::eventually;
use features::mart::Setup;
use features::shop::{customer, order_now, paid_order, product};

use crate::places::{ABORT, FAIL, STALL};

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
            assert_eq!(output.status.success(), what == STALL, "{point}: {what}");
            assert_eq!(order_now(&ann, &order).await, before, "{point}: {what}");
            paid_order(&ann, &product, 1).await;
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
