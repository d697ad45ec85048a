//! Links that flap: random outages of 0.1 to 20 s on both ends, relay restarts between, traffic all the time.
//!
//! Not in the default layers: `tests/run soak`. `GATEWAY_SOAK_EVENTS` (200) and `GATEWAY_SOAK_LONGEST` (20, seconds)
//! make it shorter, `GATEWAY_SOAK_SEED` (1) makes it another one. Beside it: what an idle pair costs. Needs root.

mod idle;

use std::{
    cell::Cell,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway_tests::{
    corpus::Corpus,
    measured,
    mllp::{Sender, Verdict},
    natlab::{NatLab, RouterKind::PortFilter},
    platform::Placement,
    scene::{Scene, play_between},
};

/// After the last outage everything works again within this time.
const RECOVERY: Duration = Duration::from_secs(20);
/// An outage this short is bridged: the tunnel lives through 8 s without a sign of life.
const BRIDGED: Duration = Duration::from_secs(4);
/// A restart of the relay after so many outages.
const RELAY_EVERY: u64 = 10;

/// What the traffic saw.
#[derive(Debug, Default)]
struct Traffic {
    acknowledged: Vec<String>,
    broken: usize,
    slowest: Duration,
}

#[tokio::test]
async fn two_hundred_outages_wedge_nothing_and_leak_nothing() -> anyhow::Result<()> {
    let (events, longest) = (setting("EVENTS", 200), setting("LONGEST", 20));
    let mut random = Random(setting("SEED", 1));
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(PortFilter)?;
    }
    play_between(&lab, async |scene| {
        scene.connected().await?;
        let before: Vec<_> = scene.processes().iter().map(|process| memory(process.pid())).collect();
        let (address, place) = (scene.link.sender, scene.north.placement().clone());
        let over = Cell::new(false);
        let flapping = async {
            let flapped = flap(scene, &lab, events, longest, &mut random).await;
            over.set(true);
            flapped
        };
        let (flapped, traffic) = tokio::join!(flapping, traffic(address, &place, &over));
        let bridged = flapped?;
        let begun = Instant::now();
        let message = scene.message();
        let mut sender = scene.sender().with_response_timeout(RECOVERY);
        while sender.send(&message.bytes).await != Verdict::Acknowledged {
            ensure!(begun.elapsed() < RECOVERY, "nothing passes {RECOVERY:?} after the last outage");
        }
        let recovered = begun.elapsed();
        for id in &traffic.acknowledged {
            ensure!(scene.engine.count_of(id) == 1, "{id} was acknowledged and arrived {} times", scene.engine.count_of(id));
        }
        for (process, before) in scene.processes().iter().zip(before) {
            let (before, after) = (before?, memory(process.pid())?);
            measured!("soak: {} has {before} kB before and {after} kB after", process.name());
            ensure!(after < before + before / 2 + 16_384, "{} grew from {before} to {after} kB", process.name());
        }
        measured!(
            "soak: {events} outages ({bridged} short ones), {} messages acknowledged, {} broken, slowest {:.1} s, first \
             message after the last outage {:.2} s",
            traffic.acknowledged.len(),
            traffic.broken,
            traffic.slowest.as_secs_f64(),
            recovered.as_secs_f64()
        );
        Ok(())
    })
    .await
}

/// Cuts and mends; gives how many outages were short.
async fn flap(
    scene: &mut Scene,
    lab: &NatLab,
    events: u64,
    longest: u64,
    random: &mut Random,
) -> anyhow::Result<usize> {
    let mut short = 0;
    for event in 1..=events {
        let down = Duration::from_millis(random.between(100, longest * 1000));
        let up = Duration::from_millis(random.between(100, longest * 1000));
        let sites: &[usize] = match random.between(0, 2) {
            0 => &[0],
            1 => &[1],
            _ => &[0, 1],
        };
        short += usize::from(down < BRIDGED);
        writeln!(std::io::stdout(), "{event}/{events}: sites {sites:?} away for {down:?}, then {up:?} of rest")?;
        for site in sites {
            lab.cut(*site)?;
        }
        // How long an outage lasts is what is tested.
        tokio::time::sleep(down).await;
        for site in sites {
            lab.mend(*site)?;
        }
        tokio::time::sleep(up).await;
        if event % RELAY_EVERY == 0 {
            scene.platform.restart_relay().await?;
        }
    }
    Ok(short)
}

/// Sends one message after the other until `over`.
async fn traffic(address: std::net::SocketAddr, place: &Placement, over: &Cell<bool>) -> Traffic {
    let (mut corpus, mut traffic) = (Corpus::new("SK", 3), Traffic::default());
    let mut sender = Sender::new(address, true).at(place).with_response_timeout(Duration::from_secs(30));
    while !over.get() {
        let message = corpus.adt("A08");
        let begun = Instant::now();
        if sender.send(&message.bytes).await == Verdict::Acknowledged {
            traffic.slowest = traffic.slowest.max(begun.elapsed());
            traffic.acknowledged.push(message.control_id);
        } else {
            traffic.broken += 1;
        }
        // An engine's pace, and a port that refuses is not asked in a busy loop.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    traffic
}

/// Resident memory of a process, kB.
fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(format!("GATEWAY_SOAK_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// From `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low + 1)
    }
}
