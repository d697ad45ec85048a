use std::net::{IpAddr, Ipv4Addr};

use proptest::{collection, prelude::*, sample};

use super::*;

const OUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const RELAYS: [&str; 7] = ["r1", "r2", "r3", "r4", "r5", "r6", "r7"];

fn outer(port: u16) -> SocketAddr {
    SocketAddr::new(OUTER, port)
}

/// The address of a relay's only machine.
fn server(relay: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, relay as u8], 3478))
}

fn told(relay: usize, outer: SocketAddr) -> Told<'static> {
    Told { relay: RELAYS[relay], server: server(relay), outer }
}

/// What relays say, each with all its ports in turn.
fn weighed(said: &[&[SocketAddr]]) -> Weighed {
    let mut all = Vec::new();
    for (relay, seen) in said.iter().enumerate() {
        all.extend(seen.iter().map(|outer| told(relay, *outer)));
    }
    Weighed::of(all)
}

/// One answer from each of several relays.
fn singly(ports: &[u16]) -> NatView {
    Weighed::of(ports.iter().enumerate().map(|(relay, port)| told(relay, outer(*port)))).view
}

fn names(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.relay.as_str()).collect()
}

#[test]
fn the_class_follows_from_the_ports_that_the_relays_saw() {
    assert_eq!(singly(&[]).mapping, NatMapping::Unknown);
    assert_eq!(singly(&[4000]).mapping, NatMapping::Unknown);
    assert_eq!(singly(&[4000, 4000, 4000]).mapping, NatMapping::EndpointIndependent);
    assert_eq!(singly(&[4000, 4002, 4003, 4008]).mapping, NatMapping::Regular);
    assert_eq!(singly(&[4000, 24_002, 51_234]).mapping, NatMapping::Random);
}

#[test]
fn a_counting_nat_shows_its_direction() {
    assert_eq!(singly(&[4000, 4001, 4003]).ports, Some(PortPattern { last: 4003, direction: 1 }));
    assert_eq!(singly(&[4003, 4002, 4001]).ports, Some(PortPattern { last: 4001, direction: -1 }));
    assert_eq!(singly(&[4003, 4002, 4004]).ports, Some(PortPattern { last: 4004, direction: 0 }));
    assert_eq!(singly(&[4000, 4000, 4000]).ports, None);
}

#[test]
fn fewer_than_three_answers_or_one_server_address_tell_no_class_and_the_reason_is_told_with_what_follows() {
    let one_relay = |ports: &[u16]| weighed(&[&ports.iter().map(|port| outer(*port)).collect::<Vec<_>>()]);
    for ports in [&[4000][..], &[4000, 4000], &[4000, 4000, 4000, 4000], &[4000, 4001, 4002], &[4000, 24_000, 51_000]] {
        let found = one_relay(ports);
        let missing = found.missing.unwrap();
        assert_eq!((found.view, missing.answers, missing.servers), (NatView::default(), ports.len(), 1), "{ports:?}");
        assert_eq!(missing.differ, ports.iter().any(|port| *port != 4000), "{ports:?}");
        assert!(found.contradiction().is_none() && found.outvoted().is_empty(), "nobody is accused: {ports:?}");
    }
    for ports in [[4000, 4000], [4000, 4001], [4000, 9000]] {
        let found = weighed(&[&[outer(ports[0])], &[outer(ports[1])]]);
        assert_eq!((found.view.mapping, found.missing.unwrap().servers), (NatMapping::Unknown, 2), "{ports:?}");
    }
    let text = one_relay(&[4000, 4000]).missing.unwrap().to_string();
    for part in [
        "2 STUN answers from 1 server address do not tell",
        "3 from 2 addresses",
        "a second relay",
        "no port is guessed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(one_relay(&[4000, 9000]).missing.unwrap().to_string().contains("so it is a hard one"));
    assert!(
        one_relay(&[4000]).missing.unwrap().to_string().starts_with("1 STUN answer from 1 server address does not")
    );
    let enough = weighed(&[&[outer(4000)], &[outer(4000), outer(4000)]]);
    assert_eq!((enough.view.mapping, enough.missing), (NatMapping::EndpointIndependent, None));
    assert_eq!(weighed(&[]).missing, None, "nobody answered: that is another thing");
    // One name with two machines behind it, each of which sees for itself.
    let of_one_name = [0, 0, 1].map(|machine| Told { relay: "r1", server: server(machine), outer: outer(4000) });
    assert_eq!(Weighed::of(of_one_name).view.mapping, NatMapping::EndpointIndependent);
}

#[test]
fn ipv6_says_nothing_of_the_class_and_its_addresses_are_kept() {
    let seen: [SocketAddr; 2] = ["[2001:db8::1]:4000", "[2001:db8::1]:5000"].map(|addr| addr.parse().unwrap());
    let found = weighed(&[&seen]);
    assert_eq!((found.view.mapping, found.addresses), (NatMapping::Unknown, seen.to_vec()));
    assert!(found.others.is_empty() && found.believed.is_empty());
}

#[test]
fn one_wrong_answer_of_six_is_outvoted_and_its_relay_is_named_with_what_it_said() {
    let (right, wrong) = (outer(7000), SocketAddr::from(([203, 0, 113, 193], 5001)));
    for third in [[wrong, right], [right, wrong], [wrong, wrong], [outer(7001), right]] {
        let found = weighed(&[&[right, right], &[right, right], &third]);
        assert_eq!(found.view.mapping, NatMapping::EndpointIndependent, "{third:?}");
        assert_eq!((names(&found.believed), names(found.outvoted())), (vec!["r1", "r2"], vec!["r3"]), "{third:?}");
        assert_eq!(found.addresses[0], right, "{third:?}");
    }
    let found = weighed(&[&[wrong, wrong], &[right, right], &[right, right]]);
    assert_eq!(found.addresses, [right, wrong], "both are offered: it may be another uplink");
    let told = found.contradiction().unwrap();
    let expected = "r1 saw 203.0.113.193:5001, and most relays (r2, r3) saw 198.51.100.1:7000: these are believed";
    assert_eq!(told, expected);
    let found = weighed(&[&[outer(4000), outer(4001)], &[wrong], &[outer(4003), outer(4004)]]);
    assert_eq!(found.view.ports, Some(PortPattern { last: 4004, direction: 1 }));
    assert!(found.contradiction().unwrap().contains("r1, r3) saw ports of 198.51.100.1 that follow each other"));
}

#[test]
fn of_two_relays_that_contradict_each_other_none_is_believed_and_the_worse_is_taken_to_be_true() {
    let [one, other] = [outer(7000), outer(17_000)];
    let found = weighed(&[&[one, one], &[other, other]]);
    assert!(found.view.mapping == NatMapping::Random && found.is_undecided() && found.outvoted().is_empty());
    let told = found.contradiction().unwrap();
    let expected = "r1 saw 198.51.100.1:7000, r2 saw 198.51.100.1:17000, and there is no third relay to say which is right: \
                    the worse is taken to be true";
    assert!(told.starts_with(expected), "{told}");
    assert!(weighed(&[&[one, one], &[one, other]]).is_undecided(), "one answer of four");
    let settled = weighed(&[&[one, one], &[other, other], &[one, one]]);
    assert_eq!((settled.view.mapping, names(settled.outvoted())), (NatMapping::EndpointIndependent, vec!["r2"]));
    let hard = weighed(&[&[one, outer(27_000)], &[other, outer(37_000)]]);
    assert!(
        hard.view.mapping == NatMapping::Random && hard.contradiction().is_none(),
        "they agree that all ports differ"
    );
}

#[test]
fn a_nat_with_a_port_for_every_relay_is_hard_and_nobody_is_accused() {
    for relays in [3, 4, 7_u16] {
        let said: Vec<_> = (0..relays).map(|n| [outer(10_000 + 5_000 * n); 2]).collect();
        let found = weighed(&said.iter().map(|both| &both[..]).collect::<Vec<_>>());
        assert_eq!((found.view.mapping, found.contradiction()), (NatMapping::Random, None), "{relays}");
    }
}

#[test]
fn a_nat_with_two_outer_addresses_is_hard_unless_most_relays_see_one_of_them() {
    let [one, other] = [OUTER, SECOND].map(|ip| SocketAddr::new(ip, 7000));
    for said in [
        vec![vec![one, other], vec![other, one], vec![one, other]],
        vec![vec![one, one], vec![other, other], vec![one, other]],
        vec![vec![one, one], vec![one, one], vec![other, other], vec![other, other]],
    ] {
        let said: Vec<_> = said.iter().map(Vec::as_slice).collect();
        assert_eq!(weighed(&said).view.mapping, NatMapping::Random, "{said:?}");
    }
    // Nobody can tell that from a relay that lies. Both addresses are offered, so partners look at both.
    let found = weighed(&[&[one, one], &[other, other], &[one, one]]);
    assert_eq!(found.view.mapping, NatMapping::EndpointIndependent);
    assert_eq!((names(found.outvoted()), found.addresses.clone()), (vec!["r2"], vec![one, other]));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nat {
    OnePort,
    Counting(u16),
    PortPerRelay,
    PortPerQuestion,
    /// Another outer address for each port of a relay.
    Pool,
}

impl Nat {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::OnePort, Self::PortPerRelay, Self::PortPerQuestion, Self::Pool];
        all.extend((1..=REGULAR_STEP).map(Self::Counting));
        all
    }

    /// What an honest relay sees at the question of this number, its port of that number.
    fn shows(self, relay: usize, port: usize, question: usize) -> SocketAddr {
        let [relay, question] = [relay, question].map(|n| u16::try_from(n).unwrap());
        match self {
            Self::OnePort => outer(7_000),
            Self::Counting(step) => outer(20_000 + step * question),
            Self::PortPerRelay => outer(10_000 + 5_000 * relay),
            Self::PortPerQuestion => outer(10_000 + 3_000 * question),
            Self::Pool => SocketAddr::new([OUTER, SECOND][port], 7_000),
        }
    }

    fn class(self) -> NatMapping {
        match self {
            Self::OnePort => NatMapping::EndpointIndependent,
            Self::Counting(_) => NatMapping::Regular,
            Self::PortPerRelay | Self::PortPerQuestion | Self::Pool => NatMapping::Random,
        }
    }
}

/// Another address, or the right one with a port that no honest relay sees.
fn lie() -> impl Strategy<Value = SocketAddr> {
    (0..4_u8, 1..1_000_u16).prop_map(|(other, port)| match other {
        0 => outer(port),
        _ => SocketAddr::from(([203, 0, 113, other], port)),
    })
}

proptest! {
    #[test]
    fn a_minority_of_liars_changes_neither_the_class_nor_which_address_comes_first(
        nat in sample::select(Nat::all()), relays in 2..=RELAYS.len(), ports in 1..=2_usize, in_rounds in any::<bool>(),
        share in 0..4_usize, first in 0..RELAYS.len(), lies in collection::vec(lie(), 14), in_league in any::<bool>(),
    ) {
        let ports = if nat == Nat::Pool { 2 } else { ports };
        let liars: Vec<usize> = (0..share.min((relays - 1) / 2)).map(|n| (first + n) % relays).collect();
        let asked: Vec<(usize, usize)> = if in_rounds {
            (0..ports).flat_map(|port| (0..relays).map(move |relay| (relay, port))).collect()
        } else {
            (0..relays).flat_map(|relay| (0..ports).map(move |port| (relay, port))).collect()
        };
        let answer = |question: usize| {
            let (relay, port) = asked[question];
            let lie = lies[if in_league { 0 } else { question }];
            if liars.contains(&relay) { lie } else { nat.shows(relay, port, question) }
        };
        let found = Weighed::of((0..asked.len()).map(|question| told(asked[question].0, answer(question))));
        if asked.len() < MIN_ANSWERS {
            prop_assert_eq!((found.view.mapping, found.missing.is_some()), (NatMapping::Unknown, true));
            return Ok(());
        }
        prop_assert_eq!(found.view.mapping, nat.class());
        let honest: Vec<_> = (0..asked.len()).filter(|at| !liars.contains(&asked[*at].0)).map(answer).collect();
        prop_assert!(honest.iter().any(|seen| seen.ip() == found.addresses[0].ip()));
        prop_assert_eq!(found.view.ports.map(|ports| ports.last), match nat {
            Nat::Counting(_) => honest.last().map(SocketAddr::port),
            Nat::OnePort | Nat::PortPerRelay | Nat::PortPerQuestion | Nat::Pool => None,
        });
        let mut named: Vec<_> = liars.iter().map(|liar| RELAYS[*liar]).collect();
        named.sort_unstable();
        let mut outvoted = names(found.outvoted());
        outvoted.sort_unstable();
        prop_assert_eq!(outvoted, if nat.class() == NatMapping::Random { Vec::new() } else { named });
        if nat == Nat::OnePort {
            prop_assert_eq!(found.addresses[0], outer(7_000));
        }
    }
}
