//! What keeps a leg going: its timers, its pings, and where the relay is.
//!
//! The address at which the WebSocket reached the relay comes first, then those of its family, for they are known to work; a
//! try that brings nothing moves on to the next. An offer whose addresses are not known or of no use is kept, and they are
//! looked up again.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_proto::{backoff::Backoff, path::normalize, relay::udp::CarrierReason};
use tokio::{net::lookup_host, sync::mpsc, time::timeout};
use tracing::debug;

use super::{Offer, UdpLeg, UdpLegs};
use crate::{socket::TunnelSocket, timer::until};

/// Resolving the relay's name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// First and longest pause between two look-ups for an offer that is not usable yet.
const LOOK_UPS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Addresses of a relay that are tried in turn.
const MAX_ADDRESSES: usize = 4;

/// The other end of the WebSocket's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WebSocketEnd {
    /// Its address.
    pub(crate) ip: IpAddr,
    /// It is the relay itself, not a proxy.
    pub(crate) is_relay: bool,
}

/// Ends the leg's session when the attachment does, however it ends.
struct Attachment<'a> {
    leg: &'a Arc<UdpLeg>,
    legs: UdpLegs,
    websocket: Option<WebSocketEnd>,
}

impl Attachment<'_> {
    fn end(&self, reason: CarrierReason) {
        for remote in self.leg.end(reason) {
            self.legs.remove(remote, self.leg);
        }
    }
}

impl Drop for Attachment<'_> {
    fn drop(&mut self) {
        self.end(CarrierReason::NotOffered);
    }
}

/// An offer without a usable address, so far.
struct Unresolved {
    offer: Offer,
    again_at: Instant,
    pauses: Backoff,
}

/// Keeps a leg going for one attachment, whose WebSocket goes to `websocket`: never ends by itself. Frames for the relay go to `frames`; `fell` is
/// told when UDP stops passing.
pub(crate) async fn drive(
    leg: &Arc<UdpLeg>,
    socket: &TunnelSocket,
    websocket: Option<WebSocketEnd>,
    mut offers: mpsc::Receiver<Offer>,
    frames: mpsc::Sender<Vec<u8>>,
    fell: impl Fn(),
) {
    let attachment = Attachment { leg, legs: socket.legs().clone(), websocket };
    let mut unresolved: Option<Unresolved> = None;
    loop {
        let work = leg.work(Instant::now());
        if work.fell {
            fell();
        }
        if let Some(remote) = work.remote {
            for ping in &work.pings {
                socket.send_probe(remote, ping);
            }
        }
        for frame in work.frames {
            // The writer of the link has ended: the attachment does too.
            if frames.send(frame).await.is_err() {
                return std::future::pending().await;
            }
        }
        let due = [work.due, unresolved.as_ref().map(|waiting| waiting.again_at)].into_iter().flatten().min();
        let (offer, pauses) = tokio::select! {
            Some(offer) = offers.recv() => (offer, Backoff::new(LOOK_UPS.0, LOOK_UPS.1)),
            () = leg.wake.notified() => continue,
            () = until(due) => match unresolved.take_if(|waiting| waiting.again_at <= Instant::now()) {
                Some(waiting) => (waiting.offer, waiting.pauses),
                None => continue,
            },
        };
        unresolved = take(&attachment, socket, offer, pauses).await;
    }
}

/// Begins the session that is offered; gives the offer back where no address is usable.
async fn take(
    attachment: &Attachment<'_>,
    socket: &TunnelSocket,
    offer: Offer,
    mut pauses: Backoff,
) -> Option<Unresolved> {
    // Whether or not there is a new one: nothing is sent or taken there any more.
    attachment.end(CarrierReason::NotOffered);
    let resolved = timeout(RESOLVE_TIMEOUT, lookup_host(&offer.address)).await;
    let found = resolved.ok().and_then(Result::ok).into_iter().flatten();
    let mut remotes = in_order(found, attachment.websocket, offer.port);
    remotes.retain(|address| socket.reaches(address));
    remotes.truncate(MAX_ADDRESSES);
    if remotes.is_empty() {
        debug!(relay = %attachment.leg.relay(), "the relay's UDP address is not usable");
        attachment.end(CarrierReason::NoAddress);
        let pause = pauses.next_delay(u32::from_be_bytes(gateway_net::entropy::random()));
        return Some(Unresolved { offer, again_at: Instant::now() + pause, pauses });
    }
    attachment.leg.start(&offer, &remotes, Instant::now());
    for remote in remotes {
        attachment.legs.insert(remote, attachment.leg.clone());
    }
    None
}

/// The addresses to try: the one the WebSocket goes to, then those of its family, else in the resolver's order, none twice.
fn in_order(found: impl Iterator<Item = SocketAddr>, websocket: Option<WebSocketEnd>, port: u16) -> Vec<SocketAddr> {
    let first = websocket.filter(|end| end.is_relay).map(|end| SocketAddr::new(end.ip, port));
    let mut remotes: Vec<SocketAddr> = Vec::new();
    for address in first.into_iter().chain(found).map(normalize) {
        if !remotes.contains(&address) {
            remotes.push(address);
        }
    }
    if let Some(websocket) = websocket {
        remotes.sort_by_key(|address| address.is_ipv4() != websocket.ip.to_canonical().is_ipv4());
    }
    remotes
}

#[cfg(test)]
mod tests {
    use gateway_proto::{id::RelayId, relay::udp::UdpSecret};

    use super::*;
    use crate::path_actor::SessionIndex;

    #[tokio::test]
    async fn an_offer_whose_address_does_not_resolve_leaves_nothing_of_the_former_one_and_is_tried_again() {
        let leg = Arc::new(UdpLeg::of(RelayId::from_bytes([1; 16])));
        let former: SocketAddr = "192.0.2.1:3478".parse().unwrap();
        let bind = ["127.0.0.1:0".parse::<SocketAddr>().unwrap()];
        let (socket, _) = TunnelSocket::bind(bind.into_iter(), Arc::default(), SessionIndex::default()).unwrap();
        let offer = Offer { session: 1, secret: UdpSecret::from_bytes([7; 32]), address: String::new(), port: 3478 };
        leg.start(&offer, &[former], Instant::now());
        let attachment = Attachment { leg: &leg, legs: socket.legs().clone(), websocket: None };
        attachment.legs.insert(former, leg.clone());
        let (begun, pauses) = (Instant::now(), Backoff::new(LOOK_UPS.0, LOOK_UPS.1));
        let waiting = take(&attachment, &socket, offer, pauses).await.unwrap();
        assert!(attachment.legs.find(&former).is_none());
        assert_eq!(leg.reason(), CarrierReason::NoAddress);
        assert!(waiting.again_at > begun);
        let answered = Offer { address: "127.0.0.1:3478".into(), ..waiting.offer };
        assert!(take(&attachment, &socket, answered, waiting.pauses).await.is_none());
        assert!(attachment.legs.find(&"127.0.0.1:3478".parse().unwrap()).is_some());
        assert_eq!(leg.reason(), CarrierReason::Trying);
    }

    #[test]
    fn the_address_of_the_websocket_comes_first_then_its_family_and_none_twice() {
        let found = ["[2001:db8::1]:3478", "192.0.2.1:3478", "[2001:db8::1]:3478", "192.0.2.2:3478"];
        let found = found.map(|text| text.parse::<SocketAddr>().unwrap());
        let [six, one, _, two] = found;
        let order = |ip: &str, is_relay| {
            let end = WebSocketEnd { ip: ip.parse().unwrap(), is_relay };
            in_order(found.into_iter(), Some(end), 3478)
        };
        assert_eq!(in_order(found.into_iter(), None, 3478), [six, one, two]);
        assert_eq!(order("192.0.2.2", true), [two, one, six]);
        assert_eq!(order("::ffff:192.0.2.2", true), [two, one, six], "written in another way");
        assert_eq!(order("198.51.100.7", false), [one, two, six], "a proxy's own address is no relay's");
        assert_eq!(order("2001:db8::9", false), [six, one, two]);
    }

    #[test]
    fn without_an_answer_of_the_name_servers_the_relay_is_where_the_websocket_reached_it() {
        let end = |is_relay| Some(WebSocketEnd { ip: IpAddr::from([192, 0, 2, 7]), is_relay });
        assert_eq!(in_order(std::iter::empty(), end(true), 3478), ["192.0.2.7:3478".parse().unwrap()]);
        assert!(in_order(std::iter::empty(), end(false), 3478).is_empty());
    }
}
