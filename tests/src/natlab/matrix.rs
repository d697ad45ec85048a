//! All pairs of networks: a calling site and a listening site of every kind, set up once, and a connection for each pair.
//!
//! A pair is a new connection between two gateways that never met, so nothing of an earlier pair helps it. It ends when
//! both gateways show the path that the oracle expects (or the limit is over), and is then terminated.
//!
//! The side that calls dials the tunnel too, and its offer wins when two cross: its key is the smaller one, as is seen to
//! when the sites are set up. So (one kind, another) and (the other, the one) are both orders of everything.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use gateway_proto::api::{
    gateway::{Connectivity, PathKind},
    local::{ConnectionStatus, PeerStatus, Status},
};

use super::{NatLab, Outcome, RouterKind, Rung, Way};
use crate::{
    corpus::Corpus,
    mllp::{Engine, Manners, Sender, Verdict},
    platform::{GatewayOptions, POLICY_LIMIT, Platform, PlatformOptions, Site},
    wait,
};

/// The wire of every site and of every relay, one way: a round trip between any two of them takes 50 ms.
pub const NETWORK: &str = "delay=12.5ms";

/// A pair that can be direct is within this time, or it is not.
const DIRECT_LIMIT: Duration = Duration::from_secs(20);
/// A pair that cannot be direct is watched for this long: its first attempts to punch fall into it.
const WATCH: Duration = Duration::from_millis(2500);
/// The first message is answered within this time, or the pair does not connect at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Sites that are set up at a time.
const SETTING_UP: usize = 4;
/// Messages that follow the first over the path reached.
const FOLLOWING: usize = 5;

/// A platform with a calling and a listening site of every wanted kind.
#[derive(Debug)]
pub struct Matrix {
    callers: Vec<(RouterKind, Site)>,
    listeners: Vec<(RouterKind, Site)>,
    agreement: String,
    guessing: bool,
    platform: Platform,
    /// After the processes that run in it.
    lab: NatLab,
}

impl Matrix {
    /// Starts control plane, relays and a gateway for each kind on each side, all on a network of [`NETWORK`], and enrols them.
    pub async fn start(callers: &[RouterKind], listeners: &[RouterKind]) -> anyhow::Result<Self> {
        Self::set_up(callers, listeners, false).await
    }

    /// The same with port guessing allowed on both sides.
    pub async fn start_guessing(callers: &[RouterKind], listeners: &[RouterKind]) -> anyhow::Result<Self> {
        Self::set_up(callers, listeners, true).await
    }

    async fn set_up(callers: &[RouterKind], listeners: &[RouterKind], guessing: bool) -> anyhow::Result<Self> {
        let mut lab = NatLab::start_with_relays_behind([NETWORK; 2])?;
        let add = |kind: &RouterKind| lab.add_site_on_a_bad_wire(*kind, NETWORK);
        let numbers = callers.iter().chain(listeners).map(add).collect::<Result<Vec<_>, _>>()?;
        let [relay, second] = lab.relays();
        let options = PlatformOptions {
            control: lab.control(),
            relay,
            more_relays: vec![second],
            log_filter: "info,gatewayd=debug".into(),
            ..PlatformOptions::default()
        };
        let platform = Platform::start_with(options).await?;
        platform.add_relays().await?;
        for profile in ["north", "south"] {
            platform.create_organization(profile, &format!("Organization {profile}")).await?;
        }
        let wanted = callers.iter().map(|kind| ("north", kind)).chain(listeners.iter().map(|kind| ("south", kind)));
        let mut sites: Vec<(RouterKind, Site)> = stream::iter(wanted.zip(numbers))
            .map(async |((profile, kind), number)| {
                let name = format!("{profile}-{kind}");
                let place = lab.site(number);
                let dials = Some(profile == "north");
                let options = GatewayOptions { port_guessing: guessing, dials, ..lab.options(number) };
                let site = platform.server_with(profile, &name, place, &options).await;
                anyhow::Ok((*kind, site.with_context(|| format!("{name} cannot be set up"))?))
            })
            .buffered(SETTING_UP)
            .try_collect()
            .await
            .map_err(|error| anyhow::anyhow!("{error:#}\n{}", platform.log_tails()))?;
        let listeners = sites.split_off(callers.len());
        let (Some((_, caller)), Some((_, listener))) = (sites.first(), listeners.first()) else {
            anyhow::bail!("a matrix needs a kind on each side")
        };
        let agreement = platform.peer(caller, listener).await?;
        callers_dial(&sites, &listeners).await?;
        Ok(Self { callers: sites, listeners, agreement, guessing, platform, lab })
    }

    /// Plays pairs, so many at a time, no site in two at once; `tell` gets each outcome as it is known.
    pub async fn play(
        &self,
        pairs: &[(RouterKind, RouterKind)],
        at_a_time: usize,
        mut tell: impl FnMut(&Outcome),
    ) -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for round in rounds(pairs, at_a_time) {
            let played: Vec<_> =
                futures_util::future::join_all(round.iter().map(|(caller, listener)| self.pair(*caller, *listener)))
                    .await;
            for outcome in played {
                let outcome = outcome?;
                tell(&outcome);
                outcomes.push(outcome);
            }
        }
        Ok(outcomes)
    }

    /// The gateways' logs that hold a word of trouble, for a failure report.
    pub fn trouble(&self) -> String {
        let sites = self.callers.iter().chain(&self.listeners).map(|(_, site)| &site.gateway);
        let bad = |line: &&str| line.contains(" ERROR ") || line.contains("panicked at");
        sites
            .flat_map(|gateway| {
                let log = gateway.log();
                log.lines().filter(bad).map(|line| format!("{}: {line}\n", gateway.name())).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The lab, for faults.
    pub fn lab(&self) -> &NatLab {
        &self.lab
    }

    async fn pair(&self, caller: RouterKind, listener: RouterKind) -> anyhow::Result<Outcome> {
        let (from, to) = (find(&self.callers, caller)?, find(&self.listeners, listener)?);
        let engine = Engine::start_at(to.placement(), Manners::Polite)?;
        let name = format!("from-{caller}-{}", engine.address().port());
        let grant = self.platform.offer(&self.agreement, to, &name, engine.address()).await?;
        let connection = self.platform.approve(&grant, from).await?;
        let expected = match self.guessing {
            true => caller.best_rung_guessing(listener),
            false => caller.best_rung(listener),
        };
        let mut outcome = Outcome {
            caller,
            listener,
            expected,
            expected_ways: caller.best_ways(listener, expected),
            reached: None,
            way: None,
            first_byte: Duration::ZERO,
            direct: None,
            reason: String::new(),
            problem: None,
        };
        if let Err(error) = exchange(from, to, &engine, &connection, &mut outcome).await {
            let logs = [from, to].map(|site| format!("{}:\n{}", site.name, site.gateway.log_tail(12))).concat();
            outcome.problem = Some(format!("{error:#}\n{logs}"));
        }
        self.platform.ctl.json(&["connection", "terminate", &connection, "--yes", "--profile", "north"]).await?;
        // A status proves every peer anew, and one that is going would be waited for.
        wait::until_true(POLICY_LIMIT, "both ends forget the pair", async || {
            let knows = |status: &Status, peer: &Site| status.peers.iter().any(|known| known.server == peer.name);
            Ok(!knows(&from.look().await?, to) && !knows(&to.look().await?, from))
        })
        .await?;
        Ok(outcome)
    }
}

/// Insists that every caller dials the tunnel with every listener: the gateway with the smaller key does.
async fn callers_dial(callers: &[(RouterKind, Site)], listeners: &[(RouterKind, Site)]) -> anyhow::Result<()> {
    let mut keys = [Vec::new(), Vec::new()];
    for (side, keys) in [callers, listeners].into_iter().zip(&mut keys) {
        for (_, site) in side {
            keys.push(site.look().await?.key);
        }
    }
    let (last, first) = (keys[0].iter().max(), keys[1].iter().min());
    ensure!(last < first, "a caller has a larger key than a listener: {last:?}, {first:?}");
    Ok(())
}

/// Pairs in rounds: in each at most so many, and every site once at most.
fn rounds(pairs: &[(RouterKind, RouterKind)], at_a_time: usize) -> Vec<Vec<(RouterKind, RouterKind)>> {
    let mut rounds: Vec<Vec<(RouterKind, RouterKind)>> = Vec::new();
    for pair in pairs {
        let fits = |round: &&mut Vec<(RouterKind, RouterKind)>| {
            round.len() < at_a_time && round.iter().all(|other| other.0 != pair.0 && other.1 != pair.1)
        };
        match rounds.iter_mut().find(fits) {
            Some(round) => round.push(*pair),
            None => rounds.push(vec![*pair]),
        }
    }
    rounds
}

fn find(sites: &[(RouterKind, Site)], kind: RouterKind) -> anyhow::Result<&Site> {
    let found = sites.iter().find(|(of, _)| *of == kind);
    Ok(&found.with_context(|| format!("no site of kind {kind} was set up"))?.1)
}

/// Sends through a new connection and watches how far up the ladder it gets.
async fn exchange(
    from: &Site,
    to: &Site,
    engine: &Engine,
    connection: &str,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let opened = wait::until(ANSWER_LIMIT, "the local port opens", async || {
        let (entry, _) = seen(&from.look().await?, connection);
        Ok(entry.and_then(|entry| entry.local_address))
    });
    let address = opened.await?.parse().context("local address")?;
    let mut corpus = Corpus::new("NL", u64::from(engine.address().port()));
    let mut sender = Sender::new(address, true).at(from.placement()).with_response_timeout(ANSWER_LIMIT);
    let begun = Instant::now();
    let mut tried = 0;
    // The gateway holds the engine's connection for 3 s at most and then resets it; an engine tries again.
    loop {
        tried += 1;
        let message = corpus.adt("A01");
        let verdict = sender.send(&message.bytes).await;
        if verdict == Verdict::Acknowledged {
            break;
        }
        ensure!(begun.elapsed() < ANSWER_LIMIT, "the first message was {verdict} {tried} times");
    }
    outcome.first_byte = begun.elapsed();
    outcome.reached = Some(Rung::Relayed);
    while begun.elapsed() < DIRECT_LIMIT {
        let (near_status, far_status) = (from.look().await?, to.look().await?);
        let (near, peer) = seen(&near_status, connection);
        let (far, _) = seen(&far_status, connection);
        outcome.reason = peer.as_ref().map(|peer| peer.path_reason_text.clone()).unwrap_or_default();
        let shows = |entry: &Option<ConnectionStatus>| {
            entry.as_ref().is_some_and(|entry| {
                entry.connectivity == Connectivity::Connected && entry.path == Some(PathKind::Direct)
            })
        };
        let is_direct = shows(&near) && shows(&far);
        outcome.reached = Some(if is_direct { Rung::Direct } else { Rung::Relayed });
        outcome.way = match is_direct {
            true => peer.and_then(|peer| Way::direct(&peer, to.placement().ip)),
            false => Some(Way::relayed(&near_status, &far_status)),
        };
        if is_direct {
            outcome.direct.get_or_insert_with(|| begun.elapsed());
        }
        // One that the oracle holds impossible is told as such; one that is to stay on the relay is watched for a while.
        let watched = is_direct || begun.elapsed() >= WATCH;
        let is_better = outcome.expected == Rung::Relayed && is_direct;
        if is_better || (watched && outcome.reached == Some(outcome.expected) && outcome.goes_as_expected()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..FOLLOWING {
        let message = corpus.adt("A08");
        let verdict = sender.send(&message.bytes).await;
        ensure!(verdict == Verdict::Acknowledged, "a later message was {verdict}");
        ensure!(engine.count_of(&message.control_id) == 1, "{} did not arrive once", message.control_id);
    }
    Ok(())
}

/// A connection in a status, and its peer.
fn seen(status: &Status, connection: &str) -> (Option<ConnectionStatus>, Option<PeerStatus>) {
    let entry = status.connections.iter().find(|entry| entry.id.to_string() == connection).cloned();
    let peer = entry.as_ref().and_then(|entry| status.peers.iter().find(|peer| peer.server == entry.peer_server));
    (entry.clone(), peer.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_site_is_in_two_pairs_of_a_round() {
        let all = RouterKind::ALL;
        let pairs: Vec<_> = all.iter().flat_map(|one| all.iter().map(|other| (*one, *other))).collect();
        let rounds = rounds(&pairs, 4);
        assert_eq!(rounds.iter().map(Vec::len).sum::<usize>(), all.len() * all.len());
        for round in rounds {
            assert!(round.len() <= 4);
            for (index, pair) in round.iter().enumerate() {
                assert!(round[..index].iter().all(|other| other.0 != pair.0 && other.1 != pair.1), "{round:?}");
            }
        }
    }
}
