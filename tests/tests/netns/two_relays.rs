//! Two relays, and what happens when the one in use goes away: killed, silent, or stopped in good order.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    mllp::Verdict,
    natlab::{
        NatLab,
        RouterKind::{self, NoUdp, RandomPort},
    },
    platform::Site,
    process::Process,
    scene::{Scene, play_between},
    wait,
};

use crate::{LIMIT, STALL_LIMIT, exchange, limit_rate};

/// What is under way when the relay goes: some eight seconds at the rate of the uplink.
const DOCUMENT: usize = 30 << 20;
/// So much of it has passed by then.
const UNDER_WAY: u64 = 4 << 20;

/// Before an engine gives up. More than where a path lives: here none does, and a new connection is tried only after what stands
/// has been silent for a while.
const FORGOTTEN_LIMIT: Duration = Duration::from_secs(5);

/// The parts of the lab where the relays run, in the order of [`relay`].
const PARTS: [&str; 2] = ["relay-1", "relay-2"];

/// The relay of a site's home, and whether the site is attached to both.
async fn home(scene: &Scene, site: &Site) -> anyhow::Result<(Option<usize>, bool)> {
    let status = site.status(&scene.platform.ctl).await?;
    let home = status.relays.iter().find(|relay| relay.home);
    let place = home.and_then(|home| (0..2).find(|index| home.url.contains(PARTS[*index])));
    Ok((place, status.relays.iter().filter(|relay| relay.attached).count() == 2))
}

async fn attached_to_both(scene: &Scene) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "both gateways are attached to both relays", async || {
        Ok(home(scene, &scene.north).await?.1 && home(scene, &scene.south).await?.1)
    })
    .await
}

async fn both_homes_are(scene: &Scene, index: usize) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "both gateways have their home at the relay that is left", async || {
        let homes = (home(scene, &scene.north).await?.0, home(scene, &scene.south).await?.0);
        Ok(homes == (Some(index), Some(index)))
    })
    .await
}

fn relay(scene: &Scene, index: usize) -> &Process {
    if index == 0 { &scene.platform.relay } else { &scene.platform.more_relays[0] }
}

/// Sends a large message and small ones beside it, takes away the receiver's home relay in the middle with `cut`, and
/// insists on every byte and on the longest wait. Gives the relay that is left.
async fn lose_the_relay(
    lab: &NatLab,
    scene: &mut Scene,
    what: &str,
    cut: impl AsyncFnOnce(&Scene, usize) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    limit_rate(&lab.name("s0"), "eth0")?;
    scene.on_path(PathKind::Relayed).await?;
    attached_to_both(scene).await?;
    exchange(scene, 10).await?;
    let (gone, _) = home(scene, &scene.south).await?;
    let gone = gone.context("the receiver has no home relay")?;
    let big = scene.document(DOCUMENT);
    let messages: Vec<_> = (0..2_000).map(|_| scene.message()).collect();
    let shared = &*scene;
    let (mut bulk, mut small) = (shared.keeping_sender(), shared.keeping_sender());
    (bulk, small) = (bulk.with_response_timeout(LIMIT), small.with_response_timeout(LIMIT));
    let before = shared.engine.bytes();
    let cutting = async {
        shared.engine.wait_for_bytes(before + UNDER_WAY, LIMIT).await?;
        cut(shared, gone).await?;
        let mut stall = Duration::ZERO;
        for message in &messages {
            let begun = Instant::now();
            shared.deliver(&mut small, message).await?;
            stall = stall.max(begun.elapsed());
            if shared.engine.count_of(&big.control_id) > 0 {
                break;
            }
            // An engine's pace.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(stall)
    };
    let (verdict, stall) = tokio::join!(bulk.send(&big.bytes), cutting);
    let stall = stall?;
    ensure!(verdict == Verdict::Acknowledged, "the message in flight was {verdict}");
    shared.arrived_once(&big)?;
    measured!("{what}: longest wait {:.2} s", stall.as_secs_f64());
    ensure!(stall <= STALL_LIMIT, "an acknowledgement took {stall:?}");
    both_homes_are(shared, 1 - gone).await?;
    exchange(scene, 10).await?;
    Ok(1 - gone)
}

fn two_sites(kind: RouterKind) -> anyhow::Result<NatLab> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(kind)?;
    }
    Ok(lab)
}

fn signal(process: &Process, signal: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args([signal, &process.pid().to_string()]).status()?;
    ensure!(status.success(), "kill: {status}");
    Ok(())
}

/// Nothing reaches the relay any more, nor leaves it, and nobody is told.
fn silence(lab: &NatLab, index: usize) -> anyhow::Result<()> {
    lab.nft(
        PARTS[index],
        "table inet gone {
           chain input { type filter hook input priority 0; drop; }
           chain output { type filter hook output priority 0; drop; }
         }",
    )
}

#[tokio::test]
async fn a_home_relay_that_is_killed_costs_no_byte_and_is_no_longer_home_when_it_is_back() -> anyhow::Result<()> {
    let lab = two_sites(RandomPort)?;
    play_between(&lab, async |scene| {
        let left =
            lose_the_relay(&lab, scene, "home relay killed", async |scene, gone| signal(relay(scene, gone), "-KILL"))
                .await?;
        let back = if left == 1 { &mut scene.platform.relay } else { &mut scene.platform.more_relays[0] };
        back.kill_and_reap();
        back.restart(LIMIT).await?;
        attached_to_both(scene).await?;
        both_homes_are(scene, left).await?;
        exchange(scene, 10).await
    })
    .await
}

#[tokio::test]
async fn a_home_relay_that_falls_silent_is_left_before_an_engine_gives_up() -> anyhow::Result<()> {
    let lab = two_sites(RandomPort)?;
    play_between(&lab, async |scene| {
        let silent = async |_: &Scene, gone| silence(&lab, gone);
        let left = lose_the_relay(&lab, scene, "home relay silent", silent).await?;
        lab.nft(PARTS[1 - left], "delete table inet gone")?;
        attached_to_both(scene).await?;
        exchange(scene, 10).await
    })
    .await
}

#[tokio::test]
async fn without_udp_too_a_home_relay_that_falls_silent_is_left_before_an_engine_gives_up() -> anyhow::Result<()> {
    let lab = two_sites(NoUdp)?;
    play_between(&lab, async |scene| {
        let silent = async |_: &Scene, gone| silence(&lab, gone);
        lose_the_relay(&lab, scene, "home relay silent, TLS only", silent).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_home_relay_that_is_stopped_in_good_order_is_left_before_it_goes() -> anyhow::Result<()> {
    let lab = two_sites(RandomPort)?;
    play_between(&lab, async |scene| {
        let stop = async |scene: &Scene, gone| signal(relay(scene, gone), "-TERM");
        let left = lose_the_relay(&lab, scene, "home relay stopped", stop).await?;
        let gone = relay(scene, 1 - left);
        wait::until_true(LIMIT, "the relay ends", async || Ok(gone.log().contains("relay is down"))).await
    })
    .await
}

/// The router forgets the connections that stand, as a firewall that fails over without its table does: what belongs to them is dropped and
/// nobody is told; new ones pass.
fn forget_connections(lab: &NatLab, router: &str) -> anyhow::Result<()> {
    lab.nft(
        router,
        "table inet forgetful {
           chain forward {
             type filter hook forward priority -10;
             meta l4proto tcp ct state new ct mark set 1
             meta l4proto tcp ct mark != 1 drop
           }
         }",
    )
}

#[tokio::test]
async fn connections_to_all_relays_that_a_firewall_forgets_are_made_anew_before_an_engine_gives_up()
-> anyhow::Result<()> {
    let lab = two_sites(NoUdp)?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        attached_to_both(scene).await?;
        exchange(scene, 10).await?;
        let mut sender = scene.keeping_sender().with_response_timeout(LIMIT);
        for (router, whose) in [("r0", "the sender's"), ("r1", "the receiver's")] {
            forget_connections(&lab, router)?;
            let (begun, mut longest) = (Instant::now(), Duration::ZERO);
            while begun.elapsed() < 2 * FORGOTTEN_LIMIT {
                let message = scene.message();
                let sent = Instant::now();
                scene.deliver(&mut sender, &message).await?;
                longest = longest.max(sent.elapsed());
                // An engine's pace.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            measured!("{whose} firewall forgets its connections: longest wait {:.2} s", longest.as_secs_f64());
            ensure!(longest <= FORGOTTEN_LIMIT, "an acknowledgement took {longest:?}");
        }
        attached_to_both(scene).await?;
        exchange(scene, 10).await
    })
    .await
}
