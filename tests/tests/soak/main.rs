//! Links that flap: random outages of 0.1 to 20 s on both ends, relay restarts between, traffic all the time. A conversation
//! breaks only where an outage was longer than a tunnel lives, and memory stays what it was after the first outages.
//!
//! Not in the default layers: `tests/run soak`. `GATEWAY_SOAK_EVENTS` (200) and `GATEWAY_SOAK_LONGEST` (20, seconds)
//! make it shorter, `GATEWAY_SOAK_SEED` (1) makes it another one. Beside it: what an idle pair costs. Needs root.

mod idle;
mod outages;

use std::{
    cell::Cell,
    io::Write,
    ops::RangeInclusive,
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

use outages::{Outages, Span};

/// After the last outage everything works again within this time.
const RECOVERY: Duration = Duration::from_secs(20);
/// A restart of the relay after so many outages.
const RELAY_EVERY: u64 = 10;
/// One outage of so many belongs to the warm-up: tables and buffers have their size then.
const WARM_UP_SHARE: u64 = 10;
/// Memory that a process may have more than after the warm-up, kB.
const GROWTH: u64 = 4 << 10;

/// What the traffic saw.
#[derive(Debug, Default)]
struct Traffic {
    acknowledged: Vec<String>,
    broken: Vec<Span>,
    slowest: Duration,
}

#[tokio::test]
async fn two_hundred_outages_wedge_nothing_leak_nothing_and_break_only_what_outlasts_a_tunnel() -> anyhow::Result<()> {
    let (events, longest) = (setting("EVENTS", 200), setting("LONGEST", 20));
    let mut random = Random(setting("SEED", 1));
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(PortFilter)?;
    }
    play_between(&lab, async |scene| {
        scene.connected().await?;
        let (address, place) = (scene.link.sender, scene.north.placement().clone());
        let over = Cell::new(false);
        let flapping = async {
            let flapped = warm_up_and_flap(scene, &lab, events, longest, &mut random).await;
            over.set(true);
            flapped
        };
        let (flapped, traffic) = tokio::join!(flapping, traffic(address, &place, &over));
        let (outages, before) = flapped?;
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
            let after = memory(process.pid())?;
            measured!("soak: {} has {before} kB after the warm-up and {after} kB at the end", process.name());
            // A relay that was restarted meanwhile has the memory of a young process, which is less or about the same.
            ensure!(after <= before + GROWTH, "{} grew from {before} to {after} kB", process.name());
        }
        measured!(
            "soak: {events} outages ({} too short to end a tunnel), {} messages acknowledged, {} broken, slowest {:.1} s, first \
             message after the last outage {:.2} s",
            outages.bridged(),
            traffic.acknowledged.len(),
            traffic.broken.len(),
            traffic.slowest.as_secs_f64(),
            recovered.as_secs_f64()
        );
        let unexplained: Vec<_> = traffic.broken.iter().filter(|broken| !outages.explain(broken)).collect();
        ensure!(
            unexplained.is_empty(),
            "{} conversations broke although no outage was long enough:\n{}",
            unexplained.len(),
            unexplained.iter().map(|broken| outages.around(broken)).collect::<String>()
        );
        Ok(())
    })
    .await
}

/// Gives the outages, and the memory of each process after the first of them.
async fn warm_up_and_flap(
    scene: &mut Scene,
    lab: &NatLab,
    events: u64,
    longest: u64,
    random: &mut Random,
) -> anyhow::Result<(Outages, Vec<u64>)> {
    let (first, mut outages) = (events / WARM_UP_SHARE, Outages::default());
    flap(scene, lab, 1..=first, longest, random, &mut outages).await?;
    let memories = scene.processes().iter().map(|process| memory(process.pid())).collect::<anyhow::Result<_>>()?;
    flap(scene, lab, first + 1..=events, longest, random, &mut outages).await?;
    Ok((outages, memories))
}

/// Cuts and mends.
async fn flap(
    scene: &mut Scene,
    lab: &NatLab,
    events: RangeInclusive<u64>,
    longest: u64,
    random: &mut Random,
    outages: &mut Outages,
) -> anyhow::Result<()> {
    let last = *events.end();
    for event in events {
        let down = Duration::from_millis(random.between(100, longest * 1000));
        let up = Duration::from_millis(random.between(100, longest * 1000));
        let sites: &[usize] = match random.between(0, 2) {
            0 => &[0],
            1 => &[1],
            _ => &[0, 1],
        };
        writeln!(std::io::stdout(), "{event}/{last}: sites {sites:?} away for {down:?}, then {up:?} of rest")?;
        let begun = Instant::now();
        for site in sites {
            lab.cut(*site)?;
        }
        // How long an outage lasts is what is tested.
        tokio::time::sleep(down).await;
        for site in sites {
            lab.mend(*site)?;
        }
        outages.push(Span::since(begun));
        tokio::time::sleep(up).await;
        if event % RELAY_EVERY == 0 {
            let begun = Instant::now();
            scene.platform.restart_relay().await?;
            outages.push(Span::since(begun));
        }
    }
    Ok(())
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
            traffic.broken.push(Span::since(begun));
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
