//! What in the engine's configuration loses messages or cannot work with a tunnel (measured: docs/engine.md).

use std::{collections::BTreeMap, fmt};

use super::{EngineChannel, FILE_WRITER, TCP_SENDER};

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

/// What there is to say about destinations that send to `local_ports` (of senders), and about the listeners.
pub fn advise(channels: &[EngineChannel], local_ports: &[u16]) -> Vec<Advice> {
    let mut advice = Vec::new();
    for port in local_ports {
        let users: Vec<_> = users(channels, *port).collect();
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
        match users.len() {
            0 if may_be_used(channels, *port) => {}
            0 => advice.push(Advice::PortUnused { port: *port }),
            1 => {}
            _ if users.iter().all(|(_, destination)| destination.transport == FILE_WRITER) => {}
            _ => {
                let names =
                    users.iter().map(|(channel, destination)| format!("{} / {}", channel.name, destination.name));
                advice.push(Advice::PortShared { port: *port, destinations: names.collect() });
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

/// The destinations that send to a local port.
pub fn users(
    channels: &[EngineChannel],
    port: u16,
) -> impl Iterator<Item = (&EngineChannel, &super::EngineDestination)> {
    channels.iter().flat_map(move |channel| {
        let destinations = channel.destinations.iter();
        destinations.filter(move |d| d.enabled && d.is_local(port)).map(move |destination| (channel, destination))
    })
}

/// Whether some destination could send to a local port: where to is a variable, which the engine does not resolve for us.
fn may_be_used(channels: &[EngineChannel], port: u16) -> bool {
    let mut destinations = channels.iter().flat_map(|channel| &channel.destinations);
    destinations.any(|destination| destination.enabled && destination.may_be_local(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineChannelState, EngineCounts, EngineDestination};

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
        let advice = advise(&channels, &[6001]);
        let said: Vec<_> = advice.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "only what goes through the gateway is ours to judge: {said:?}");
        assert!(said[0].contains("'adt'") && said[0].contains("Validate Response"), "{said:?}");
        assert!(said[1].contains("queue is off"), "{said:?}");
        assert_eq!(advise(&[channel("adt", 6001, true, true)], &[6001]), []);
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
            advise(&channels, &[6001, 6002]),
            [Advice::PortShared { port: 6001, destinations }, Advice::PortUnused { port: 6002 }]
        );
    }

    fn sends_to(mut channel: EngineChannel, transport: &str, host: &str, port: Option<u16>) -> EngineChannel {
        let destination = &mut channel.destinations[0];
        (destination.transport, destination.host, destination.port) = (transport.into(), Some(host.into()), port);
        channel
    }

    #[test]
    fn a_destination_whose_port_or_host_is_a_variable_is_not_said_to_send_elsewhere() {
        let to = |host: &str, port| [sends_to(channel("adt", 0, true, true), TCP_SENDER, host, port)];
        for (host, port) in [("127.0.0.1", None), ("localhost", None), ("${host}", Some(6001)), ("${url}", None)] {
            assert_eq!(advise(&to(host, port), &[6001]), [], "{host} {port:?}");
        }
        for (host, port) in [("127.0.0.1", Some(6002)), ("lab.example", None), ("${host}", Some(6002))] {
            assert_eq!(advise(&to(host, port), &[6001]), [Advice::PortUnused { port: 6001 }], "{host} {port:?}");
        }
        let mut off = to("127.0.0.1", None);
        off[0].destinations[0].enabled = false;
        assert_eq!(advise(&off, &[6001]), [Advice::PortUnused { port: 6001 }]);
    }

    #[test]
    fn file_writers_share_a_server_and_have_no_answer_that_could_be_looked_at() {
        let writer = |name, queue| sends_to(channel(name, 0, queue, false), FILE_WRITER, "127.0.0.1", Some(6022));
        assert_eq!(advise(&[writer("a", true), writer("b", true)], &[6022]), []);
        let queue_off = Advice::QueueOff { channel: "a".into(), destination: "partner".into() };
        assert_eq!(advise(&[writer("a", false)], &[6022]), [queue_off]);
        let mixed = advise(&[writer("a", true), channel("b", 6022, true, true)], &[6022]);
        assert!(matches!(mixed.as_slice(), [Advice::PortShared { port: 6022, .. }]), "{mixed:?}");
    }
}
