//! A gateway whose network changes while data flows: another address, another uplink, another protocol, a sleep. No byte is
//! lost, nothing waits for long, and the new path is as fast as the old one.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    mllp::Verdict,
    natlab::{NatLab, RouterKind::Firewall},
    netns::Lab,
    scene::{Scene, play_between, play_in},
};

use crate::{LIMIT, STALL_LIMIT, limit_rate};

/// What flows before the change, while its pace is measured, and at least until the end.
const WARM_UP: u64 = 4 << 20;
const PACED: u64 = 4 << 20;
const DOCUMENT: usize = 30 << 20;
/// Within so long after the change the new path has carried, for a second, at least this share of the old one's pace: that of the
/// uplink, which a fresh connection would not exceed. A stall that is allowed leaves room for that second, and half a one to get
/// up to the pace in.
const FULL_SPEED: Duration = STALL_LIMIT.saturating_add(Duration::from_millis(1_500));
const SHARE: f64 = 0.8;

#[tokio::test]
async fn a_gateway_that_gets_another_address_in_mid_traffic_loses_no_byte() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    let site = lab.namespaces()[3].clone();
    limit_rate(&site, "eth0")?;
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        roam(scene, "another address on the same uplink", STALL_LIMIT, async || {
            ip(&["-n", &site, "addr", "flush", "dev", "eth0", "scope", "global"])?;
            ip(&["-n", &site, "addr", "add", "10.1.0.77/24", "dev", "eth0"])?;
            ip(&["-n", &site, "route", "add", "default", "via", "10.1.0.1"])
        })
        .await?;
        scene.on_path(PathKind::Direct).await
    })
    .await
}

#[tokio::test]
async fn a_gateway_that_switches_to_another_uplink_in_mid_traffic_loses_no_byte() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    let (public, site) = (lab.namespaces()[0].clone(), lab.namespaces()[3].clone());
    wire(&public, "to-a2", &site, "eth1")?;
    ip(&["-n", &public, "addr", "add", "198.18.0.1/24", "dev", "to-a2"])?;
    ip(&["-n", &site, "addr", "add", "198.18.0.2/24", "dev", "eth1"])?;
    limit_rate(&site, "eth0")?;
    limit_rate(&site, "eth1")?;
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        roam(scene, "another uplink", STALL_LIMIT, async || {
            ip(&["-n", &site, "link", "set", "eth0", "down"])?;
            ip(&["-n", &site, "route", "replace", "default", "via", "198.18.0.1"])
        })
        .await?;
        scene.on_path(PathKind::Direct).await?;
        let remote = remote_of(&scene.south.look().await?)?;
        ensure!(remote.ip().to_string() == "198.18.0.2", "the partner reaches it at {remote}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_gateway_that_loses_ipv4_and_gets_ipv6_in_the_same_moment_loses_no_byte() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(Firewall)?;
    }
    let site = lab.name("s0");
    let (address, route) = (shown(&site, &["-6", "addr", "show", "dev", "eth0", "scope", "global"])?, "default");
    let own = word_after(&address, "inet6")?.to_owned();
    let router = word_after(&shown(&site, &["-6", "route", "show", route])?, "via")?.to_owned();
    ip(&["-n", &site, "-6", "addr", "flush", "dev", "eth0", "scope", "global"])?;
    limit_rate(&site, "eth0")?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let before = remote_of(&scene.south.look().await?)?;
        ensure!(before.is_ipv4(), "{before}");
        roam(scene, "from IPv4 to IPv6", STALL_LIMIT, async || {
            ip(&["-n", &site, "-4", "addr", "flush", "dev", "eth0"])?;
            ip(&["-n", &site, "-6", "addr", "add", &own, "dev", "eth0", "nodad"])?;
            ip(&["-n", &site, "-6", "route", "replace", "default", "via", &router])
        })
        .await?;
        scene.on_path(PathKind::Direct).await?;
        let after = remote_of(&scene.south.look().await?)?;
        ensure!(after.is_ipv6(), "{after}");
        Ok(())
    })
    .await
}

/// Half of the outage that a tunnel survives: while it lasts, the NAT forgets everything and the address changes.
const SLEEP: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_gateway_that_slept_and_woke_up_elsewhere_loses_no_byte() -> anyhow::Result<()> {
    let lab = Lab::start()?;
    let (router, site) = (lab.namespaces()[1].clone(), lab.namespaces()[3].clone());
    limit_rate(&site, "eth0")?;
    play_in(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let pid = scene.north.gateway.pid().to_string();
        roam(scene, "a sleep of 4 s", SLEEP + STALL_LIMIT, async || {
            run(Command::new("kill").args(["-STOP", &pid]))?;
            ip(&["-n", &site, "addr", "flush", "dev", "eth0", "scope", "global"])?;
            ip(&["-n", &site, "addr", "add", "10.1.0.78/24", "dev", "eth0"])?;
            ip(&["-n", &site, "route", "add", "default", "via", "10.1.0.1"])?;
            run(Command::new("ip").args(["netns", "exec", &router, "conntrack", "-F"]))?;
            // How long it sleeps is what is tested.
            tokio::time::sleep(SLEEP).await;
            run(Command::new("kill").args(["-CONT", &pid]))
        })
        .await?;
        scene.on_path(PathKind::Direct).await
    })
    .await
}

/// Sends a large message and small ones beside it, changes something in the middle, and insists on every byte, on the longest
/// wait for an acknowledgement, and on the pace afterwards.
pub(crate) async fn roam(
    scene: &mut Scene,
    what: &str,
    stall_limit: Duration,
    change: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let big = scene.document(DOCUMENT);
    let messages: Vec<_> = (0..2_000).map(|_| scene.message()).collect();
    let scene = &*scene;
    let (mut bulk, mut small) = (scene.keeping_sender(), scene.keeping_sender());
    (bulk, small) = (bulk.with_response_timeout(LIMIT), small.with_response_timeout(LIMIT));
    let before = scene.engine.bytes();
    let sending = bulk.send(&big.bytes);
    let changing = async {
        scene.engine.wait_for_bytes(before + WARM_UP, LIMIT).await?;
        let begun = Instant::now();
        scene.engine.wait_for_bytes(before + WARM_UP + PACED, LIMIT).await?;
        let pace = PACED as f64 / begun.elapsed().as_secs_f64();
        let changed = Instant::now();
        change().await?;
        let best = async {
            // The change may take a while itself, as a sleep does.
            let done = Instant::now();
            let (mut best, mut reached) = (0.0_f64, None);
            let mut seen = vec![(changed, scene.engine.bytes())];
            while done.elapsed() < FULL_SPEED && scene.engine.count_of(&big.control_id) == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = (Instant::now(), scene.engine.bytes());
                seen.push(now);
                let second = seen.iter().rev().find(|(at, _)| now.0 - *at >= Duration::from_secs(1));
                if let Some((at, bytes)) = second {
                    best = best.max((now.1 - bytes) as f64 / (now.0 - *at).as_secs_f64());
                }
                if reached.is_none() && best >= SHARE * pace {
                    reached = Some(done.elapsed());
                }
            }
            (best, reached)
        };
        anyhow::Ok((pace, best.await))
    };
    let talking = async {
        scene.engine.wait_for_bytes(before + WARM_UP, LIMIT).await?;
        let mut stall = Duration::ZERO;
        for message in &messages {
            let begun = Instant::now();
            scene.deliver(&mut small, message).await?;
            stall = stall.max(begun.elapsed());
            if scene.engine.count_of(&big.control_id) > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(stall)
    };
    let (verdict, paced, stall) = tokio::join!(sending, changing, talking);
    let ((pace, (best, reached)), stall) = (paced?, stall?);
    measured!(
        "{what}: longest wait {:.2} s, {:.0} % of the former throughput, {:.0} % of it after {:.1} s",
        stall.as_secs_f64(),
        best / pace * 100.0,
        SHARE * 100.0,
        reached.unwrap_or_default().as_secs_f64()
    );
    ensure!(verdict == Verdict::Acknowledged, "the message in flight was {verdict}");
    scene.arrived_once(&big)?;
    ensure!(stall <= stall_limit, "an acknowledgement took {stall:?}");
    ensure!(reached.is_some(), "{best:.0} bytes/s within {FULL_SPEED:?} after the change, {pace:.0} before");
    Ok(())
}

/// Where a gateway's only peer is reached.
fn remote_of(status: &gateway_proto::api::local::Status) -> anyhow::Result<SocketAddr> {
    let remote = status.peers.first().and_then(|peer| peer.remote_address.clone());
    remote.context("no direct path")?.parse().context("an address")
}

/// A link between two namespaces, up on both ends.
pub(crate) fn wire(one: &str, one_name: &str, other: &str, other_name: &str) -> anyhow::Result<()> {
    ip(&["link", "add", one_name, "netns", one, "type", "veth", "peer", "name", other_name, "netns", other])?;
    ip(&["-n", one, "link", "set", one_name, "up"])?;
    ip(&["-n", other, "link", "set", other_name, "up"])
}

pub(crate) fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments))
}

fn shown(namespace: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ip").args(["-n", namespace]).args(arguments).output().context("cannot run ip")?;
    Ok(String::from_utf8(output.stdout)?)
}

fn word_after<'a>(text: &'a str, word: &str) -> anyhow::Result<&'a str> {
    let mut words = text.split_whitespace().skip_while(|other| *other != word);
    words.nth(1).with_context(|| format!("no '{word}' in '{text}'"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().context("cannot start a command")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
