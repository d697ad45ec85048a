use futures_util::FutureExt;

use super::*;
use crate::service::ground::Ground;

fn head(sequence: u64) -> ReportedHead {
    ReportedHead { sequence, hash: "0".repeat(64), at: 1, received_at: 1 }
}

#[tokio::test]
async fn a_round_that_is_given_up_takes_no_head_along() {
    let ground = Ground::new().await;
    let gateway = ground.gateway(1).await;
    let watch = ground.service.watchers.enter(gateway.server, 1, 1);
    watch.audit_head(gateway.key, head(5));
    let held = ground.begin().await;
    assert!(ground.service.enter_heads().now_or_never().is_none(), "it waits for its turn to write");
    drop(held);
    // The end of its watch writes it.
    drop(watch);
    ground.service.gateway_left(&gateway, 1, 1, None).await.unwrap();
    let book = ground.read().await.head_book(gateway.server).await.unwrap().unwrap();
    assert_eq!(book.newest, head(5));
}

#[tokio::test]
async fn one_head_that_cannot_be_entered_holds_up_no_other_and_is_not_lost() {
    let ground = Ground::new().await;
    let gateways = [ground.gateway(1).await, ground.gateway(2).await];
    let watches = gateways.map(|gateway| {
        let watch = ground.service.watchers.enter(gateway.server, 1, 1);
        watch.audit_head(gateway.key, head(5));
        watch
    });
    // Its place in the history is taken.
    let [broken, sound] = gateways;
    let entry = HeadBook::new(broken.key, head(5)).entries;
    let mut tx = ground.begin().await;
    let row = KeptHeadRow { server: broken.server, entry, gateway: broken.key, head: head(4) };
    tx.insert_kept_head(&row, MAX_KEPT).await.unwrap();
    tx.commit().await.unwrap();
    ground.service.enter_heads().await.unwrap();
    assert!(ground.read().await.head_book(sound.server).await.unwrap().is_some());
    assert!(ground.read().await.head_book(broken.server).await.unwrap().is_none());
    assert_eq!(ground.service.watchers.take_head(broken.server, broken.key).one(), Some(head(5)));
    drop(watches);
}
