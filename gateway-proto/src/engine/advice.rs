//! What in the engine's configuration loses messages or cannot work with a tunnel (measured: docs/engine.md).

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Aim, EngineChannel, EngineDestination, FILE_WRITER, TCP_SENDER};

/// Names in one piece of advice at most; the others are counted.
const MAX_NAMES: usize = 10;

/// One thing an administrator of the engine should change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advice {
    /// The engine takes an orderly end without an answer for success.
    ValidateResponseOff {
        /// Channel.
        channel: String,
        /// Destination.
        destination: String,
    },
    /// Every refusal and reset is a failed message that nobody sends again.
    QueueOff {
        /// Channel.
        channel: String,
        /// Destination.
        destination: String,
    },
    /// A sender's local port has one user at a time: two destinations mix their messages.
    PortShared {
        /// The local port.
        port: u16,
        /// `channel / destination`, in order.
        destinations: Vec<String>,
    },
    /// Nothing sends to a sender's local port.
    PortUnused {
        /// The local port.
        port: u16,
    },
    /// A destination sends to a sender's local port at another address than it is open at, where every message is refused.
    AddressMissed {
        /// Channel.
        channel: String,
        /// Destination.
        destination: String,
        /// The host it sends to.
        host: String,
        /// Where the port is reached.
        local: SocketAddr,
    },
    /// Two channels want the same port: only one of them can be started.
    ListenersCollide {
        /// The port.
        port: u16,
        /// Names of the channels, in order.
        channels: Vec<String>,
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ValidateResponseOff { channel, destination } => write!(
                f,
                "channel '{channel}', destination '{destination}': Validate Response is off, so the engine marks a \
                 message as sent without an answer; switch it on"
            ),
            Self::QueueOff { channel, destination } => write!(
                f,
                "channel '{channel}', destination '{destination}': the queue is off, so a message that cannot be \
                 delivered at once is an error and never sent again; set it to 'On Failure' or 'Always'"
            ),
            Self::PortShared { port, destinations } => write!(
                f,
                "the local port {port} is used by {} destinations ({}); give each its own connection",
                destinations.len(),
                listed(destinations)
            ),
            Self::PortUnused { port } => {
                write!(f, "no destination of the engine sends to the local port {port}; set its remote address to it")
            }
            Self::AddressMissed { channel, destination, host, local } => write!(
                f,
                "channel '{channel}', destination '{destination}': it sends to port {} of {host}, at which the gateway's \
                 local port {0} is not open; if it is meant for that one, set its remote address to {}",
                local.port(),
                local.ip()
            ),
            Self::ListenersCollide { port, channels } => {
                write!(f, "the channels {} want the same port {port}", listed(channels))
            }
        }
    }
}

fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(MAX_NAMES)].join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What there is to say about destinations that send to the local ports of senders, which are opened at `local`, and about the
/// listeners.
pub fn advise(channels: &[EngineChannel], local: &[SocketAddr]) -> Vec<Advice> {
    let mut advice = Vec::new();
    for local in local {
        let port = local.port();
        let users: Vec<_> = users(channels, *local).collect();
        for (channel, destination) in &users {
            let (channel, destination_name) = (channel.name.clone(), destination.name.clone());
            if !destination.validate_response && destination.transport == TCP_SENDER {
                let destination = destination_name.clone();
                advice.push(Advice::ValidateResponseOff { channel: channel.clone(), destination });
            }
            if !destination.queue {
                advice.push(Advice::QueueOff { channel, destination: destination_name });
            }
        }
        let missed = aimed(channels, *local, Aim::Misses).map(|(channel, destination)| Advice::AddressMissed {
            channel: channel.name.clone(),
            destination: destination.name.clone(),
            host: destination.host.clone().unwrap_or_default(),
            local: SocketAddr::new(reached_at(local.ip()), port),
        });
        let others = advice.len();
        advice.extend(missed);
        let is_missed = advice.len() > others;
        match users.len() {
            0 if is_missed || may_be_used(channels, port) => {}
            0 => advice.push(Advice::PortUnused { port }),
            1 => {}
            _ if users.iter().all(|(_, destination)| destination.transport == FILE_WRITER) => {}
            _ => {
                let names =
                    users.iter().map(|(channel, destination)| format!("{} / {}", channel.name, destination.name));
                advice.push(Advice::PortShared { port, destinations: names.collect() });
            }
        }
    }
    let mut listeners: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for channel in channels {
        if let Some(listener) = channel.listening() {
            listeners.entry(listener.port).or_default().push(channel.name.clone());
        }
    }
    let collisions = listeners.into_iter().filter(|(_, channels)| channels.len() > 1);
    advice.extend(collisions.map(|(port, channels)| Advice::ListenersCollide { port, channels }));
    advice
}

/// The destinations that send to the local port that is opened at `local`.
pub fn users(
    channels: &[EngineChannel],
    local: SocketAddr,
) -> impl Iterator<Item = (&EngineChannel, &EngineDestination)> {
    aimed(channels, local, Aim::Reaches)
}

fn aimed(
    channels: &[EngineChannel],
    local: SocketAddr,
    aim: Aim,
) -> impl Iterator<Item = (&EngineChannel, &EngineDestination)> {
    channels.iter().flat_map(move |channel| {
        let destinations = channel.destinations.iter();
        let aimed = destinations.filter(move |destination| destination.enabled && destination.aim(local) == aim);
        aimed.map(move |destination| (channel, destination))
    })
}

/// The address at which a port is reached that is opened at this one.
fn reached_at(bound: IpAddr) -> IpAddr {
    if bound.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bound }
}

/// Whether some destination could send to a local port: where to is a variable, which the engine does not resolve for us.
fn may_be_used(channels: &[EngineChannel], port: u16) -> bool {
    let mut destinations = channels.iter().flat_map(|channel| &channel.destinations);
    destinations.any(|destination| destination.enabled && destination.may_be_local(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineChannelState, EngineCounts};

    fn local<const N: usize>(ports: [u16; N]) -> [SocketAddr; N] {
        ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn channel(name: &str, port: u16, queue: bool, validate_response: bool) -> EngineChannel {
        EngineChannel {
            id: name.into(),
            name: name.into(),
            state: EngineChannelState::Started,
            undeployed_changes: false,
            listener: None,
            destinations: vec![EngineDestination {
                id: 1,
                name: "partner".into(),
                transport: "TCP Sender".into(),
                host: Some("localhost".into()),
                port: Some(port),
                enabled: true,
                queue,
                validate_response,
            }],
            counts: EngineCounts::default(),
        }
    }

    #[test]
    fn a_destination_that_may_lose_messages_is_named_with_what_to_switch() {
        let channels = [channel("adt", 6001, false, false), channel("other", 9999, false, false)];
        let advice = advise(&channels, &local([6001]));
        let said: Vec<_> = advice.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "only what goes through the gateway is ours to judge: {said:?}");
        assert!(said[0].contains("'adt'") && said[0].contains("Validate Response"), "{said:?}");
        assert!(said[1].contains("queue is off"), "{said:?}");
        assert_eq!(advise(&[channel("adt", 6001, true, true)], &local([6001])), []);
    }

    #[test]
    fn advice_stays_short_however_many_it_concerns() {
        let names = |count| (1..=count).map(|n| format!("c{n}")).collect::<Vec<_>>();
        let ten = Advice::ListenersCollide { port: 1, channels: names(10) }.to_string();
        assert_eq!(ten, "the channels c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 want the same port 1");
        let many = Advice::PortShared { port: 1, destinations: names(40_000) }.to_string();
        assert!(many.contains("by 40000 destinations (c1, ") && many.contains("c10 and 39990 more)"), "{many}");
    }

    #[test]
    fn two_destinations_at_one_port_and_none_at_another_are_told() {
        let channels = [channel("a", 6001, true, true), channel("b", 6001, true, true)];
        let destinations = vec!["a / partner".to_owned(), "b / partner".to_owned()];
        assert_eq!(
            advise(&channels, &local([6001, 6002])),
            [Advice::PortShared { port: 6001, destinations }, Advice::PortUnused { port: 6002 }]
        );
    }

    fn sends_to(mut channel: EngineChannel, transport: &str, host: &str, port: Option<u16>) -> EngineChannel {
        let destination = &mut channel.destinations[0];
        (destination.transport, destination.host, destination.port) = (transport.into(), Some(host.into()), port);
        channel
    }

    #[test]
    fn a_destination_at_an_address_at_which_the_local_port_is_not_open_is_told_and_is_no_user_of_it() {
        let at = |bound: &str| SocketAddr::new(bound.parse().unwrap(), 6001);
        for (bound, reaches, misses) in [
            ("127.0.0.1", ["127.0.0.1", "LocalHost", "::ffff:127.0.0.1"], ["127.0.0.2", "[::1]", "::1"]),
            ("::1", ["::1", "[::1]", "localhost"], ["127.0.0.1", "127.0.0.2", "::ffff:127.0.0.1"]),
            ("0.0.0.0", ["127.0.0.1", "127.0.0.2", "localhost"], ["::1", "[::1]", "::1"]),
            ("192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7", "192.0.2.7"], ["127.0.0.1", "localhost", "::1"]),
        ] {
            for host in reaches {
                let channels = [sends_to(channel("adt", 0, true, true), TCP_SENDER, host, Some(6001))];
                assert_eq!(users(&channels, at(bound)).count(), 1, "{bound} {host}");
                assert_eq!(advise(&channels, &[at(bound)]), [], "{bound} {host}");
            }
            for host in misses {
                let channels = [sends_to(channel("adt", 0, false, false), TCP_SENDER, host, Some(6001))];
                assert_eq!(users(&channels, at(bound)).count(), 0, "{bound} {host}");
                let advice = advise(&channels, &[at(bound)]);
                let [Advice::AddressMissed { host: told, local, .. }] = advice.as_slice() else { panic!("{advice:?}") };
                let reached = if bound == "0.0.0.0" { "127.0.0.1" } else { bound };
                assert_eq!((told.as_str(), *local), (host, at(reached)));
            }
        }
        let everywhere = ["127.0.0.1", "127.0.0.2", "::1", "localhost"];
        for host in everywhere {
            let channels = [sends_to(channel("adt", 0, true, true), TCP_SENDER, host, Some(6001))];
            assert_eq!(advise(&channels, &[at("::")]), [], "{host}");
        }
        let said =
            advise(&[sends_to(channel("adt", 0, true, true), TCP_SENDER, "127.0.0.2", Some(6001))], &local([6001]));
        assert_eq!(
            said[0].to_string(),
            "channel 'adt', destination 'partner': it sends to port 6001 of 127.0.0.2, at which the gateway's local port 6001 \
             is not open; if it is meant for that one, set its remote address to 127.0.0.1"
        );
    }

    #[test]
    fn a_destination_whose_port_or_host_is_a_variable_is_not_said_to_send_elsewhere() {
        let to = |host: &str, port| [sends_to(channel("adt", 0, true, true), TCP_SENDER, host, port)];
        for (host, port) in [("127.0.0.1", None), ("localhost", None), ("${host}", Some(6001)), ("${url}", None)] {
            assert_eq!(advise(&to(host, port), &local([6001])), [], "{host} {port:?}");
        }
        for (host, port) in [("127.0.0.1", Some(6002)), ("lab.example", None), ("${host}", Some(6002))] {
            assert_eq!(advise(&to(host, port), &local([6001])), [Advice::PortUnused { port: 6001 }], "{host} {port:?}");
        }
        let mut off = to("127.0.0.1", None);
        off[0].destinations[0].enabled = false;
        assert_eq!(advise(&off, &local([6001])), [Advice::PortUnused { port: 6001 }]);
    }

    #[test]
    fn file_writers_share_a_server_and_have_no_answer_that_could_be_looked_at() {
        let writer = |name, queue| sends_to(channel(name, 0, queue, false), FILE_WRITER, "127.0.0.1", Some(6022));
        assert_eq!(advise(&[writer("a", true), writer("b", true)], &local([6022])), []);
        let queue_off = Advice::QueueOff { channel: "a".into(), destination: "partner".into() };
        assert_eq!(advise(&[writer("a", false)], &local([6022])), [queue_off]);
        let mixed = advise(&[writer("a", true), channel("b", 6022, true, true)], &local([6022]));
        assert!(matches!(mixed.as_slice(), [Advice::PortShared { port: 6022, .. }]), "{mixed:?}");
    }
}
