use std::{future::poll_fn, pin::pin};

use futures_util::poll;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn bound() -> (UdpIo, SocketAddr) {
    let socket = UdpIo::new(UdpSocket::bind("127.0.0.1:0").unwrap(), 1 << 20).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn to(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
}

async fn received(socket: &UdpIo, buffers: usize) -> Vec<Vec<u8>> {
    let mut memory = vec![vec![0; 65_536]; buffers];
    let mut metas = vec![RecvMeta::default(); buffers];
    let receiving = poll_fn(|cx| {
        let mut slices: Vec<_> = memory.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        socket.poll_recv(cx, &mut slices, &mut metas)
    });
    let count = timeout(LIMIT, receiving).await.unwrap().unwrap();
    (0..count).map(|at| memory[at][..metas[at].len].to_vec()).collect()
}

#[tokio::test]
async fn packets_that_come_between_a_short_batch_and_the_next_look_are_found() {
    let ((sender, _), (receiver, address)) = (bound(), bound());
    for round in 0..200_u8 {
        sender.send(&to(address, &[round])).unwrap();
        assert_eq!(received(&receiver, 4).await, [[round]]);
    }
}

#[tokio::test]
async fn what_does_not_fit_into_one_call_is_taken_with_the_next() {
    let ((sender, _), (receiver, address)) = (bound(), bound());
    for round in 0..20_u8 {
        sender.send(&to(address, &[round; 9])).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 20 {
        seen.extend(received(&receiver, 3).await.into_iter().flat_map(|batch| batch.into_iter().step_by(9)));
    }
    assert_eq!(seen, (0..20).collect::<Vec<u8>>());
}

#[tokio::test]
async fn of_a_train_that_the_kernel_refuses_the_shorter_end_arrives() {
    let ((sender, _), (receiver, address)) = (bound(), bound());
    // More datagrams than it takes at once.
    let mut contents = vec![1; 60_001];
    contents[60_000] = 2;
    let train = Transmit { segment_size: Some(2), ..to(address, &contents) };
    assert!(sender.try_send(&train).is_err());
    sender.send(&train).unwrap();
    assert_eq!(received(&receiver, 4).await, [[2]]);
    sender.send(&Transmit { segment_size: Some(2), ..to(address, &contents[..60_000]) }).unwrap();
    sender.send(&to(address, &[3])).unwrap();
    assert_eq!(received(&receiver, 4).await, [[3]], "no end of another length: nothing");
}

/// What arrives, and by which address it left.
fn arrived(receiver: &UdpSocket) -> (Vec<u8>, std::net::IpAddr) {
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = vec![0; 65_536];
    let (length, from) = receiver.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from.ip())
}

#[tokio::test]
async fn a_packet_leaves_by_the_address_that_is_asked_for_batches_too() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    for (any, destination) in [("0.0.0.0:0", address), ("[::]:0", mapped(address))] {
        let Ok(socket) = UdpSocket::bind(any) else { continue };
        let sender = UdpIo::new(socket, 1 << 20).unwrap();
        let second = Some("127.0.0.2".parse().unwrap());
        sender.try_send(&Transmit { src_ip: second, ..to(destination, b"one") }).unwrap();
        assert_eq!(Some(arrived(&receiver).1), second);
        sender.send(&Transmit { src_ip: second, segment_size: Some(2), ..to(destination, b"aabbc") }).unwrap();
        for part in [b"aa".as_slice(), b"bb", b"c"] {
            let (contents, from) = arrived(&receiver);
            assert_eq!((contents.as_slice(), Some(from)), (part, second));
        }
        sender.try_send(&to(destination, b"usual")).unwrap();
        assert_eq!(arrived(&receiver), (b"usual".to_vec(), address.ip()));
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_as_one_leaves_in_single_packets_by_the_address_that_is_asked_for() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    let sender = UdpIo::new(UdpSocket::bind("0.0.0.0:0").unwrap(), 1 << 20).unwrap();
    let second = Some("127.0.0.2".parse().unwrap());
    // More datagrams than any kernel takes at once: refused as by a device without batches.
    let contents: Vec<u8> = (0..140).flat_map(|at| [at, at]).chain([200]).collect();
    let batch = Transmit { src_ip: second, segment_size: Some(2), ..to(address, &contents) };
    for _ in 0..2 {
        assert!(sender.try_send(&batch).is_err());
        sender.send(&batch).unwrap();
        for part in contents.chunks(2) {
            assert_eq!(arrived(&receiver), (part.to_vec(), "127.0.0.2".parse().unwrap()));
        }
    }
    sender.send(&to(address, b"usual")).unwrap();
    assert_eq!(arrived(&receiver), (b"usual".to_vec(), address.ip()), "and nothing else came");
}

#[test]
fn a_device_without_batches_is_not_taken_for_a_source_that_is_gone() {
    let error = io::Error::from_raw_os_error(EIO);
    assert!(may_be_the_kernel(&error) && !may_be_the_source(&error));
}

#[tokio::test]
async fn a_source_that_is_gone_costs_nobody_else_the_batches() {
    // Addresses of documentation: no machine has them. Each protocol refuses in words of its own.
    for (own, any, gone) in [("127.0.0.1:0", "0.0.0.0:0", "203.0.113.77"), ("[::1]:0", "[::]:0", "2001:db8::77")] {
        let Ok(receiver) = UdpSocket::bind(own) else { continue };
        let sender = UdpIo::new(UdpSocket::bind(any).unwrap(), 1 << 20).unwrap();
        let destination = receiver.local_addr().unwrap();
        let segments = sender.state().max_gso_segments();
        let gone = Some(gone.parse().unwrap());
        for round in 0..3_u8 {
            let probe = [round];
            let by_it = Transmit { src_ip: gone, ..to(destination, &probe) };
            assert!(sender.try_send(&by_it).is_err(), "a probe is lost");
            let batch = [round; 6];
            sender.send(&Transmit { src_ip: gone, segment_size: Some(4), ..to(destination, &batch) }).unwrap();
            assert_eq!(arrived(&receiver), (vec![round; 4], destination.ip()));
            assert_eq!(arrived(&receiver), (vec![round; 2], destination.ip()));
        }
        assert_eq!(sender.state().max_gso_segments(), segments);
        let taken = sender.sourced.read().unwrap().max_gso_segments();
        assert_eq!(taken, segments, "nor the next source");
        let there = Some(destination.ip());
        sender.send(&Transmit { src_ip: there, ..to(destination, b"on") }).unwrap();
        assert_eq!(Some(arrived(&receiver).1), there);
    }
}

#[tokio::test]
async fn an_empty_socket_waits_and_a_free_one_is_writable() {
    let ((sender, _), (receiver, address)) = (bound(), bound());
    let waiting = received(&receiver, 1);
    let mut waiting = pin!(waiting);
    assert!(poll!(&mut waiting).is_pending());
    sender.try_send(&to(address, b"late")).unwrap();
    assert_eq!(waiting.await, [b"late"]);
    assert!(!sender.is_full());
    timeout(LIMIT, sender.writable()).await.unwrap();
}
