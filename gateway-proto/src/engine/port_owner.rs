//! Whose port it is: whether behind the address of a registered channel there is that channel, and no other.
//!
//! A grant is permission for one channel, and an address is only where that channel listened when it was looked at last:
//! in the engine it can be stopped, deleted or moved, and another one started on its port, which nobody was granted. So a
//! stream whose policy names the engine's channel is held against what the engine said last ([`Look::decide`]). What
//! agrees costs nothing; what contradicts is looked at again first, because looks are seconds old; and what contradicts
//! still is refused. An engine that cannot be asked contradicts nothing new, because data does not depend on its API; but that
//! another channel is on the port does not become untrue by its silence, and is remembered for [`REMEMBERED`].

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use super::{EngineChannel, EngineChannelState, EngineListener, EngineState, clean};

/// What the engine said last counts for so long after it fell silent, where another channel listened on the port.
pub const REMEMBERED: Duration = Duration::from_secs(300);

/// Which channels want which port: their positions in the list it was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortBook(BTreeMap<u16, Vec<usize>>);

impl PortBook {
    /// The ports of a list of channels, whatever their state.
    pub fn new(channels: &[EngineChannel]) -> Self {
        let mut ports: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (position, channel) in channels.iter().enumerate() {
            if let Some(listener) = &channel.listener {
                ports.entry(listener.port).or_default().push(position);
            }
        }
        Self(ports)
    }
}

/// What was seen of an engine, as far as the decision needs it.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// How the gateway gets on with the engine.
    pub state: EngineState,
    /// How long ago its channels were seen like this; none: never.
    pub age: Option<Duration>,
    /// Its channels, in the order of their ids.
    pub channels: &'a [EngineChannel],
    /// Their ports.
    pub ports: &'a PortBook,
    /// Channels beyond the limit, of which nothing is known.
    pub left_out: usize,
    /// There will be no newer look in time: what this one says is decided on.
    pub is_last: bool,
}

/// What becomes of a stream for a registered channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing speaks against it.
    GoOn,
    /// The engine is looked at again before it is refused.
    LookAgain,
    /// It would not reach the channel it is for.
    Refuse(NotOurs),
}

/// Why what listens on a registered channel's port is not that channel. The text is for our own side: it has internal names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOurs {
    /// What the engine says of the registered channel.
    pub ours: OurChannel,
    /// The port.
    pub port: u16,
    /// The channel that is started on it instead.
    pub other: Option<String>,
}

/// What the engine says of a registered channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OurChannel {
    /// There is none of this id any more.
    Gone {
        /// The engine's id.
        id: String,
    },
    /// Its port is closed.
    NotStarted {
        /// Name.
        name: String,
        /// State.
        state: EngineChannelState,
    },
    /// It connects out now.
    ListensNowhere {
        /// Name.
        name: String,
    },
    /// It may be open, but another one is started on its port.
    InDoubt {
        /// Name; the engine's id, if it is not among those that are looked at.
        name: String,
    },
}

/// How surely the registered channel is the one behind its address.
enum Hold {
    Surely(OurChannel),
    Perhaps(OurChannel),
    No(OurChannel),
}

impl Look<'_> {
    /// Whether a stream for the engine's channel `id` may go to `address`.
    pub fn decide(&self, id: &str, address: SocketAddr) -> Decision {
        let fault = if self.state == EngineState::Up {
            self.fault(id, address)
        } else if self.age.is_some_and(|age| age < REMEMBERED) {
            self.taken(id, address)
        } else {
            None
        };
        match fault {
            None => Decision::GoOn,
            Some(_) if !self.is_last => Decision::LookAgain,
            Some(not_ours) => Decision::Refuse(not_ours),
        }
    }

    fn fault(&self, id: &str, address: SocketAddr) -> Option<NotOurs> {
        let not_ours =
            |ours, other: Option<&EngineChannel>| NotOurs { ours, port: address.port(), other: other.map(name_of) };
        match self.hold(id, address) {
            // Two that surely listen at one address cannot be: which of them answers is not known.
            Hold::Surely(ours) => {
                let other = self.others(id, address).find(|other| listens_surely(other, address));
                other.map(|other| not_ours(ours, Some(other)))
            }
            Hold::Perhaps(ours) => self.others(id, address).next().map(|other| not_ours(ours, Some(other))),
            Hold::No(ours) => Some(not_ours(ours, self.others(id, address).next())),
        }
    }

    /// Only that another channel surely listens there.
    fn taken(&self, id: &str, address: SocketAddr) -> Option<NotOurs> {
        let other = self.others(id, address).find(|other| listens_surely(other, address))?;
        let (Hold::Surely(ours) | Hold::Perhaps(ours) | Hold::No(ours)) = self.hold(id, address);
        Some(NotOurs { ours, port: address.port(), other: Some(name_of(other)) })
    }

    fn hold(&self, id: &str, address: SocketAddr) -> Hold {
        let Some(channel) = self.find(id) else {
            let id = clean(id);
            // One of those that are not looked at, perhaps.
            return if self.left_out > 0 {
                Hold::Perhaps(OurChannel::InDoubt { name: id })
            } else {
                Hold::No(OurChannel::Gone { id })
            };
        };
        let (name, state) = (channel.name.clone(), channel.state);
        match state {
            EngineChannelState::Stopped | EngineChannelState::Paused | EngineChannelState::Undeployed => {
                Hold::No(OurChannel::NotStarted { name, state })
            }
            EngineChannelState::Started if listens_surely(channel, address) => {
                Hold::Surely(OurChannel::InDoubt { name })
            }
            // What runs may still listen while changes wait for their deployment.
            EngineChannelState::Started
                if !channel.undeployed_changes
                    && channel.listener.as_ref().is_some_and(EngineListener::connects_out) =>
            {
                Hold::No(OurChannel::ListensNowhere { name })
            }
            EngineChannelState::Started | EngineChannelState::Changing => Hold::Perhaps(OurChannel::InDoubt { name }),
        }
    }

    fn find(&self, id: &str) -> Option<&EngineChannel> {
        let position = self.channels.binary_search_by(|channel| channel.id.as_str().cmp(id)).ok()?;
        self.channels.get(position)
    }

    /// Other channels that may be what answers at the address.
    fn others(&self, id: &str, address: SocketAddr) -> impl Iterator<Item = &EngineChannel> {
        let positions = self.ports.0.get(&address.port()).into_iter().flatten();
        let channels = positions.filter_map(|position| self.channels.get(*position));
        channels.filter(move |other| other.id != id && may_answer(other, address))
    }
}

fn name_of(channel: &EngineChannel) -> String {
    channel.name.clone()
}

/// It is started, and what is stored of it is what runs.
fn listens_surely(channel: &EngineChannel, address: SocketAddr) -> bool {
    !channel.undeployed_changes && channel.exposed().is_some_and(|listener| listener.address == Some(address))
}

/// It is open or about to be, at this address or at one that is not known: its host is a name, or its details were not read.
fn may_answer(channel: &EngineChannel, address: SocketAddr) -> bool {
    let is_open = matches!(channel.state, EngineChannelState::Started | EngineChannelState::Changing);
    let fits = |listener: &EngineListener| {
        !listener.connects_out() && listener.address.is_none_or(|elsewhere| elsewhere == address)
    };
    is_open && channel.listener.as_ref().is_some_and(fits)
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ours, port, other } = self;
        match ours {
            OurChannel::Gone { id } => write!(
                f,
                "the engine has no channel with the id {id} any more; if another one took its place, bind the endpoint \
                 to that: gateway-ctl channel update --engine-channel"
            )?,
            OurChannel::NotStarted { name, state } => write!(f, "our channel '{name}' is {state} in the engine")?,
            OurChannel::ListensNowhere { name } => {
                write!(f, "our channel '{name}' connects out in the engine now and listens nowhere")?;
            }
            OurChannel::InDoubt { name } => write!(f, "our channel '{name}' may not be the one on its port")?,
        }
        match other {
            Some(other) => write!(f, "; the port {port} belongs to the channel '{other}' in the engine"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
