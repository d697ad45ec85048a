use gateway_proto::{
    api::gateway::ConnectionReport,
    balance::{Balance, EndCounts},
    peering::ConnectionStatus,
};

use super::*;
use crate::service::ground::{self, Ground};

fn counted(id: ConnectionId, messages: u64) -> ConnectionReport {
    ground::counted(id, EndCounts { epoch: 1, messages, ..EndCounts::default() })
}

#[tokio::test]
async fn one_connection_that_cannot_be_proved_holds_up_no_other_and_loses_no_count() {
    let ground = Ground::new().await;
    let (sender, listener) = (ground.gateway(1).await, ground.gateway(2).await);
    let channel = ground.channel(listener.server, 6_661).await;
    let mut made = ground.connect(sender.server, channel, ConnectionStatus::Active, 2).await;
    made.sort_unstable();
    let (broken, sound) = (made[0], made[1]);
    // What is counted there cannot be metered: these servers are no devices.
    let watch = ground.service.watchers.enter(sender.server, 1, 1);
    watch.report(vec![counted(broken, 5)], &made, 1);
    let mut tx = ground.begin().await;
    tx.put_delivery(&DeliveryRow { is_open: true, ..DeliveryRow::new(sound) }).await.unwrap();
    tx.commit().await.unwrap();
    ground.service.prove_deliveries().await.unwrap();
    let mut tx = ground.read().await;
    assert!(!tx.delivery(sound).await.unwrap().unwrap().is_open, "nobody has been heard of it for long");
    assert_eq!(tx.delivery(broken).await.unwrap(), None);
    assert_eq!(ground.service.watchers.told(broken).len(), 1, "it waits for the next round");
}

#[tokio::test]
async fn an_end_that_was_idle_for_long_is_waited_for_when_the_other_one_has_counted_something() {
    let ground = Ground::new().await;
    let (sender, listener) = (ground.gateway(1).await, ground.gateway(2).await);
    let channel = ground.channel(listener.server, 6_661).await;
    let id = ground.connect(sender.server, channel, ConnectionStatus::Active, 1).await[0];
    let now = gateway_net::time::unix_ms() / 1000;
    let long_ago = now - 2 * FORGOTTEN_SECS;
    // Nobody watches here: their gateways are at another replica, or nowhere.
    for (counted_at, is_open) in [(now - 60, true), (long_ago, false)] {
        let mut row = DeliveryRow { is_open: true, ..DeliveryRow::new(id) };
        row.sender.report(&[EndCounts { epoch: 1, messages: 1, ..EndCounts::default() }], counted_at);
        row.sender.confirm(now);
        row.listener.confirm(long_ago);
        let mut tx = ground.begin().await;
        tx.put_delivery(&row).await.unwrap();
        tx.commit().await.unwrap();
        ground.service.prove_deliveries().await.unwrap();
        assert_eq!(ground.read().await.delivery(id).await.unwrap().unwrap().is_open, is_open);
    }
}

#[tokio::test]
async fn what_an_end_is_in_the_midst_of_is_no_difference_and_is_looked_at_again() {
    let ground = Ground::new().await;
    let (sender, listener) = (ground.gateway(1).await, ground.gateway(2).await);
    let channel = ground.channel(listener.server, 6_661).await;
    let id = ground.connect(sender.server, channel, ConnectionStatus::Active, 1).await[0];
    let long_ago = gateway_net::time::unix_ms() / 1000 - 1_000;
    let sent = EndCounts { epoch: 1, messages: 1, ..EndCounts::default() };
    let mut row = DeliveryRow { is_open: true, ..DeliveryRow::new(id) };
    row.sender.report(&[sent], long_ago);
    let mut tx = ground.begin().await;
    tx.put_delivery(&row).await.unwrap();
    tx.commit().await.unwrap();
    let sending = ground.service.watchers.enter(sender.server, 1, 1);
    let receiving = ground.service.watchers.enter(listener.server, 1, 1);
    sending.report(vec![ground::counted(id, sent)], &[id], 1);
    for under_way in [true, false] {
        let heard = EndCounts { epoch: 1, under_way, ..EndCounts::default() };
        receiving.report(vec![ground::counted(id, heard)], &[id], 1);
        ground.service.prove_deliveries().await.unwrap();
        let row = ground.read().await.delivery(id).await.unwrap().unwrap();
        assert!(row.is_open);
        assert_eq!(row.balance == Balance::default(), under_way, "under way: {under_way}");
    }
}
