//! Two sites on wires that are slow, lose packets, carry small ones only, or forget: no byte lost, none repeated.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    natlab::{
        FIRST_LIMIT, NatLab,
        RouterKind::{self, PortFilter, PreservedPort, Public, RandomPort},
    },
    scene::{Scene, play_between, play_between_cold},
    wait,
};

use crate::{LIMIT, STALL_LIMIT, exchange};

fn lab(sites: [(RouterKind, &str); 2]) -> anyhow::Result<NatLab> {
    let mut lab = NatLab::start()?;
    for (kind, settings) in sites {
        lab.add_site_on_a_bad_wire(kind, settings)?;
    }
    Ok(lab)
}

#[tokio::test]
async fn the_first_answer_is_there_within_a_second_on_a_50_ms_network_with_jitter() -> anyhow::Result<()> {
    let wire = "delay=12.5ms jitter=2ms";
    let lab = lab([(PortFilter, wire), (PreservedPort, wire)])?;
    play_between_cold(&lab, async |scene| {
        let begun = Instant::now();
        let message = scene.message();
        scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &message).await?;
        let first = begun.elapsed();
        scene.on_path(PathKind::Direct).await?;
        let direct = begun.elapsed();
        let secs = |time: Duration| time.as_secs_f64();
        measured!("50 ms network: first answer {:.2} s, direct after {:.2} s", secs(first), secs(direct));
        ensure!(first <= FIRST_LIMIT, "the first answer took {first:?}");
        exchange(scene, 10).await
    })
    .await
}

#[tokio::test]
async fn no_byte_is_lost_or_repeated_while_the_wire_loses_packets() -> anyhow::Result<()> {
    let mut lab = lab([(PortFilter, "delay=5ms"), (PortFilter, "delay=5ms")])?;
    let wires = [lab.take_wire(0)?, lab.take_wire(1)?];
    play_between(&lab, async |scene| {
        let [mut wire, _other] = wires;
        scene.on_path(PathKind::Direct).await?;
        for (loss, size) in [(1, 1 << 20), (5, 1 << 20), (20, 200 << 10)] {
            wire.change(&format!("loss={loss}"))?;
            let begun = Instant::now();
            let big = scene.document(size);
            scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &big).await?;
            let rate = size as f64 / begun.elapsed().as_secs_f64() / 1e6;
            let worst = worst_of(scene, 20).await?;
            measured!("{loss} % loss: {rate:.2} MB/s, slowest of 20 messages {:.2} s", worst.as_secs_f64());
            ensure!(worst < STALL_LIMIT, "at {loss} % loss a message took {worst:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_slow_wire_carries_a_large_document_and_small_messages_beside_it() -> anyhow::Result<()> {
    let wire = "rate=8000000 delay=5ms queue=200";
    let lab = lab([(PortFilter, wire), (Public, "")])?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let big = scene.document(4 << 20);
        let begun = Instant::now();
        let mut bulk = scene.keeping_sender().with_response_timeout(LIMIT);
        let sending = async {
            let verdict = bulk.send(&big.bytes).await;
            (verdict, begun.elapsed())
        };
        let messages: Vec<_> = (0..10).map(|_| scene.message()).collect();
        let small = async {
            let (mut sender, mut worst) = (scene.keeping_sender().with_response_timeout(LIMIT), Duration::ZERO);
            for message in &messages {
                let begun = Instant::now();
                scene.deliver(&mut sender, message).await?;
                worst = worst.max(begun.elapsed());
            }
            anyhow::Ok(worst)
        };
        let ((verdict, took), worst) = tokio::join!(sending, small);
        ensure!(verdict == gateway_tests::mllp::Verdict::Acknowledged, "the document was {verdict}");
        scene.arrived_once(&big)?;
        measured!(
            "8 Mbit/s: a 4 MB document in {:.1} s, slowest message beside it {:.2} s",
            took.as_secs_f64(),
            worst?.as_secs_f64()
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_mtu_of_1280_carries_a_direct_path() -> anyhow::Result<()> {
    let lab = lab([(PortFilter, "largest=1280"), (PortFilter, "")])?;
    clamp(&lab, 0, 1200)?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        let big = scene.document(2 << 20);
        scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &big).await?;
        scene.on_path(PathKind::Direct).await
    })
    .await
}

#[tokio::test]
async fn a_path_that_cannot_carry_1200_bytes_stays_on_the_relay_and_says_why() -> anyhow::Result<()> {
    let lab = lab([(PortFilter, "largest=1100"), (PortFilter, "")])?;
    clamp(&lab, 0, 1000)?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        let big = scene.document(2 << 20);
        scene.deliver(&mut scene.sender().with_response_timeout(LIMIT), &big).await?;
        exchange(scene, 10).await?;
        wait::until_true(LIMIT, "one end says that the direct path is too small", async || {
            let mut reasons = Vec::new();
            for site in [&scene.north, &scene.south] {
                let status = site.connection(&scene.platform.ctl, &scene.link.connection).await?;
                ensure!(status.path == Some(PathKind::Relayed), "{status:?}");
                reasons.push(status.path_reason);
            }
            Ok(reasons.iter().any(|reason| reason.contains("1200 bytes")))
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_router_that_forgets_its_mappings_costs_a_short_stall_and_no_byte() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    // After the reboot the outer port is another one: the peer must follow.
    lab.add_site(RandomPort)?;
    lab.add_site(Public)?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        exchange(scene, 5).await?;
        for run in 1..=3 {
            lab.reboot_nat(0)?;
            let worst = worst_of(scene, 30).await?;
            measured!("NAT reboot {run}: slowest of 30 messages {:.2} s", worst.as_secs_f64());
            ensure!(worst < STALL_LIMIT, "a message took {worst:?} after reboot {run}");
        }
        scene.on_path(PathKind::Direct).await
    })
    .await
}

#[tokio::test]
async fn mappings_that_live_30_s_outlive_a_pause_of_the_engine() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for site in 0..2 {
        lab.add_site(PortFilter)?;
        for setting in ["udp_timeout", "udp_timeout_stream"] {
            lab.set(&format!("r{site}"), &format!("net.netfilter.nf_conntrack_{setting}=30"))?;
        }
    }
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        // A pause is what is tested.
        tokio::time::sleep(Duration::from_secs(42)).await;
        let worst = worst_of(scene, 5).await?;
        measured!("after 42 s of silence on 30 s mappings: slowest message {:.2} s", worst.as_secs_f64());
        ensure!(worst < STALL_LIMIT, "a message took {worst:?} after the pause");
        scene.on_path(PathKind::Direct).await
    })
    .await
}

/// Delivers so many messages over one connection; the slowest.
async fn worst_of(scene: &mut Scene, count: usize) -> anyhow::Result<Duration> {
    let (mut sender, mut worst) = (scene.keeping_sender().with_response_timeout(LIMIT), Duration::ZERO);
    for _ in 0..count {
        let message = scene.message();
        let begun = Instant::now();
        scene.deliver(&mut sender, &message).await?;
        worst = worst.max(begun.elapsed());
    }
    Ok(worst)
}

/// TCP segments that fit the wire, as a router before a small MTU makes them.
fn clamp(lab: &NatLab, site: usize, size: u16) -> anyhow::Result<()> {
    let rule = format!("add rule inet lab through tcp flags syn tcp option maxseg size set {size}");
    lab.nft(&format!("r{site}"), &rule)
}
