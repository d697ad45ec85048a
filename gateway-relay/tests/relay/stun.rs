//! STUN on both ports.

use std::net::SocketAddr;

use gateway_proto::stun::{binding_request, parse_response};
use tokio::net::UdpSocket;

use crate::harness::{TestRelay, within};

async fn ask(socket: &UdpSocket, server: SocketAddr) -> SocketAddr {
    let transaction = gateway_net::random();
    socket.send_to(&binding_request(&transaction), server).await.unwrap();
    let mut buffer = [0; 600];
    let (length, from) = within(socket.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(from, server, "the answer comes from the port that was asked");
    parse_response(&buffer[..length], &transaction).unwrap()
}

#[tokio::test]
async fn both_ports_tell_the_mapped_address() {
    let relay = TestRelay::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for server in relay.ready.stun {
        assert_eq!(ask(&socket, server).await, socket.local_addr().unwrap());
    }
    assert_eq!(relay.metric("stun_requests_total{outcome=\"Answered\"}").await, 2);
}

#[tokio::test]
async fn what_is_no_request_is_not_answered() {
    let relay = TestRelay::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let response = gateway_proto::stun::binding_response(&[1; 12], "192.0.2.1:1".parse().unwrap());
    for bytes in [&b""[..], b"hello", &response, &[0; 1_400]] {
        socket.send_to(bytes, relay.ready.stun[0]).await.unwrap();
    }
    // The next answer is the one to the honest request: none came for the others.
    ask(&socket, relay.ready.stun[0]).await;
    assert_eq!(relay.metric("stun_requests_total{outcome=\"Invalid\"}").await, 4);
}

#[tokio::test]
async fn a_source_gets_its_rate_of_answers() {
    let relay = TestRelay::with(|config| config.limits.stun_per_second_per_source = 5.try_into().unwrap()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..100 {
        socket.send_to(&binding_request(&[1; 12]), relay.ready.stun[0]).await.unwrap();
    }
    relay.until_metric("stun_requests_total{outcome=\"RateLimited\"}", |count| count >= 80).await;
    assert!(relay.metric("stun_requests_total{outcome=\"Answered\"}").await <= 20);
}
