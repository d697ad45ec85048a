//! Where a relay can send a gateway datagrams: the relay's side.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use siphasher::sip::SipHasher24;

use super::{Answer, LIMIT_IN_DOUBT, SHORT_PAYLOAD};

/// A gateway that moves data is heard several times in this time. One that was not heard gets its datagrams over the WebSocket,
/// which tells it to say something.
const FRESH: Duration = Duration::from_secs(1);
/// One that was heard within this time gets one short datagram over UDP all the same: over the WebSocket the question that a tunnel asks
/// while nobody uses it would cost twice as much. It answers, and is heard. When the question is lost, and sent again, the WebSocket
/// carries it. Idle gateways ping every 15 s.
const TRUSTED: Duration = Duration::from_secs(20);

/// A way to a gateway: the relay's socket and the gateway's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via {
    /// Which socket of the relay.
    pub local: u8,
    /// The address, as the relay sees it.
    pub remote: SocketAddr,
}

/// Where to send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The way.
    pub via: Via,
    /// Send over the WebSocket as well.
    pub doubt: bool,
}

/// The relay's view of one session's address.
///
/// A source address is believed when a ping from it echoes the challenge that a pong brought there: whoever copies a gateway's packets and
/// sends them from elsewhere cannot turn its traffic to an address that does not answer. A challenge is computed from
/// the address, so nothing is kept for addresses that have not proved themselves.
#[derive(Debug)]
pub struct UdpReach {
    challenges: SipHasher24,
    proved: Option<(Via, Instant)>,
    /// A short datagram was sent on trust since it was heard there.
    on_trust: bool,
    /// The largest sealed datagram that the gateway can be sent, by its own word; 0 for none.
    limit: u16,
    /// The gateway doubts that it is reached.
    doubt: bool,
}

impl UdpReach {
    /// Nothing proved. `secret` is random and of this session only.
    pub fn new(secret: &[u8; 16]) -> Self {
        Self { challenges: SipHasher24::new_with_key(secret), proved: None, on_trust: false, limit: 0, doubt: false }
    }

    /// A ping that echoes `echo` came from `via`: the answer for its pong.
    pub fn pinged(&mut self, via: Via, id: u64, echo: u64, now: Instant) -> Answer {
        let challenge = self.challenge(via);
        if echo == challenge {
            (self.proved, self.on_trust) = (Some((via, now)), false);
        } else {
            self.heard(via, now);
        }
        Answer { id, challenge, validated: self.proved.is_some_and(|(proved, _)| proved == via) }
    }

    /// An authentic datagram came from `via`.
    pub fn heard(&mut self, via: Via, now: Instant) {
        if let Some((proved, at)) = &mut self.proved
            && *proved == via
        {
            (*at, self.on_trust) = (now, false);
        }
    }

    /// The gateway says what it can be sent, see [`ClientFrame::UdpLimit`](crate::relay::ClientFrame::UdpLimit).
    pub fn set_limit(&mut self, limit: u16) {
        self.limit = limit & !LIMIT_IN_DOUBT;
        self.doubt = limit & LIMIT_IN_DOUBT != 0;
    }

    /// The way for sealed datagrams of at most `payload` bytes, if there is one now. It is to be used: there may be none for the next.
    pub fn way(&mut self, payload: usize, now: Instant) -> Option<Way> {
        let (via, at) = self.proved?;
        let silent = now.saturating_duration_since(at);
        if payload > usize::from(self.limit) || silent >= TRUSTED {
            return None;
        }
        if silent >= FRESH && (payload > SHORT_PAYLOAD || std::mem::replace(&mut self.on_trust, true)) {
            return None;
        }
        Some(Way { via, doubt: self.doubt })
    }

    fn challenge(&self, via: Via) -> u64 {
        let mut bytes = [0; 19];
        bytes[0] = via.local;
        let ip = match via.remote.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[1..17].copy_from_slice(&ip.octets());
        bytes[17..].copy_from_slice(&via.remote.port().to_be_bytes());
        self.challenges.hash(&bytes)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    fn via(port: u16) -> Via {
        Via { local: 0, remote: SocketAddr::from(([192, 0, 2, 1], port)) }
    }

    fn proved(now: Instant) -> UdpReach {
        let mut reach = UdpReach::new(&[1; 16]);
        reach.set_limit(1200);
        let Answer { challenge, validated, .. } = reach.pinged(via(1), 1, 0, now);
        assert!(!validated);
        assert_eq!(reach.way(100, now), None, "one packet proves no address");
        assert!(reach.pinged(via(1), 2, challenge, now).validated);
        reach
    }

    #[test]
    fn an_address_that_answers_is_used_as_long_as_it_is_heard() {
        let now = Instant::now();
        let mut reach = proved(now);
        assert_eq!(reach.way(1200, now), Some(Way { via: via(1), doubt: false }));
        assert_eq!(reach.way(1201, now), None, "not more than the gateway can be sent");
        let later = now + Duration::from_millis(900);
        reach.heard(via(1), later);
        assert_eq!(reach.way(1200, later + Duration::from_millis(900)).unwrap().via, via(1));
        assert_eq!(reach.way(1200, later + FRESH), None);
        reach.set_limit(1200 | LIMIT_IN_DOUBT);
        assert_eq!(reach.way(1200, later), Some(Way { via: via(1), doubt: true }));
        assert_eq!(reach.way(1201, later), None);
        reach.set_limit(0);
        assert_eq!(reach.way(1, later), None);
    }

    #[test]
    fn an_idle_gateway_gets_one_short_datagram_over_udp_and_no_other_until_it_is_heard() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut reach = proved(now);
        let way = Some(Way { via: via(1), doubt: false });
        assert_eq!(reach.way(SHORT_PAYLOAD + 1, at(7)), None, "what is longer goes where it surely arrives");
        assert_eq!([reach.way(SHORT_PAYLOAD, at(7)), reach.way(SHORT_PAYLOAD, at(8))], [way, None], "sent again");
        reach.heard(via(2), at(8));
        assert_eq!(reach.way(1, at(8)), None, "another address says nothing");
        reach.heard(via(1), at(9));
        assert_eq!([reach.way(1, at(16)), reach.way(1, at(16))], [way, None]);
        let Answer { challenge, .. } = reach.pinged(via(1), 3, 0, at(17));
        assert_eq!(reach.way(1, at(19)), way, "a ping is a sign of life too");
        reach.pinged(via(1), 4, challenge, at(20));
        assert_eq!(reach.way(1, at(20) + TRUSTED), None);
        reach.set_limit(0);
        assert_eq!(reach.way(1, at(21)), None);
    }

    #[test]
    fn a_copied_packet_from_elsewhere_moves_nothing_but_a_gateway_that_moved_is_followed() {
        let now = Instant::now();
        let mut reach = proved(now);
        let Answer { challenge, validated, .. } = reach.pinged(via(2), 3, reach.challenge(via(1)), now);
        assert!(!validated, "the challenge of one address proves no other");
        reach.heard(via(2), now);
        assert_eq!(reach.way(1, now).unwrap().via, via(1));
        reach.pinged(via(2), 4, challenge, now);
        assert_eq!(reach.way(1, now).unwrap().via, via(2));
        let other_socket = Via { local: 1, ..via(2) };
        assert!(!reach.pinged(other_socket, 5, challenge, now).validated, "nor another socket of the relay");
    }
}
