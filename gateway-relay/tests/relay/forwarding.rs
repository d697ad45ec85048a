//! What is forwarded, what is dropped, and who notices.

use std::time::{Duration, Instant};

use gateway_proto::relay::{ClientFrame, LimitKind, RelayFrame};
use tokio::task::JoinSet;

use crate::harness::{TestRelay, address, within};

#[tokio::test]
async fn datagrams_and_signals_reach_their_destination_with_the_proved_source() {
    let relay = TestRelay::start().await;
    let (mut one, mut two) = (relay.attach(1).await, relay.attach(2).await);

    let payload = vec![0x42; 3_000];
    one.send(ClientFrame::SendDatagrams { destination: address(2), segment_size: 1_200, payload: &payload }).await;
    let bytes = two.recv().await.unwrap();
    let expected = RelayFrame::RecvDatagrams { source: address(1), segment_size: 1_200, payload: &payload };
    assert_eq!(RelayFrame::decode(&bytes), Ok(expected));

    two.send(ClientFrame::SendSignal { destination: address(1), sealed: b"sealed" }).await;
    let bytes = one.recv().await.unwrap();
    assert_eq!(RelayFrame::decode(&bytes), Ok(RelayFrame::RecvSignal { source: address(2), sealed: b"sealed" }));

    assert_eq!(relay.metric("forwarded_frames_total{kind=\"Datagrams\"}").await, 1);
    assert_eq!(relay.metric("forwarded_bytes_total{kind=\"Datagrams\"}").await, 3_035);
    assert_eq!(relay.metric("forwarded_frames_total{kind=\"Signal\"}").await, 1);
}

#[tokio::test]
async fn the_largest_frame_passes() {
    let relay = TestRelay::start().await;
    let (mut one, mut two) = (relay.attach(1).await, relay.attach(2).await);
    let payload = vec![7; gateway_proto::relay::MAX_DATAGRAMS];
    one.datagram(2, &payload).await;
    assert_eq!(two.recv_datagrams().await.1, payload);
}

#[tokio::test]
async fn an_absent_peer_is_hinted_at_but_not_for_every_datagram() {
    let relay = TestRelay::start().await;
    let mut one = relay.attach(1).await;
    for _ in 0..100 {
        one.datagram(2, b"anybody there?").await;
    }
    one.send(ClientFrame::Ping([1; 8])).await;
    let mut hints = 0;
    loop {
        let bytes = one.recv().await.unwrap();
        if let RelayFrame::PeerAbsent(peer) = RelayFrame::decode(&bytes).unwrap() {
            assert_eq!(peer, address(2));
            hints += 1;
        } else {
            assert_eq!(RelayFrame::decode(&bytes), Ok(RelayFrame::Pong([1; 8])));
            break;
        }
    }
    assert!((1..=10).contains(&hints), "{hints} hints");
    assert_eq!(relay.metric("dropped_frames_total{reason=\"PeerAbsent\"}").await, 100);
}

#[tokio::test]
async fn a_gateway_that_does_not_read_loses_its_own_datagrams_only() {
    let relay = TestRelay::with(|config| {
        config.limits.client_bytes_per_second = None;
        config.limits.queue_datagrams = 4;
        config.limits.queue_bytes = 65_535;
    })
    .await;
    let (mut sender, _deaf) = (relay.attach(1).await, relay.attach(2).await);
    let (mut three, mut four) = (relay.attach(3).await, relay.attach(4).await);

    let name = "dropped_frames_total{reason=\"QueueFull\"}";
    within(async {
        while relay.metric(name).await < 10 {
            for _ in 0..50 {
                sender.datagram(2, &[0; 60_000]).await;
            }
        }
    })
    .await;

    three.datagram(4, b"undisturbed").await;
    assert_eq!(four.recv_datagrams().await.1, b"undisturbed");
    sender.datagram(4, b"the sender too").await;
    assert_eq!(four.recv_datagrams().await.1, b"the sender too");
}

#[tokio::test]
async fn a_flooding_gateway_gets_its_rate_and_disturbs_nobody() {
    const RATE: u64 = 500_000;
    const BURST: u64 = 100_000;
    let relay = TestRelay::with(|config| {
        config.limits.client_bytes_per_second = RATE.try_into().ok();
        config.limits.client_burst_bytes = BURST.try_into().unwrap();
    })
    .await;
    let (mut flooder, mut victim) = (relay.attach(1).await, relay.attach(2).await);
    let (mut three, mut four) = (relay.attach(3).await, relay.attach(4).await);

    let start = Instant::now();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            flooder.datagram(2, &[0; 10_000]).await;
        }
    });
    tasks.spawn(async move { while victim.recv().await.is_some() {} });

    for round in 0..100_u32 {
        three.datagram(4, &round.to_be_bytes()).await;
        assert_eq!(four.recv_datagrams().await.1, round.to_be_bytes(), "nothing of others is lost or late");
    }
    relay.until_metric("dropped_frames_total{reason=\"RateLimited\"}", |count| count >= 5).await;
    let forwarded = relay.metric("forwarded_bytes_total{kind=\"Datagrams\"}").await;
    let most = BURST + (start.elapsed().as_secs_f64() * RATE as f64) as u64 + 100 * 50;
    assert!(forwarded <= most, "{forwarded} bytes forwarded, {most} allowed");
}

#[tokio::test]
async fn a_gateway_of_whose_frames_many_are_dropped_is_told_whose_limit_that_is() {
    let relay = TestRelay::with(|config| {
        config.limits.client_bytes_per_second = 1_000.try_into().ok();
        config.limits.client_burst_bytes = 70_000.try_into().unwrap();
    })
    .await;
    let (mut one, _two) = (relay.attach(1).await, relay.attach(2).await);
    for _ in 0..60 {
        one.datagram(2, &[0; 10_000]).await;
    }
    let limit = within(async {
        loop {
            let bytes = one.recv().await.unwrap();
            if let Ok(RelayFrame::LimitReached(limit)) = RelayFrame::decode(&bytes) {
                break limit;
            }
        }
    })
    .await;
    assert_eq!(limit.kind, LimitKind::Gateway);
    assert!((10..=100).contains(&limit.percent), "{limit}");
}

#[tokio::test]
async fn signals_have_a_rate_of_their_own() {
    let relay = TestRelay::with(|config| config.limits.signals_per_second = 1.try_into().unwrap()).await;
    let (mut one, mut two) = (relay.attach(1).await, relay.attach(2).await);
    for _ in 0..10 {
        one.send(ClientFrame::SendSignal { destination: address(2), sealed: b"s" }).await;
    }
    one.datagram(2, b"datagrams go on").await;
    relay.until_metric("dropped_frames_total{reason=\"RateLimited\"}", |count| count >= 1).await;
    within(async {
        loop {
            let bytes = two.recv().await.unwrap();
            if let Ok(RelayFrame::RecvDatagrams { payload, .. }) = RelayFrame::decode(&bytes) {
                assert_eq!(payload, b"datagrams go on");
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_link_without_any_sign_of_life_is_closed_and_one_that_answers_stays() {
    let relay = TestRelay::with(|config| config.timing.heartbeat = Duration::from_millis(150)).await;
    let mut silent = relay.attach(1).await;
    let mut alive = relay.attach(2).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let bytes = alive.recv().await.expect("a link that answers stays");
            if let Ok(RelayFrame::Ping(content)) = RelayFrame::decode(&bytes) {
                alive.send(ClientFrame::Pong(content)).await;
            }
        }
    });
    let mut pings = 0;
    while let Some(bytes) = silent.recv().await {
        assert!(matches!(RelayFrame::decode(&bytes), Ok(RelayFrame::Ping(_))));
        pings += 1;
    }
    assert_eq!(pings, 2, "two pings are missed, then the link is closed");
    relay.until_metric("links_ended_total{reason=\"Silent\"}", |count| count == 1).await;
    assert_eq!(relay.metric("clients").await, 1);
    assert!(tasks.try_join_next().is_none());
}
