use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::relay::MAX_FRAME;

const PEER: RelayAddress = RelayAddress::from_bytes([0xaa; 32]);

fn client_vectors() -> Vec<(ClientFrame<'static>, String)> {
    let peer = "aa".repeat(32);
    vec![
        (ClientFrame::Admit { token: "a.b", signature: [0x11; 64] }, format!("010003612e62{}", "11".repeat(64))),
        (
            ClientFrame::SendDatagrams { destination: PEER, segment_size: 2, payload: &[1, 2, 3] },
            format!("02{peer}0002010203"),
        ),
        (ClientFrame::SendSignal { destination: PEER, sealed: &[7, 8] }, format!("03{peer}0708")),
        (ClientFrame::Ping([1, 2, 3, 4, 5, 6, 7, 8]), "040102030405060708".to_owned()),
        (ClientFrame::Pong([8; 8]), "050808080808080808".to_owned()),
        (ClientFrame::BindSlot { slot: 258, peer: PEER }, format!("060102{peer}")),
        (ClientFrame::UdpLimit(1431), "070597".to_owned()),
    ]
}

fn relay_vectors() -> Vec<(RelayFrame<'static>, String)> {
    let peer = "aa".repeat(32);
    let admitted = |observed: &str| RelayFrame::Admitted {
        observed: observed.parse().unwrap(),
        heartbeat_ms: 15_000,
        bytes_per_second: 1_000_000,
    };
    vec![
        (
            RelayFrame::Challenge { version: 1, relay: RelayId::from_bytes([0x22; 16]), nonce: [0x33; 32] },
            format!("8101{}{}", "22".repeat(16), "33".repeat(32)),
        ),
        (
            RelayFrame::RecvDatagrams { source: PEER, segment_size: 0, payload: &[1, 2, 3] },
            format!("82{peer}0000010203"),
        ),
        (RelayFrame::RecvSignal { source: PEER, sealed: &[7, 8] }, format!("83{peer}0708")),
        (admitted("192.0.2.1:4242"), "8400000000000000000000ffffc0000201109200003a9800000000000f4240".to_owned()),
        (admitted("[2001:db8::1]:4242"), "8420010db8000000000000000000000001109200003a9800000000000f4240".to_owned()),
        (RelayFrame::Refused { code: RefusalCode::Busy, detail: "full" }, "850666756c6c".to_owned()),
        (RelayFrame::PeerAbsent(PEER), format!("86{peer}")),
        (RelayFrame::Restarting { reconnect_after_ms: 500 }, "87000001f4".to_owned()),
        (RelayFrame::Ping([9; 8]), "040909090909090909".to_owned()),
        (RelayFrame::Pong([9; 8]), "050909090909090909".to_owned()),
        (
            RelayFrame::UdpSession { session: 0x0102_0304, secret: UdpSecret::from_bytes([0x44; 32]), port: 3478 },
            format!("8801020304{}0d96", "44".repeat(32)),
        ),
        (RelayFrame::SlotBound(258), "890102".to_owned()),
        (RelayFrame::LimitReached(Limit { kind: LimitKind::Organization, percent: 64 }), "8a0240".to_owned()),
    ]
}

#[test]
fn every_frame_has_the_bytes_of_the_protocol_document() {
    for (frame, hex) in client_vectors() {
        assert_eq!(HEXLOWER.encode(&frame.encode()), hex, "{frame:?}");
        assert_eq!(ClientFrame::decode(&HEXLOWER.decode(hex.as_bytes()).unwrap()), Ok(frame));
    }
    for (frame, hex) in relay_vectors() {
        assert_eq!(HEXLOWER.encode(&frame.encode()), hex, "{frame:?}");
        assert_eq!(RelayFrame::decode(&HEXLOWER.decode(hex.as_bytes()).unwrap()), Ok(frame));
    }
}

#[test]
fn a_frame_cut_anywhere_is_an_error_unless_only_its_payload_got_shorter() {
    for (frame, _) in client_vectors() {
        let bytes = frame.encode();
        for end in 0..bytes.len() {
            if let Ok(shorter) = ClientFrame::decode(&bytes[..end]) {
                assert!(
                    matches!(shorter, ClientFrame::SendDatagrams { .. } | ClientFrame::SendSignal { .. }),
                    "{frame:?} cut at {end} read as {shorter:?}"
                );
            }
        }
    }
}

#[test]
fn a_byte_too_many_is_an_error_where_nothing_may_follow() {
    for frame in [ClientFrame::Ping([0; 8]), ClientFrame::Admit { token: "t", signature: [0; 64] }] {
        let mut bytes = frame.encode();
        bytes.push(0);
        assert_eq!(ClientFrame::decode(&bytes), Err(FrameError::Malformed(bytes[0])));
    }
}

#[test]
fn limits_are_checked_when_a_frame_is_read() {
    let too_long = vec![PING; MAX_FRAME + 1];
    assert_eq!(ClientFrame::decode(&too_long), Err(FrameError::TooLong(MAX_FRAME + 1)));
    let datagrams =
        |size: u16, length: usize| concat(SEND_DATAGRAMS, &[&[0; 32], &size.to_be_bytes(), &vec![0; length]]);
    assert!(ClientFrame::decode(&datagrams(1, 64)).is_ok());
    assert_eq!(ClientFrame::decode(&datagrams(1, 65)), Err(FrameError::Malformed(SEND_DATAGRAMS)));
    assert_eq!(ClientFrame::decode(&datagrams(0, 0)), Err(FrameError::Malformed(SEND_DATAGRAMS)));
    assert!(ClientFrame::decode(&datagrams(0, MAX_DATAGRAMS)).is_ok());
    let signal = |length: usize| concat(SEND_SIGNAL, &[&[0; 32], &vec![0; length]]);
    assert!(ClientFrame::decode(&signal(MAX_SIGNAL)).is_ok());
    assert_eq!(ClientFrame::decode(&signal(MAX_SIGNAL + 1)), Err(FrameError::Malformed(SEND_SIGNAL)));
}

#[test]
fn neither_side_reads_what_only_the_other_may_say() {
    assert_eq!(ClientFrame::decode(&RelayFrame::PeerAbsent(PEER).encode()), Err(FrameError::UnknownType(PEER_ABSENT)));
    let admit = ClientFrame::Admit { token: "t", signature: [0; 64] }.encode();
    assert_eq!(RelayFrame::decode(&admit), Err(FrameError::UnknownType(ADMIT)));
    assert_eq!(ClientFrame::decode(&[]), Err(FrameError::Empty));
}

#[test]
fn readdressing_makes_exactly_the_frame_the_destination_expects() {
    let source = RelayAddress::from_bytes([0xbb; 32]);
    let mut bytes = ClientFrame::SendDatagrams { destination: PEER, segment_size: 2, payload: &[1, 2, 3] }.encode();
    assert!(readdress(&mut bytes, source));
    assert_eq!(bytes, RelayFrame::RecvDatagrams { source, segment_size: 2, payload: &[1, 2, 3] }.encode());
    let mut bytes = ClientFrame::SendSignal { destination: PEER, sealed: &[7] }.encode();
    assert!(readdress(&mut bytes, source));
    assert_eq!(bytes, RelayFrame::RecvSignal { source, sealed: &[7] }.encode());
    assert!(!readdress(&mut ClientFrame::Ping([0; 8]).encode(), source));
    assert!(!readdress(&mut [SEND_SIGNAL, 1, 2], source));
}

#[test]
fn segments_are_the_datagrams_that_were_put_in() {
    let collect = |size, payload: &'static [u8]| segments(size, payload).collect::<Vec<_>>();
    assert_eq!(collect(2, &[1, 2, 3]), [&[1, 2][..], &[3]]);
    assert_eq!(collect(0, &[1, 2, 3]), [&[1, 2, 3]]);
    assert!(collect(0, &[]).is_empty());
}

#[test]
fn a_long_refusal_text_is_cut_at_a_character() {
    let detail = "é".repeat(200);
    let bytes = RelayFrame::Refused { code: RefusalCode::Other(99), detail: &detail }.encode();
    let Ok(RelayFrame::Refused { code: RefusalCode::Other(99), detail }) = RelayFrame::decode(&bytes) else {
        panic!("a refusal of any code must be readable");
    };
    assert_eq!(detail.len(), 256);
}

proptest! {
    #[test]
    fn no_bytes_panic_a_decoder_and_what_decodes_encodes_to_the_same_bytes(
        kind in prop_oneof![0u8..8, 0x80u8..0x8b, any::<u8>()],
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = concat(kind, &[&body]);
        if let Ok(frame) = ClientFrame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes.clone());
        }
        if let Ok(frame) = RelayFrame::decode(&bytes) {
            // An IPv4-compatible and a mapped address have one canonical form; everything else is the same bytes.
            let again = frame.encode();
            prop_assert_eq!(RelayFrame::decode(&again), Ok(frame));
        }
    }
}
