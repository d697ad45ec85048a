//! The whole exchange, its vectors, and what must not pass.

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::*;
use crate::path::{Candidate, CandidateKind};

/// Gateway keys 32 × a1 and 32 × b2, Noise private keys 32 × 11 and 32 × 22, pair secret 32 × 33.
fn keys() -> (SignalKeys, SignalKeys) {
    let noise = |byte| StaticSecret::from([byte; 32]);
    let side = |gateway: [u8; 2], ours: u8, theirs: u8| SignalKeys {
        local_key: [gateway[0]; 32],
        remote_key: [gateway[1]; 32],
        noise_private: Zeroizing::new(noise(ours).to_bytes()),
        remote_noise: PublicKey::from(&noise(theirs)).to_bytes(),
        pair_secret: Zeroizing::new([0x33; 32]),
    };
    (side([0xa1, 0xb2], 0x11, 0x22), side([0xb2, 0xa1], 0x22, 0x11))
}

fn payload(secret: u8) -> SignalPayload {
    SignalPayload {
        generation: 1_800_000_000_000,
        sent_at_unix_ms: 1_800_000_000_001,
        probe_secret: [secret; 32],
        nat: NatReport { mapping: NatMapping::EndpointIndependent, relay_rtt_ms: Some(20) },
        candidates: candidates(),
        guess: GuessReport::default(),
    }
}

fn candidates() -> Vec<Candidate> {
    vec![
        Candidate::new(CandidateKind::Host, "10.0.0.5:7000".parse().unwrap()),
        Candidate::new(CandidateKind::ServerReflexive, "[2001:db8::1]:7000".parse().unwrap()),
    ]
}

fn random(byte: u8) -> SeededRandom {
    SeededRandom::new([byte; 32])
}

fn open(keys: &SignalKeys, bytes: &[u8]) -> Result<ReceivedOffer, SignalError> {
    ReceivedOffer::open(keys, &Envelope::parse(bytes)?, &mut random(8))
}

#[test]
fn an_exchange_gives_both_sides_payloads_secrets_and_a_channel() {
    let (a, b) = keys();
    let (offer, offer_bytes) = Offer::seal(&a, &payload(1), &mut random(1)).unwrap();
    let received = open(&b, &offer_bytes).unwrap();
    assert_eq!(received.payload(), &payload(1));
    assert_eq!(received.session_id(), offer.session_id());
    let (mut b_channel, b_secrets, answer_bytes) = received.answer(&payload(2)).unwrap();

    let answer = offer.open_answer(Envelope::parse(&answer_bytes).unwrap().sealed).unwrap();
    let (mut a_channel, a_secrets) = (answer.channel, answer.secrets);
    assert_eq!(answer.payload, payload(2));
    assert_eq!((a_secrets.offer, a_secrets.answer), ([1; 32], [2; 32]));
    assert_eq!((b_secrets.offer, b_secrets.answer), ([1; 32], [2; 32]));

    let trickle = Trickle { candidates: candidates(), network: None };
    let (first, second) = (a_channel.seal(&trickle).unwrap(), a_channel.seal(&trickle).unwrap());
    assert_eq!(b_channel.open(Envelope::parse(&second).unwrap().sealed), Ok(trickle.clone()), "the first was lost");
    assert_eq!(b_channel.open(Envelope::parse(&second).unwrap().sealed), Err(SignalError::Replayed));
    assert_eq!(b_channel.open(Envelope::parse(&first).unwrap().sealed), Err(SignalError::Replayed), "overtaken");
    let back = b_channel.seal(&trickle).unwrap();
    assert_eq!(a_channel.open(Envelope::parse(&back).unwrap().sealed), Ok(trickle));
}

/// Vectors of docs/protocol.md. The handshake messages hold ephemeral keys and are fixed by the seeds of this test; the
/// payload is the part another implementation can compare by itself.
#[test]
fn signals_look_as_documented() {
    let (a, b) = keys();
    assert_eq!(
        HEXLOWER.encode(&payload(1).encode().unwrap()),
        concat!(
            "80a0f1c2b13481a0f1c2b134010101010101010101010101010101010101010101010101010101010101010101011402",
            "00000a000005d836030120010db8000000000000000000000001d8360000",
        )
    );
    let (_, offer) = Offer::seal(&a, &payload(1), &mut random(1)).unwrap();
    assert_eq!(
        HEXLOWER.encode(&offer),
        concat!(
            "01013d721b7de675f9577c2f7da0a57dec33f5b67994818f9982c162912f4cd6234c8e091c4a9b4ce27d01956bbc651c",
            "9866c809259120a9d8c4b803ac27354c933a85606f82cd81d9f3045f9ad06ab900e99ad5112f974c482433d863aa0caa",
            "3c20a0816937b7e74577ef73934a0d821860e4109b0b37461bf8b05a2520a962b8c73f522e9e915a",
        )
    );
    let (mut channel, _, answer) = open(&b, &offer).unwrap().answer(&payload(2)).unwrap();
    assert_eq!(
        HEXLOWER.encode(&answer),
        concat!(
            "01023d721b7de675f95795f933cbbc1879ea5b60a5c34c3d4076e124944a4fc9e8f5e5735f5adc16ea3528baeee437a1",
            "6aab6e215ca2a7204f1a5f0ca13211f9db413ccf7d67c3c9edd618d93b070f905faa5a1da8a5554b2dd201b40cd33125",
            "c0932ef2154f3d24ecd51c59b804d4a5268350aa9ffee26bd33ee5194313d385027e376341f11be8",
        )
    );
    let trickle = channel.seal(&Trickle { candidates: candidates(), network: None }).unwrap();
    assert_eq!(
        HEXLOWER.encode(&trickle),
        concat!(
            "01033d721b7de675f9570000000000000000b3c7433a484a043a171ebefec1f5e5ec9b5eace61c8e680e714fa7b7287c",
            "0e998089aa158b64e905742439b1361c",
        )
    );
}

#[test]
fn only_the_right_keys_the_right_secret_and_the_right_direction_open_an_offer() {
    let (a, b) = keys();
    let (_, bytes) = Offer::seal(&a, &payload(1), &mut random(1)).unwrap();
    let wrong: [(&str, SignalKeys); 5] = [
        ("pair secret", SignalKeys { pair_secret: Zeroizing::new([0; 32]), ..b.clone() }),
        ("Noise key", SignalKeys { noise_private: Zeroizing::new([0x44; 32]), ..b.clone() }),
        (
            "peer's Noise key",
            SignalKeys { remote_noise: PublicKey::from(&StaticSecret::from([0x44; 32])).to_bytes(), ..b.clone() },
        ),
        ("gateway key", SignalKeys { local_key: [0; 32], ..b.clone() }),
        ("direction", a),
    ];
    for (what, keys) in wrong {
        assert_eq!(open(&keys, &bytes).unwrap_err(), SignalError::NotAuthentic, "{what}");
    }
    assert!(open(&b, &bytes).is_ok());
}

#[test]
fn a_forged_answer_leaves_the_offer_open_for_the_true_one() {
    let (a, b) = keys();
    let (offer, bytes) = Offer::seal(&a, &payload(1), &mut random(1)).unwrap();
    let (_, _, answer) = open(&b, &bytes).unwrap().answer(&payload(2)).unwrap();
    let sealed = Envelope::parse(&answer).unwrap().sealed;
    let mut forged = sealed.to_vec();
    forged[40] ^= 1;
    let (offer, error) = offer.open_answer(&forged).unwrap_err();
    assert_eq!(error, SignalError::NotAuthentic);
    let (offer, _) = offer.open_answer(&[0; 96]).unwrap_err();
    let (offer, _) = offer.open_answer(&[]).unwrap_err();
    assert_eq!(offer.open_answer(sealed).unwrap().payload, payload(2));
}

#[test]
fn neither_more_candidates_than_allowed_nor_an_oversized_signal_is_sealed() {
    let (a, _) = keys();
    let mut crowded = payload(1);
    crowded.candidates =
        (1..=33).map(|port| Candidate::new(CandidateKind::Host, ([10, 0, 0, 1], port).into())).collect();
    assert_eq!(Offer::seal(&a, &crowded, &mut random(1)).unwrap_err(), SignalError::TooManyCandidates(33));
    crowded.candidates.pop();
    let (_, bytes) = Offer::seal(&a, &crowded, &mut random(1)).unwrap();
    assert!(bytes.len() < MAX_SIGNAL_LEN);
}

#[test]
fn nothing_secret_shows_in_debug_output() {
    let (a, b) = keys();
    let secrets = ProbeSecrets { offer: [1; 32], answer: [2; 32] };
    let (offer, bytes) = Offer::seal(&a, &payload(1), &mut random(1)).unwrap();
    let received = open(&b, &bytes).unwrap();
    let text = format!("{a:?} {secrets:?} {:?} {offer:?} {received:?}", payload(1));
    for secret in ["17, 17", "51, 51", "1, 1, 1", "2, 2, 2", "10.0.0.5"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 1_u8..=3) {
        let (a, b) = keys();
        prop_assert!(open(&b, &bytes).is_err());
        let mut shaped = vec![SIGNAL_VERSION, kind];
        shaped.extend(&bytes);
        prop_assert!(open(&b, &shaped).is_err());
        let (offer, _) = Offer::seal(&a, &payload(1), &mut random(1)).unwrap();
        prop_assert!(offer.open_answer(&bytes).is_err());
        // What an authentic but hostile peer may seal.
        let _ = SignalPayload::decode(&bytes);
        let _ = Trickle::decode(&bytes);
    }
}
