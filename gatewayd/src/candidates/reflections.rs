//! What the STUN ports of the relays see of the tunnel socket.

use std::{collections::BTreeMap, net::SocketAddr};

use gateway_proto::{
    netcheck::split_host,
    path::{Told, Weighed},
};

/// The relay of a STUN server: all ports of one host are one relay's word.
pub(super) fn host(server: &str) -> String {
    split_host(server).map_or(server, |(host, _)| host).to_owned()
}

/// A STUN port of a relay, and what it saw.
#[derive(Debug)]
struct Reflection {
    relay: String,
    server: SocketAddr,
    seen: Option<SocketAddr>,
}

/// What the servers saw, in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct Reflections(Vec<Reflection>);

impl Reflections {
    /// These servers of these relays are asked now; who is not among them any more counts no more.
    pub(super) fn expect(&mut self, servers: impl Iterator<Item = (String, SocketAddr)>) {
        let former: BTreeMap<_, _> = self.0.drain(..).map(|known| (known.server, known.seen)).collect();
        let seen = |server: SocketAddr| former.get(&server).copied().flatten();
        self.0 = servers.map(|(relay, server)| Reflection { relay, server, seen: seen(server) }).collect();
    }

    /// What was seen from another network says nothing.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn note(&mut self, server: SocketAddr, seen: SocketAddr) {
        if let Some(known) = self.0.iter_mut().find(|known| known.server == server) {
            known.seen = Some(seen);
        }
    }

    pub(super) fn forget(&mut self, server: &SocketAddr) {
        self.0.retain(|known| known.server != *server);
    }

    pub(super) fn weighed(&self) -> Weighed {
        Weighed::of(
            self.0
                .iter()
                .filter_map(|known| Some(Told { relay: &known.relay, server: known.server, outer: known.seen? })),
        )
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::path::NatMapping;

    use super::*;
    use crate::candidates::tests::{seen, server};

    #[test]
    fn a_server_that_stops_answering_is_forgotten_with_what_it_saw() {
        let mut mapped = Reflections::default();
        let of_one = |n| ("relay.example".to_owned(), server(n));
        mapped.expect([0, 1, 2].map(of_one).into_iter());
        for n in 0..3 {
            mapped.note(server(n), seen(4000 + 100 * n));
        }
        assert!(mapped.weighed().missing.is_some_and(|missing| missing.differ), "one address tells no class");
        mapped.forget(&server(1));
        assert_eq!(mapped.weighed().addresses, [seen(4000), seen(4200)]);
        mapped.expect([of_one(2)].into_iter());
        assert_eq!(mapped.weighed().addresses, [seen(4200)], "a server the policy dropped");
        mapped.note(server(7), seen(1));
        assert_eq!(mapped.weighed().addresses.len(), 1, "nobody asked that one");
    }

    #[test]
    fn the_ports_of_a_host_are_one_relays_word_against_those_of_others() {
        let mut mapped = Reflections::default();
        let relays = ["a.example:3478", "a.example:3479", "b.example:3478", "[2001:db8::c]:3478"].map(host);
        assert_eq!(relays[3], "2001:db8::c");
        let address = |n: u8| SocketAddr::from(([192, 0, 2, n], 3478));
        mapped.expect(relays.into_iter().zip((0..4).map(address)));
        for (n, port) in (0..4).zip([9000, 9001, 4000, 4000]) {
            mapped.note(address(n), seen(port));
        }
        let weighed = mapped.weighed();
        assert_eq!(weighed.view.mapping, NatMapping::EndpointIndependent, "two relays of three");
        assert_eq!(weighed.addresses[0], seen(4000), "the one that is believed is offered first");
        assert!(weighed.contradiction().unwrap().starts_with("a.example saw "));
    }
}
