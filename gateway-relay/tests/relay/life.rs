//! Start, health, drain, end.

use std::time::Duration;

use futures_util::future::join_all;
use gateway_net::time;
use gateway_proto::{
    backoff::Backoff,
    relay::{RefusalCode, RelayFrame},
    signed::RelayToken,
};

use crate::harness::{TestRelay, gateway, within};

#[tokio::test]
async fn a_drain_tells_first_keeps_links_working_and_ends_when_the_last_one_left() {
    let mut relay = TestRelay::with(|config| config.timing.drain_grace = Duration::from_secs(60)).await;
    let (mut one, mut two) = (relay.attach(1).await, relay.attach(2).await);
    assert_eq!(relay.get("/readyz").await.0, 200);
    relay.shutdown.request();
    for link in [&mut one, &mut two] {
        let bytes = link.recv().await.unwrap();
        let Ok(RelayFrame::Restarting { reconnect_after_ms }) = RelayFrame::decode(&bytes) else {
            panic!("{bytes:?}");
        };
        assert!(reconnect_after_ms < 60_000);
    }
    one.datagram(2, b"still here").await;
    assert_eq!(two.recv_datagrams().await.1, b"still here");
    assert!(relay.open().await.is_err(), "nobody new is taken");
    assert_eq!(relay.get("/readyz").await.0, 503);
    assert_eq!(relay.get("/healthz").await.0, 200);

    drop((one, two));
    relay.ended().await.unwrap();
}

#[tokio::test]
async fn links_that_stay_are_closed_after_the_grace_period() {
    let mut relay = TestRelay::with(|config| config.timing.drain_grace = Duration::from_millis(200)).await;
    let mut link = relay.attach(1).await;
    relay.shutdown.request();
    assert!(matches!(RelayFrame::decode(&link.recv().await.unwrap()), Ok(RelayFrame::Restarting { .. })));
    assert_eq!(link.recv().await, None);
    relay.ended().await.unwrap();
}

#[tokio::test]
async fn a_link_outlives_its_token_by_the_grace_and_no_longer() {
    let relay = TestRelay::with(|config| config.timing.expired_link_grace = Duration::ZERO).await;
    let key = gateway(1);
    let token = RelayToken { exp: time::unix_secs() + 2, ..relay.token(&key) };
    let mut link = relay.admit(&token, &key).await;
    assert!(matches!(RelayFrame::decode(&link.recv().await.unwrap()), Ok(RelayFrame::Admitted { .. })));
    assert!(matches!(RelayFrame::decode(&link.recv().await.unwrap()), Ok(RelayFrame::UdpSession { .. })));
    assert_eq!(link.refused().await, RefusalCode::Expired);
}

#[tokio::test]
async fn a_storm_of_gateways_that_come_back_is_let_in_at_the_accept_rate_and_nobody_stays_outside() {
    const GATEWAYS: u8 = 120;
    let relay = TestRelay::with(|config| {
        config.limits.accept_per_second = 40.try_into().unwrap();
        config.limits.accept_per_second_per_source = 40.try_into().unwrap();
    })
    .await;
    let coming = (1..=GATEWAYS).map(async |number| {
        let key = gateway(number);
        // As gatewayd does: tried again with jitter, for ever.
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(16));
        let mut link = loop {
            match relay.open().await {
                Ok(link) => break link,
                Err(_) => tokio::time::sleep(backoff.next_delay(u32::from(number) * 0x0101_0101)).await,
            }
        };
        link.prove(&relay.token(&key), &key).await;
        let bytes = link.recv().await.unwrap();
        assert!(matches!(RelayFrame::decode(&bytes), Ok(RelayFrame::Admitted { .. })), "gateway {number}: {bytes:?}");
        link
    });
    let links = within(join_all(coming)).await;
    assert_eq!(relay.metric("clients").await, u64::from(GATEWAYS));
    let turned_away = relay.metric("rejected_connections_total{reason=\"SourceRate\"}").await
        + relay.metric("rejected_connections_total{reason=\"Rate\"}").await;
    assert!(turned_away > 0, "all came in at once");
    drop(links);
}

#[tokio::test]
async fn the_metrics_are_complete_and_name_no_gateway() {
    let relay = TestRelay::start().await;
    let _link = relay.attach(1).await;
    let (status, text) = relay.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("gateway_relay_clients 1") && text.ends_with("# EOF\n"), "{text}");
    assert!(!text.contains(&gateway(1).public().short()), "no label names a gateway");
}
