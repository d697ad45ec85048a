//! The channels of a stand-in engine: what is stored, what is deployed, and the sockets that really open and close.
//!
//! A stopped or paused channel ends the connections it holds with FIN and refuses new ones. What is stored takes effect
//! at the next deployment, as in the engine.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    definition::{ChannelDefinition, ChannelState, EngineDefinition},
    destination::Destination,
    listeners,
};
use crate::{
    held_port::HeldPort,
    mllp::{Engine, Manners},
    platform::Placement,
};

/// The channels. One owner at a time: operations follow each other, as in the engine.
#[derive(Debug)]
pub struct Channels {
    /// What is stored.
    pub definition: EngineDefinition,
    file: Option<PathBuf>,
    deployed: BTreeMap<String, Deployed>,
    /// The ports that were chosen here.
    ports: Vec<HeldPort>,
    next_message: u64,
}

/// A deployed channel.
#[derive(Debug)]
pub struct Deployed {
    /// As it was when it was deployed.
    pub definition: ChannelDefinition,
    /// When, Unix milliseconds.
    pub at: u64,
    /// State.
    pub state: ChannelState,
    /// TCP destinations.
    pub destinations: Vec<Destination>,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    /// The source has no port of its own, or is in client mode.
    None,
    /// A TCP Listener; kept while it is closed, with all it received.
    Mllp(Engine),
    /// HTTP, Web Service, DICOM: the tasks of an open port.
    Other(JoinSet<()>),
}

impl Channels {
    /// The channels of a definition, kept in `file` from now on. Ports that are 0 become free ones.
    pub fn new(mut definition: EngineDefinition, file: Option<PathBuf>) -> anyhow::Result<Self> {
        let ports = choose_ports(&mut definition)?;
        let channels = Self { definition, file, deployed: BTreeMap::new(), ports, next_message: 0 };
        channels.save()?;
        Ok(channels)
    }

    /// Keeps the definition.
    pub fn save(&self) -> anyhow::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        std::fs::write(file, serde_json::to_vec_pretty(&self.definition)?).context("cannot keep the engine's channels")
    }

    /// Boots: everything that is enabled and deployed comes into its initial state.
    pub async fn boot(&mut self) -> anyhow::Result<()> {
        let in_service = self.definition.channels.iter().filter(|channel| channel.enabled && channel.deployed);
        for id in in_service.map(|channel| channel.id.clone()).collect::<Vec<_>>() {
            self.deploy(&id).await?;
        }
        Ok(())
    }

    /// Shuts down: every port closes, every connection ends with FIN. Queued messages stay.
    pub async fn halt(&mut self) {
        for deployed in self.deployed.values_mut() {
            deployed.close().await;
        }
    }

    /// A deployed channel.
    pub fn deployed(&self, id: &str) -> Option<&Deployed> {
        self.deployed.get(id)
    }

    /// Stores a channel with a higher revision. It takes effect at its next deployment.
    pub fn store(&mut self, mut channel: ChannelDefinition) -> anyhow::Result<()> {
        self.ports.extend(choose_port(&mut channel)?);
        match self.definition.channels.iter_mut().find(|stored| stored.id == channel.id) {
            Some(stored) => {
                channel.revision = stored.revision + 1;
                *stored = channel;
            }
            None => self.definition.channels.push(channel),
        }
        self.save()
    }

    /// Deploys what is stored.
    pub async fn deploy(&mut self, id: &str) -> anyhow::Result<()> {
        let definition = self.definition.channel(id).with_context(|| format!("there is no channel {id}"))?.clone();
        let before = self.deployed.remove(id);
        let mut deployed = Deployed::new(definition, &self.definition, before).await;
        let opened = match deployed.definition.initial_state {
            ChannelState::Started => deployed.open(&self.definition).await,
            ChannelState::Paused | ChannelState::Stopped => Ok(()),
        };
        let state = deployed.definition.initial_state;
        deployed.state = if opened.is_ok() { state } else { ChannelState::Stopped };
        self.deployed.insert(id.into(), deployed);
        self.set_deployed(id, true)?;
        opened
    }

    /// Takes a channel out of service; it stays stored.
    pub async fn undeploy(&mut self, id: &str) -> anyhow::Result<()> {
        if let Some(mut deployed) = self.deployed.remove(id) {
            deployed.close().await;
        }
        self.set_deployed(id, false)
    }

    /// Removes a channel.
    pub async fn remove(&mut self, id: &str) -> anyhow::Result<()> {
        self.undeploy(id).await?;
        self.definition.channels.retain(|channel| channel.id != id);
        self.save()
    }

    /// Starts, stops, pauses or resumes a deployed channel; others are not there for it.
    pub async fn set_state(&mut self, id: &str, state: ChannelState) -> anyhow::Result<()> {
        let Some(deployed) = self.deployed.get_mut(id) else { return Ok(()) };
        deployed.close().await;
        deployed.state = state;
        match state {
            ChannelState::Started => deployed.open(&self.definition).await,
            ChannelState::Paused => {
                deployed.start_destinations();
                Ok(())
            }
            ChannelState::Stopped => Ok(()),
        }
    }

    /// Gives a message to a channel, as `POST /channels/{id}/messages` does; a stopped channel is an error.
    pub fn process(&mut self, id: &str, message: &[u8]) -> anyhow::Result<u64> {
        let deployed = self.deployed.get(id).filter(|deployed| deployed.state != ChannelState::Stopped);
        let deployed = deployed.with_context(|| format!("channel {id} is not started"))?;
        self.next_message += 1;
        for destination in &deployed.destinations {
            destination.process(self.next_message, message);
        }
        Ok(self.next_message)
    }

    fn set_deployed(&mut self, id: &str, is_deployed: bool) -> anyhow::Result<()> {
        for channel in self.definition.channels.iter_mut().filter(|channel| channel.id == id) {
            channel.deployed = is_deployed;
        }
        self.save()
    }
}

impl Deployed {
    async fn new(definition: ChannelDefinition, engine: &EngineDefinition, before: Option<Self>) -> Self {
        let (mut kept, mut listener) = (Vec::new(), Listener::None);
        if let Some(mut before) = before {
            before.close().await;
            kept = before.destinations;
            // The same port again: what it received so far is still there to be looked at.
            if before.definition.source == definition.source {
                listener = before.listener;
            }
        }
        let tcp = definition
            .destinations
            .iter()
            .enumerate()
            .filter(|(_, destination)| destination.enabled && destination.transport == "TCP Sender");
        let destinations = tcp
            .map(|(index, destination)| {
                let outcomes =
                    kept.iter().find(|kept| kept.meta_data_id == index + 1).map(|kept| kept.outcomes.clone());
                let port = engine.resolve(&destination.port).unwrap_or(0);
                Destination::new(index + 1, destination.clone(), port, outcomes.unwrap_or_else(Arc::default))
            })
            .collect();
        Self { definition, at: unix_ms(), state: ChannelState::Stopped, destinations, listener }
    }

    /// Messages the source received, and queued messages and errors of the destinations.
    pub fn statistics(&self) -> [u64; 4] {
        let received = self.source().map_or(0, |engine| engine.count() as u64);
        self.destinations.iter().fold([received, 0, 0, 0], |[received, sent, errors, queued], destination| {
            let counts = destination.outcomes.counts();
            [received.max(counts.iter().sum()), sent + counts[0], errors + counts[1], queued + counts[2]]
        })
    }

    /// The TCP Listener of the source.
    pub fn source(&self) -> Option<&Engine> {
        match &self.listener {
            Listener::Mllp(engine) => Some(engine),
            Listener::None | Listener::Other(_) => None,
        }
    }

    async fn open(&mut self, engine: &EngineDefinition) -> anyhow::Result<()> {
        let source = &self.definition.source;
        if source.is_listener() && source.server_mode {
            let port = engine.resolve(&source.port).with_context(|| format!("'{}' is no port", source.port))?;
            self.listener = match (source.transport.as_str(), std::mem::replace(&mut self.listener, Listener::None)) {
                ("TCP Listener", Listener::Mllp(mut listener)) => {
                    listener.resume()?;
                    Listener::Mllp(listener)
                }
                ("TCP Listener", Listener::None | Listener::Other(_)) => Listener::Mllp(Engine::listen_at(
                    &Placement::loopback(),
                    port,
                    source.max_connections,
                    Manners::Polite,
                )?),
                (transport, _) => {
                    let mut tasks = JoinSet::new();
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
                    if transport == "DICOM Listener" {
                        tasks.spawn(listeners::serve_dicom(listener));
                    } else {
                        tasks.spawn(listeners::serve_http(listener, source.context_path.clone()));
                    }
                    Listener::Other(tasks)
                }
            };
        }
        self.start_destinations();
        Ok(())
    }

    fn start_destinations(&mut self) {
        self.destinations.iter_mut().for_each(Destination::start);
    }

    async fn close(&mut self) {
        match &mut self.listener {
            Listener::None => {}
            Listener::Mllp(engine) => engine.close().await,
            Listener::Other(tasks) => tasks.shutdown().await,
        }
        for destination in &mut self.destinations {
            destination.stop().await;
        }
    }
}

/// Puts a free port wherever a channel has none; they stay the engine's as long as they are held.
pub(super) fn choose_ports(definition: &mut EngineDefinition) -> anyhow::Result<Vec<HeldPort>> {
    let chosen = definition.channels.iter_mut().map(choose_port);
    chosen.filter_map(Result::transpose).collect()
}

fn choose_port(channel: &mut ChannelDefinition) -> anyhow::Result<Option<HeldPort>> {
    if !channel.source.is_listener() || channel.source.port != "0" {
        return Ok(None);
    }
    let held = HeldPort::loopback(0)?;
    channel.source.port = held.port().to_string();
    Ok(Some(held))
}

/// The clock in answers.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
