use gateway_proto::{id::RelayId, relay::udp::UdpSecret};

use super::*;
use crate::path_actor::SessionIndex;

fn socket() -> Arc<TunnelSocket> {
    let bind = ["127.0.0.1:0".parse::<SocketAddr>().unwrap()];
    TunnelSocket::bind(bind.into_iter(), Arc::default(), SessionIndex::default()).unwrap().0
}

fn leg() -> Arc<UdpLeg> {
    Arc::new(UdpLeg::of(RelayId::from_bytes([1; 16])))
}

/// Of a relay whose name has no address.
fn offer() -> Offer {
    Offer { session: 1, secret: UdpSecret::from_bytes([7; 32]), address: String::new(), port: 3478 }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn an_offer_whose_address_does_not_resolve_leaves_nothing_of_the_former_one_and_is_tried_again() {
    let (leg, socket, former) = (leg(), socket(), address("192.0.2.1:3478"));
    leg.start(&offer(), &[former], Instant::now());
    let attachment = Attachment { leg: &leg, legs: socket.legs().clone(), websocket: None };
    attachment.legs.insert(former, leg.clone());
    let begun = Instant::now();
    let mut asked = attachment.begin(&socket, offer(), begun);
    assert!(attachment.legs.find(&former).is_none());
    assert_eq!(leg.reason(), CarrierReason::Trying, "it was offered");
    let found = asked.answered().await;
    let mut asked = attachment.take(&socket, asked, found, begun).unwrap();
    assert_eq!(leg.reason(), CarrierReason::NoAddress);
    assert!(asked.again_at > begun);
    // Looked up again: nothing else is said of it meanwhile.
    asked.again_at = begun;
    let found = asked.answered().await;
    assert_eq!((found.is_empty(), leg.reason()), (true, CarrierReason::NoAddress));
    assert!(attachment.take(&socket, asked, vec![address("127.0.0.1:3478")], begun).is_none());
    assert!(attachment.legs.find(&address("127.0.0.1:3478")).is_some());
    assert_eq!(leg.reason(), CarrierReason::Trying);
}

#[tokio::test]
async fn where_the_websocket_reached_the_relay_udp_is_tried_before_a_name_server_answers() {
    let (leg, socket, now) = (leg(), socket(), Instant::now());
    let websocket = Some(WebSocketEnd { ip: IpAddr::from([127, 0, 0, 1]), is_relay: true });
    let attachment = Attachment { leg: &leg, legs: socket.legs().clone(), websocket };
    let asked = attachment.begin(&socket, offer(), now);
    assert_eq!(leg.work(now).remote, Some(address("127.0.0.1:3478")));
    assert!(attachment.legs.find(&address("127.0.0.1:3478")).is_some());
    // They answer at last: what is tried goes on, and the others come after it.
    let found = vec![address("127.0.0.2:3478"), address("127.0.0.1:3478")];
    assert!(attachment.take(&socket, asked, found, now).is_none());
    assert_eq!(leg.work(now).remote, Some(address("127.0.0.1:3478")));
    assert!(attachment.legs.find(&address("127.0.0.2:3478")).is_some());
    assert_eq!(leg.end(CarrierReason::NotOffered).len(), 2);
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
