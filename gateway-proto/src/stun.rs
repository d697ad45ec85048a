//! The two STUN messages in use: Binding request and success response (RFC 8489 §3, §14.2).
//!
//! A gateway asks both UDP ports of a relay where its packets come from; equal answers mean endpoint-independent mapping. No
//! credentials, no other method: what is not one of the two messages is not answered and not believed. A response counts only with the
//! transaction id of a request under way, which is random, so that an off-path attacker cannot forge it.

use std::net::SocketAddr;

use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessage, StunMessageBuilder, TransactionId,
    attributes::stun::XorMappedAddress, methods::BINDING,
};

/// Longest message looked at, in bytes: what fits the smallest IPv6 packet, because a padded request asks whether that
/// much passes.
pub const MAX_MESSAGE: usize = 1232;
/// A response is never longer than the shortest request plus this: the responder is no amplifier worth using.
pub const MAX_GROWTH: usize = 32;

const HEADER: usize = 20;
const ATTRIBUTE_HEADER: usize = 4;
/// Comprehension-optional, not assigned.
const PADDING: [u8; 2] = [0xff, 0x26];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Why bytes are not the STUN message asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("a STUN message of {0} bytes is longer than a Binding message can be")]
    TooLong(usize),
    /// Not a STUN message.
    #[error("not a well-formed STUN message")]
    Malformed,
    /// A STUN message of another method or class.
    #[error("a STUN message, but not the Binding message expected")]
    NotBinding,
    /// The answer to a request that is not ours.
    #[error("the STUN transaction id is not that of the request")]
    OtherTransaction,
    /// A response without XOR-MAPPED-ADDRESS.
    #[error("the STUN response names no mapped address")]
    NoAddress,
}

/// A Binding request. The transaction id must be random.
pub fn binding_request(transaction: &[u8; 12]) -> Vec<u8> {
    encode(builder(MessageClass::Request, transaction).build())
}

/// A Binding request padded to `length` bytes (rounded down to a multiple of four) with an attribute that every server
/// may ignore (RFC 8489 §14): whether it is answered tells whether so much passes.
pub fn padded_binding_request(transaction: &[u8; 12], length: usize) -> Vec<u8> {
    let mut request = binding_request(transaction);
    let padding = length.min(MAX_MESSAGE).saturating_sub(HEADER + ATTRIBUTE_HEADER) & !3;
    let size = |bytes: usize| u16::try_from(bytes).expect("invariant: MAX_MESSAGE fits 16 bits").to_be_bytes();
    request[2..4].copy_from_slice(&size(padding + ATTRIBUTE_HEADER));
    request.extend(PADDING);
    request.extend(size(padding));
    request.resize(request.len() + padding, 0);
    request
}

/// The server's answer: where the request came from.
pub fn binding_response(transaction: &[u8; 12], source: SocketAddr) -> Vec<u8> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let message = builder(MessageClass::SuccessResponse, transaction).with_attribute(XorMappedAddress::from(source));
    encode(message.build())
}

/// Reads a Binding request and returns its transaction id.
pub fn parse_request(bytes: &[u8]) -> Result<[u8; 12], StunError> {
    let message = decode(bytes)?;
    if message.method() != BINDING || message.class() != MessageClass::Request {
        return Err(StunError::NotBinding);
    }
    Ok(*message.transaction_id().as_bytes())
}

/// Reads the response to the request with this transaction id: our address as the server saw it.
pub fn parse_response(bytes: &[u8], transaction: &[u8; 12]) -> Result<SocketAddr, StunError> {
    let message = decode(bytes)?;
    if message.method() != BINDING || message.class() != MessageClass::SuccessResponse {
        return Err(StunError::NotBinding);
    }
    if message.transaction_id().as_bytes() != transaction {
        return Err(StunError::OtherTransaction);
    }
    let attribute = message.get::<XorMappedAddress>().ok_or(StunError::NoAddress)?;
    let address = attribute.as_xor_mapped_address().map_err(|_| StunError::NoAddress)?;
    Ok(*address.socket_address())
}

/// The transaction id in a STUN header, to find the request a message may answer. Says nothing about the rest.
pub fn transaction_id(bytes: &[u8]) -> Option<[u8; 12]> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let is_stun = header[0] & 0xc0 == 0 && header[4..8] == MAGIC_COOKIE;
    is_stun.then(|| header[8..].try_into().ok()).flatten()
}

fn builder(class: MessageClass, transaction: &[u8; 12]) -> StunMessageBuilder {
    StunMessageBuilder::new(BINDING, class).with_transaction_id(TransactionId::from(*transaction))
}

fn encode(message: StunMessage) -> Vec<u8> {
    let mut buffer = [0; HEADER + MAX_GROWTH];
    let length = MessageEncoderBuilder::default()
        .build()
        .encode(&mut buffer, &message)
        .expect("invariant: a header and at most one address attribute fit the buffer");
    buffer[..length].to_vec()
}

fn decode(bytes: &[u8]) -> Result<StunMessage, StunError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(StunError::TooLong(bytes.len()));
    }
    // The library reads the rest; the header is checked first, so that it never sees what is not even STUN.
    transaction_id(bytes).ok_or(StunError::Malformed)?;
    let (message, length) = MessageDecoderBuilder::default().build().decode(bytes).map_err(|_| StunError::Malformed)?;
    if length == bytes.len() { Ok(message) } else { Err(StunError::Malformed) }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    #[test]
    fn a_request_is_a_bare_header() {
        let request = binding_request(&TRANSACTION);
        assert_eq!(HEXLOWER.encode(&request), "000100002112a442b7e7a701bc34d686fa87dfae");
        assert_eq!(parse_request(&request), Ok(TRANSACTION));
        assert_eq!(transaction_id(&request), Some(TRANSACTION));
    }

    #[test]
    fn a_padded_request_has_the_length_asked_for_and_is_a_request() {
        for length in [24, 500, 1200, MAX_MESSAGE] {
            let request = padded_binding_request(&TRANSACTION, length);
            assert_eq!(request.len(), length);
            assert_eq!(parse_request(&request), Ok(TRANSACTION), "{length}");
        }
        assert_eq!(padded_binding_request(&TRANSACTION, 1 << 20).len(), MAX_MESSAGE);
        assert_eq!(padded_binding_request(&TRANSACTION, 0).len(), HEADER + ATTRIBUTE_HEADER);
    }

    #[test]
    fn a_response_carries_the_address_of_rfc_5769_section_2_2() {
        let response = binding_response(&TRANSACTION, "192.0.2.1:32853".parse().unwrap());
        assert_eq!(HEXLOWER.encode(&response), "0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643");
        assert_eq!(parse_response(&response, &TRANSACTION), Ok("192.0.2.1:32853".parse().unwrap()));
    }

    #[test]
    fn an_ipv6_address_round_trips_and_a_mapped_one_is_told_as_ipv4() {
        let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        assert_eq!(parse_response(&binding_response(&TRANSACTION, v6), &TRANSACTION), Ok(v6));
        let mapped = "[::ffff:192.0.2.1]:7".parse().unwrap();
        let told = parse_response(&binding_response(&TRANSACTION, mapped), &TRANSACTION);
        assert_eq!(told, Ok("192.0.2.1:7".parse().unwrap()));
    }

    #[test]
    fn a_response_is_believed_only_for_the_request_under_way() {
        let response = binding_response(&TRANSACTION, "192.0.2.1:1".parse().unwrap());
        assert_eq!(parse_response(&response, &[0; 12]), Err(StunError::OtherTransaction));
        assert_eq!(parse_response(&binding_request(&TRANSACTION), &TRANSACTION), Err(StunError::NotBinding));
        assert_eq!(parse_request(&response), Err(StunError::NotBinding), "answers are never answered");
    }

    #[test]
    fn growth_is_bounded_for_the_longest_answer() {
        let response = binding_response(&TRANSACTION, "[2001:db8::1]:65535".parse().unwrap());
        assert!(response.len() <= binding_request(&TRANSACTION).len() + MAX_GROWTH);
    }

    #[test]
    fn trailing_bytes_and_giants_are_refused() {
        let mut request = binding_request(&TRANSACTION);
        request.push(0);
        assert_eq!(parse_request(&request), Err(StunError::Malformed));
        assert_eq!(parse_request(&[0; 1300]), Err(StunError::TooLong(1300)));
        assert_eq!(parse_request(&[]), Err(StunError::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_panic_the_parsers(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let _ = parse_request(&bytes);
            let _ = parse_response(&bytes, &TRANSACTION);
        }

        /// Random bytes rarely pass the header: here every attribute parser of the library gets its share.
        #[test]
        fn no_attributes_panic_the_parsers(
            class in prop_oneof![Just([0u8, 1]), Just([1u8, 1]), Just([1u8, 0x11])],
            attributes in proptest::collection::vec(
                (prop_oneof![0u16..0x40, 0x8000u16..0x8060, any::<u16>()], proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()),
                0..6,
            ),
        ) {
            let mut body = Vec::new();
            for (kind, value, lie) in attributes {
                body.extend_from_slice(&kind.to_be_bytes());
                let length = value.len() as u16 + if lie { 3 } else { 0 };
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(&value);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            let mut bytes = class.to_vec();
            bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&MAGIC_COOKIE);
            bytes.extend_from_slice(&TRANSACTION);
            bytes.extend_from_slice(&body);
            let _ = parse_request(&bytes);
            let _ = parse_response(&bytes, &TRANSACTION);
        }
    }
}
