//! Who gets in, and what everybody else is told.

use std::{io, sync::Arc, time::Duration};

use futures_util::SinkExt;
use gateway_net::{
    tls::{ServerTrust, client_config},
    ws::{self, Message, StatusCode, WsError},
};
use gateway_proto::{
    id::RelayId,
    relay::{ClientFrame, RefusalCode, RelayFrame, sign_admission},
    signed::RelayToken,
    twice::Instance,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::harness::{Link, TestRelay, address, control, gateway, within};

#[tokio::test]
async fn an_admitted_gateway_learns_its_address_and_its_limits() {
    let relay = TestRelay::start().await;
    let mut link = relay.admit(&relay.token(&gateway(1)), &gateway(1)).await;
    let bytes = link.recv().await.unwrap();
    let Ok(RelayFrame::Admitted { observed, heartbeat_ms: 15_000, bytes_per_second: 12_500_000 }) =
        RelayFrame::decode(&bytes)
    else {
        panic!("{bytes:?}");
    };
    assert_eq!(observed, link.stream.get_ref().get_ref().0.local_addr().unwrap());
    assert_eq!(relay.metric("clients").await, 1);
}

#[tokio::test]
async fn each_stranger_is_told_why_not() {
    let relay = TestRelay::start().await;
    let key = gateway(1);
    let good = relay.token(&key);

    let expired = RelayToken { iat: 1_000, exp: 2_000, ..good.clone() };
    assert_eq!(relay.admit(&expired, &key).await.refused().await, RefusalCode::Expired);
    let elsewhere = RelayToken { relays: vec![RelayId::from_bytes([9; 16])], ..good.clone() };
    assert_eq!(relay.admit(&elsewhere, &key).await.refused().await, RefusalCode::WrongRelay);
    let thief = gateway(2);
    assert_eq!(relay.admit(&good, &thief).await.refused().await, RefusalCode::BadProof);

    let mut self_signed = relay.open().await.unwrap();
    let token = good.sign(&key).unwrap();
    let signature = sign_admission(&key, self_signed.relay, &self_signed.nonce);
    self_signed.send(ClientFrame::Admit { token: &token, signature }).await;
    assert_eq!(self_signed.refused().await, RefusalCode::BadToken);

    let mut without_token = relay.open().await.unwrap();
    without_token.send(ClientFrame::Admit { token: "", signature }).await;
    assert_eq!(without_token.refused().await, RefusalCode::Malformed);

    let mut impatient = relay.open().await.unwrap();
    impatient.datagram(1, b"before admission").await;
    assert_eq!(impatient.refused().await, RefusalCode::Malformed);

    assert_eq!(relay.metric("attached_total").await, 0, "nobody of them got in");
    assert_eq!(relay.metric("links_ended_total{reason=\"BadProof\"}").await, 1);
}

#[tokio::test]
async fn a_proof_seen_on_one_link_opens_no_other() {
    let relay = TestRelay::start().await;
    let key = gateway(1);
    let token = relay.token(&key).sign(&control()).unwrap();
    let seen = relay.open().await.unwrap();
    let signature = sign_admission(&key, seen.relay, &seen.nonce);
    let mut replay = relay.open().await.unwrap();
    replay.send(ClientFrame::Admit { token: &token, signature }).await;
    assert_eq!(replay.refused().await, RefusalCode::BadProof);
}

#[tokio::test]
async fn who_says_nothing_is_closed() {
    let relay = TestRelay::with(|config| config.timing.admission = Duration::from_millis(200)).await;
    let mut link = relay.open().await.unwrap();
    assert_eq!(link.recv().await, None);
    relay.until_metric("links_ended_total{reason=\"AdmissionTimeout\"}", |count| count == 1).await;
}

/// A stranger's connection that has its TLS and says nothing more.
async fn mute(relay: &TestRelay) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(relay.ready.listen).await?;
    let config = client_config(ServerTrust::Pin(relay.ready.tls_pin), &[]);
    let name = ServerName::try_from("relay.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

#[tokio::test]
async fn who_does_not_even_ask_for_a_websocket_is_closed_too() {
    let relay = TestRelay::with(|config| config.timing.admission = Duration::from_millis(200)).await;
    let mut stranger = mute(&relay).await.unwrap();
    // With or without a last word of TLS.
    let _ = within(stranger.read_to_end(&mut Vec::new())).await;
    let mut asks = mute(&relay).await.unwrap();
    asks.write_all(b"GET /nothing HTTP/1.1\r\nhost: relay.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within(asks.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 404"), "one answer, and the connection is over");
}

#[tokio::test]
async fn one_source_does_not_get_every_place() {
    let relay = TestRelay::with(|config| config.limits.connections_per_source = 2).await;
    let (one, _other) = (mute(&relay).await.unwrap(), mute(&relay).await.unwrap());
    assert!(mute(&relay).await.is_err());
    assert_eq!(relay.metric("rejected_connections_total{reason=\"SourceFull\"}").await, 1);
    drop(one);
    // As soon as the relay has seen that it is gone.
    within(async { while mute(&relay).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_newer_link_takes_over_only_after_its_proof() {
    let relay = TestRelay::start().await;
    let mut old = relay.attach(1).await;
    let mut sender = relay.attach(2).await;

    // Somebody with the gateway's token, but without its key.
    assert_eq!(relay.admit(&relay.token(&gateway(1)), &gateway(3)).await.refused().await, RefusalCode::BadProof);
    sender.datagram(1, b"still the old one").await;
    assert_eq!(old.recv_datagrams().await.1, b"still the old one");

    let mut new = relay.attach(1).await;
    assert_eq!(old.refused().await, RefusalCode::Replaced);
    sender.datagram(1, b"the new one").await;
    assert_eq!(new.recv_datagrams().await, (address(2), b"the new one".to_vec()));
    assert_eq!(relay.metric("clients").await, 2);
}

#[tokio::test]
async fn of_two_processes_with_one_key_the_older_keeps_its_place_and_the_other_is_refused_for_as_long() {
    let relay = TestRelay::start().await;
    let (original, copy) = (Instance::from_random([1; 16]), Instance::from_random([2; 16]));
    let attached = async |instance| {
        let mut link = relay.admit_as(1, instance).await;
        let bytes = link.recv().await.unwrap();
        assert!(matches!(RelayFrame::decode(&bytes), Ok(RelayFrame::Admitted { .. })), "{bytes:?}");
        link
    };
    let replaced = async |mut link: Link| {
        while let Some(bytes) = link.recv().await {
            if let Ok(RelayFrame::Refused { code, .. }) = RelayFrame::decode(&bytes) {
                assert_eq!(code, RefusalCode::Replaced);
            }
        }
    };
    let first = attached(original).await;
    let second = attached(copy).await;
    replaced(first).await;
    let back = attached(original).await;
    replaced(second).await;
    for instance in [copy, Instance::from_random([3; 16])] {
        assert_eq!(relay.admit_as(1, instance).await.refused().await, RefusalCode::RunsTwice);
    }
    assert_eq!(relay.metric("links_ended_total{reason=\"RunsTwice\"}").await, 2);
    let roamed = attached(original).await;
    replaced(back).await;
    drop(roamed);
    relay.until_metric("clients", |clients| clients == 0).await;
    assert_eq!(relay.admit_as(1, copy).await.refused().await, RefusalCode::RunsTwice, "it was only quicker");
    // The original is started again.
    attached(Instance::from_random([4; 16])).await;
}

#[tokio::test]
async fn a_full_relay_is_busy_for_newcomers_and_not_for_those_who_are_there() {
    let relay = TestRelay::with(|config| config.limits.max_clients = 1).await;
    let _link = relay.attach(1).await;
    let key = gateway(2);
    assert_eq!(relay.admit(&relay.token(&key), &key).await.refused().await, RefusalCode::Busy);
    let _again = relay.attach(1).await;
}

#[tokio::test]
async fn too_many_connections_of_one_source_are_closed_before_tls() {
    let relay = TestRelay::with(|config| config.limits.accept_per_second_per_source = 2.try_into().unwrap()).await;
    let mut results = Vec::new();
    for _ in 0..8 {
        results.push(relay.open().await.map(drop));
    }
    assert!(results[..2].iter().all(Result::is_ok));
    assert!(results.iter().any(|result| matches!(result, Err(WsError::Tls { .. }))), "{results:?}");
    assert!(relay.metric("rejected_connections_total{reason=\"SourceRate\"}").await > 0);
}

#[tokio::test]
async fn malformed_frames_end_the_link_that_sent_them_and_no_other() {
    let relay = TestRelay::start().await;
    let mut bystander = relay.attach(9).await;
    let hostile: [&[u8]; 6] = [&[], &[0x02], &[0x02; 35], &[0x04, 1, 2], &[0x7f, 1], &[0x82; 40]];
    for bytes in hostile {
        let mut link = relay.attach(1).await;
        link.send_raw(bytes.to_vec()).await;
        assert_eq!(link.refused().await, RefusalCode::Malformed, "{bytes:?}");
    }
    let mut link = relay.attach(1).await;
    link.stream.send(Message::text("hello")).await.unwrap();
    assert_eq!(link.refused().await, RefusalCode::Malformed);

    let mut link = relay.attach(1).await;
    let (token, signature) = (relay.token(&gateway(1)).sign(&control()).unwrap(), [0; 64]);
    link.send(ClientFrame::Admit { token: &token, signature }).await;
    assert_eq!(link.refused().await, RefusalCode::Malformed, "a second admission is out of turn");

    let mut link = relay.attach(1).await;
    let _ = link.stream.send(Message::binary(vec![0x02; 70_000])).await;
    assert_eq!(link.recv().await, None, "a frame over the limit ends the link");

    bystander.send(ClientFrame::Ping([7; 8])).await;
    assert_eq!(RelayFrame::decode(&bystander.recv().await.unwrap()), Ok(RelayFrame::Pong([7; 8])));
}

#[tokio::test]
async fn another_sub_protocol_is_refused_at_the_upgrade() {
    let relay = TestRelay::start().await;
    let mut options = relay.options();
    options.protocol = "chat";
    let error = ws::connect(&options).await.unwrap_err();
    assert!(matches!(error, WsError::Status { status: StatusCode::BAD_REQUEST, .. }), "{error:?}");
}
