//! The gateways: each gets exactly what the model allows, and nothing else in between.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use gateway_proto::{
    api::{
        gateway::{WatchEvent, WatchRequest},
        platform::Server,
    },
    identity::GatewayPublicKey,
    policy::{Activation, ConnectionEntry, ConnectionKind, ConnectionSecret, LocalEnd, Policy, Secret},
    signed::Envelope,
};

use super::{
    super::{
        harness::Watch,
        model::{Entries, Entry, Limits, Local, Role},
    },
    Case, LOOKS,
};

/// Longer than a policy takes to come.
const LIMIT: Duration = Duration::from_secs(20);
/// Watches of which nothing changes are kept this often: well within the time that a gateway may be silent, and within the messages
/// that it may send.
const BEAT: Duration = Duration::from_secs(3);

/// A server with its gateway, as long as there is one.
#[derive(Default)]
pub(super) struct Place {
    key: Option<GatewayPublicKey>,
    watch: Option<Watch>,
    /// When it was last said that it lives.
    beat_at: Option<Instant>,
    /// What its newest policy said.
    held: Entries,
}

/// What policies may say now, and what the last one of them has to.
struct Wanted<'a> {
    allowed: [&'a Entries; 3],
    last: &'a Entries,
    /// The connections the gateway refuses.
    refuses: BTreeSet<usize>,
    /// The policy to wait for, whatever was held before; 0: none.
    revision: u64,
}

/// What the ids and keys in a policy stand for.
#[derive(Clone, Copy)]
struct Names<'a> {
    connections: &'a [String],
    servers: &'a [String],
    keys: &'a [Option<GatewayPublicKey>],
    /// Of each connection, in the order in which policies named them first.
    secrets: &'a RefCell<BTreeMap<usize, Vec<Secret>>>,
    /// The time of the model, whatever a clock says meanwhile.
    now: u64,
}

impl Names<'_> {
    /// How often the secret of a connection was replaced before this one; one that nobody has seen is the next.
    fn age(&self, connection: usize, secret: &Secret) -> usize {
        let mut all = self.secrets.borrow_mut();
        let known = all.entry(connection).or_default();
        if let Some(age) = known.iter().position(|known| known == secret) {
            return age;
        }
        known.push(secret.clone());
        known.len() - 1
    }
}

/// The ones that count at a moment; gateways look at the time by themselves, to the second.
fn counting(secrets: &[(usize, Option<u64>)], at: u64) -> impl Iterator<Item = usize> {
    secrets.iter().filter(move |(_, until)| until.is_none_or(|end| at < end)).map(|(age, _)| *age)
}

impl Place {
    pub(super) fn watched(key: GatewayPublicKey, watch: Watch) -> Self {
        Self { key: Some(key), watch: Some(watch), ..Self::default() }
    }

    /// Its server was removed: its gateway is told to keep nothing open.
    pub(super) async fn removed(&mut self) -> Result<(), String> {
        // Its key stays: older policies of others name it.
        let Some(mut watch) = self.watch.take() else { return Ok(()) };
        let told = async {
            loop {
                match watch.event().await {
                    Some(WatchEvent::Removed) => return Ok(()),
                    Some(_) => {}
                    None => return Err("a removed gateway was told nothing".to_owned()),
                }
            }
        };
        tokio::time::timeout(LIMIT, told).await.map_err(|_| "a removed gateway still watches".to_owned())?
    }

    /// Says that it lives, when it is time: nothing may be waited for here for longer than a gateway may be silent.
    async fn beat(&mut self) {
        let Some(watch) = self.watch.as_mut() else { return };
        if self.beat_at.is_none_or(|at| at.elapsed() >= BEAT) {
            watch.send(&WatchRequest::Heartbeat).await;
            self.beat_at = Some(Instant::now());
        }
    }

    /// Takes policies, as a gateway would, until one says what the last one has to.
    async fn follow(&mut self, wanted: Wanted<'_>, names: Names<'_>) -> Result<(), String> {
        self.beat().await;
        let Some(watch) = self.watch.as_mut() else { return Ok(()) };
        // Gateways cut by themselves, to the second: what is over is not held, whenever a policy says so.
        self.held.retain(|_, entry| entry.expires_at.is_none_or(|end| names.now < end));
        for entry in self.held.values_mut() {
            entry.secrets.retain(|(_, until)| until.is_none_or(|end| names.now < end));
        }
        let mut refused = wanted.refuses.is_empty();
        while !refused || self.held != *wanted.last || watch.store.revision() < wanted.revision {
            let policy = match tokio::time::timeout(LIMIT, next(watch)).await {
                Ok(policy) => policy?,
                Err(_) => return Err(format!("it stays at {:?}, the model allows {:?}", self.held, wanted.last)),
            };
            let entries = read(&policy, names)?;
            let is_allowed = |key: &(usize, bool), entry: &Entry| {
                wanted.allowed.iter().any(|allowed| allowed.get(key).is_some_and(|allowed| allowed == entry))
            };
            if let Some(entry) = entries.iter().find(|(key, entry)| !is_allowed(key, entry)) {
                return Err(format!("a gateway holds {entry:?}, the model allows {:?}", wanted.last));
            }
            let refuses = entries.keys().any(|(n, _)| wanted.refuses.contains(n));
            refused |= refuses;
            let revision = policy.revision;
            let answer = if refuses {
                WatchRequest::Rejected { revision, reason: "a test refuses it".to_owned(), in_force: false }
            } else {
                WatchRequest::Applied { revision }
            };
            watch.send(&answer).await;
            self.held = entries;
        }
        Ok(())
    }
}

/// The next policy; the store refuses a revision that goes back.
async fn next(watch: &mut Watch) -> Result<Policy, String> {
    loop {
        match watch.event().await {
            Some(WatchEvent::Policy { policy }) => return take(watch, policy),
            Some(WatchEvent::Delta { delta }) => {
                let policy = watch.changed_by(&delta);
                return take(watch, policy);
            }
            Some(WatchEvent::Heartbeat { .. }) => watch.send(&WatchRequest::Heartbeat).await,
            Some(
                WatchEvent::Succession { .. }
                | WatchEvent::RelayToken { .. }
                | WatchEvent::AuditHead { .. }
                | WatchEvent::RunsTwice(_),
            ) => {}
            Some(WatchEvent::Removed) => return Err("a gateway was told that it was removed".to_owned()),
            None => return Err("a watch was closed".to_owned()),
        }
    }
}

fn take(watch: &mut Watch, envelope: Envelope) -> Result<Policy, String> {
    let is_new = watch.store.accept(&envelope).map_err(|error| error.to_string())?;
    watch.base = Some(envelope);
    let policy = watch.store.current().filter(|_| is_new).cloned();
    policy.ok_or_else(|| "the same policy came twice".to_owned())
}

/// What a policy says of connections whose time is not over: gateways cut those by themselves, to the second.
fn read(policy: &Policy, names: Names<'_>) -> Result<Entries, String> {
    let mut entries = Entries::new();
    for shown in &policy.connections {
        let id = shown.id.to_string();
        let number = names.connections.iter().position(|known| *known == id);
        let number = number.ok_or_else(|| format!("an unknown connection {id}"))?;
        if shown.expires_at.is_some_and(|end| names.now >= end) {
            continue;
        }
        let counts = |shown: &&ConnectionSecret| shown.until.is_none_or(|end| names.now < end);
        let shown_secrets = shown.secrets.iter().filter(counts);
        let secrets = shown_secrets.map(|shown| (names.age(number, &shown.secret), shown.until)).collect();
        if entries.insert((number, shown.local.opens_streams()), entry(shown, secrets, names)?).is_some() {
            return Err(format!("{id} is there twice"));
        }
    }
    for peer in &policy.peers {
        let number = names.keys.iter().position(|key| *key == Some(peer.key));
        let is_named = number.is_some_and(|n| names.servers[n] == peer.server.id.to_string());
        if !is_named || !policy.connections.iter().any(|entry| entry.peer == peer.key) {
            return Err(format!("a peer that it has nothing to do with: {:?}", peer.server));
        }
    }
    Ok(entries)
}

/// One entry in the words of the model; every field of it is looked at.
fn entry(shown: &ConnectionEntry, secrets: Vec<(usize, Option<u64>)>, names: Names<'_>) -> Result<Entry, String> {
    let ConnectionEntry {
        id,
        kind,
        activation,
        peer,
        local,
        endpoint,
        behavior,
        admin,
        people,
        secrets: _,
        expires_at,
        staleness_secs,
        max_streams,
        limits,
        require_post_quantum,
    } = shown;
    if !admin.is_plain() || !people.is_empty() {
        return Err(format!("{id} has options that nobody asked for: {admin:?}, {people:?}"));
    }
    let peer = names.keys.iter().position(|key| *key == Some(*peer));
    Ok(Entry {
        kind: match kind {
            ConnectionKind::P2p => "p2p",
            ConnectionKind::AdminReadOnly => "admin_read_only",
            ConnectionKind::AdminReadWrite => "admin_read_write",
        },
        activation: match activation {
            Activation::Ready => "ready",
            Activation::Active => "active",
            Activation::Paused => "paused",
            Activation::Suspended => "suspended",
        },
        peer: peer.ok_or_else(|| format!("{id} has a peer that is nobody's"))?,
        local: match local {
            LocalEnd::Sender { port: 0 } => Local::Sender,
            LocalEnd::Listener { engine, engine_channel: None } => Local::Listener(engine.to_string()),
            LocalEnd::AdminUser { port: 0 } => Local::AdminUser,
            LocalEnd::AdminOwner => Local::AdminOwner,
            LocalEnd::Sender { .. } | LocalEnd::Listener { .. } | LocalEnd::AdminUser { .. } => {
                return Err(format!("{id} has an end that nobody asked for: {local:?}"));
            }
        },
        endpoint: endpoint.clone(),
        behavior: behavior.clone(),
        limits: Limits {
            max_streams: *max_streams,
            beside: *limits,
            staleness_secs: *staleness_secs,
            post_quantum: *require_post_quantum,
        },
        secrets,
        expires_at: *expires_at,
    })
}

impl Case<'_> {
    /// No gateway is silent for long, whatever is computed meanwhile.
    pub(super) async fn beat(&mut self) {
        for place in &mut self.places {
            place.beat().await;
        }
    }

    /// What the model allows each gateway.
    pub(super) fn entries(&self) -> Vec<Entries> {
        (0..self.places.len()).map(|server| self.model.policy(server)).collect()
    }

    /// A server whose gateway watches.
    pub(super) fn watched(&self, n: usize) -> Option<usize> {
        let watched: Vec<_> = (0..self.places.len()).filter(|server| self.places[*server].watch.is_some()).collect();
        n.checked_rem(watched.len()).map(|n| watched[n])
    }

    /// Lets the gateways follow what was done, and the model what follows from their answers. `before`: what they were
    /// allowed until then.
    pub(super) async fn settle(&mut self, mut before: Vec<Entries>) -> Result<(), String> {
        before.resize_with(self.places.len(), Entries::new);
        let first = self.entries();
        let known: BTreeSet<usize> =
            self.refusing.iter().flat_map(|server| before[*server].keys().map(|(n, _)| *n)).collect();
        let failed = self.model.settle(self.refusing.map(|server| (server, &known)));
        let last = self.entries();
        let held: Vec<_> = self.places.iter().map(|place| place.held.clone()).collect();
        let refusing = if failed.is_empty() { None } else { self.refusing.take() };
        self.follow([&before, &first, &last], (refusing, failed.as_slice())).await?;
        // Whoever is at the other end of what failed may have seen it or not: nobody is behind afterwards.
        for server in (0..self.places.len()).filter(|_| refusing.is_some()) {
            self.catch_up(server, [&before, &first, &last]).await?;
        }
        let at_once = self.at_once.take();
        self.secrets_agree(&held, at_once)
    }

    async fn follow(
        &mut self,
        [before, first, last]: [&[Entries]; 3],
        (refusing, failed): (Option<usize>, &[usize]),
    ) -> Result<(), String> {
        let keys: Vec<_> = self.places.iter().map(|place| place.key).collect();
        let names = Names {
            connections: &self.ids.connections,
            servers: &self.ids.servers,
            keys: &keys,
            secrets: &self.secrets,
            now: self.model.now,
        };
        // All at once: what one gateway confirms is what another waits for.
        try_join_all(self.places.iter_mut().enumerate().map(|(n, place)| {
            let refuses = failed.iter().copied().filter(|_| refusing == Some(n)).collect();
            let allowed = [&before[n], &first[n], &last[n]];
            place.follow(Wanted { allowed, last: &last[n], refuses, revision: 0 }, names)
        }))
        .await?;
        Ok(())
    }

    /// Takes the policies of a gateway up to the newest there is.
    async fn catch_up(&mut self, n: usize, [before, first, last]: [&[Entries]; 3]) -> Result<(), String> {
        if self.places[n].watch.is_none() {
            return Ok(());
        }
        let server = self.server(n).await;
        let keys: Vec<_> = self.places.iter().map(|place| place.key).collect();
        let names = Names {
            connections: &self.ids.connections,
            servers: &self.ids.servers,
            keys: &keys,
            secrets: &self.secrets,
            now: self.model.now,
        };
        let allowed = [&before[n], &first[n], &last[n]];
        let (refuses, revision) = (BTreeSet::new(), server.policy_revision);
        self.places[n].follow(Wanted { allowed, last: &last[n], refuses, revision }, names).await
    }

    /// Waits until the gateway that is going to refuse has confirmed all that was before: what it refuses is what is new.
    pub(super) async fn confirm(&mut self) -> Result<(), String> {
        let Some(refusing) = self.refusing else { return Ok(()) };
        let allowed = self.entries();
        for _ in 0..LOOKS {
            self.catch_up(refusing, [&allowed, &allowed, &allowed]).await?;
            let server = self.server(refusing).await;
            if server.applied_revision >= server.policy_revision {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("what a gateway confirmed was never written down".to_owned())
    }

    async fn server(&mut self, n: usize) -> Server {
        let own = self.model.servers[n].owner;
        let (owner, _) = self.parties[own].user(Role::Owner, &mut self.people).await;
        owner.get(&format!("/servers/{}", self.ids.servers[n])).await
    }

    /// What the sender opens streams with, the listener takes: at every moment from now on, and while the two policies came apart
    /// from each other. `before`: what the gateways held until then; `at_once`: the connection of which that was not asked.
    fn secrets_agree(&self, before: &[Entries], at_once: Option<usize>) -> Result<(), String> {
        let now = self.model.now;
        for (n, connection) in self.model.connections.iter().enumerate().filter(|(_, row)| !row.is_over()) {
            let Some(sender) = connection.sender else { continue };
            let (opens, takes) = ((n, true), (n, false));
            let (sends, listens) = (&self.places[sender].held, &self.places[connection.listener].held);
            let (Some(sends), Some(listens)) = (sends.get(&opens), listens.get(&takes)) else { continue };
            let ends = sends.secrets.iter().chain(&listens.secrets).filter_map(|(_, until)| *until);
            for at in ends.flat_map(|end| [end - 1, end]).chain([now]) {
                agree(n, sends, listens, at)?;
            }
            if at_once == Some(n) {
                continue;
            }
            if let Some(old) = before.get(connection.listener).and_then(|held| held.get(&takes)) {
                agree(n, sends, old, now)?;
            }
            if let Some(old) = before.get(sender).and_then(|held| held.get(&opens)) {
                agree(n, old, listens, now)?;
            }
        }
        let secrets = self.secrets.borrow();
        let all: Vec<_> = secrets.values().flatten().map(Secret::expose).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        if distinct.len() == all.len() { Ok(()) } else { Err("two connections have one secret".to_owned()) }
    }
}

/// Whether streams of a connection that its sender opens at a moment are taken.
fn agree(n: usize, sends: &Entry, listens: &Entry, at: u64) -> Result<(), String> {
    let opening = counting(&sends.secrets, at).next();
    if opening.is_some_and(|opening| counting(&listens.secrets, at).any(|taken| taken == opening)) {
        return Ok(());
    }
    Err(format!("at {at} connection {n} is opened with {:?}, and {:?} are taken", sends.secrets, listens.secrets))
}
