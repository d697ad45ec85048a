//! What a pair of gateways costs while nobody has anything to say.

use std::{process::Command, time::Duration};

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    natlab::{NatLab, RouterKind::PortFilter},
    scene::play_between,
};

/// Addresses are exchanged, the path is proved, QUIC has found the MTU.
const SETTLED: Duration = Duration::from_secs(90);
/// Several heartbeats of every kind fit.
const WATCHED: Duration = Duration::from_secs(300);
/// Both directions together, with IP and UDP headers. Three packets of the tunnel every 7 s and two of the path every 24 s
/// are some 37; the rest is for acknowledgements that a busy machine sends apart.
const BYTES_PER_SECOND: f64 = 45.0;

#[tokio::test]
async fn an_idle_pair_costs_at_most_forty_five_bytes_a_second() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(PortFilter)?;
    }
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Direct).await?;
        // Measurements, not synchronisation.
        tokio::time::sleep(SETTLED).await;
        lab.nft(
            "core",
            "table inet cost {
               counter between { }
               chain forward {
                 type filter hook forward priority 10;
                 ip saddr 203.0.113.0/24 ip daddr 203.0.113.0/24 meta l4proto udp counter name between;
               }
             }",
        )?;
        tokio::time::sleep(WATCHED).await;
        let (packets, bytes) = between(&lab)?;
        let per_second = bytes / WATCHED.as_secs_f64();
        measured!("idle pair: {per_second:.1} bytes/s in both directions together, {packets} packets in {WATCHED:?}");
        ensure!(per_second > 0.0, "the path is not kept open");
        ensure!(per_second <= BYTES_PER_SECOND, "{per_second:.1} bytes/s");
        scene.on_path(PathKind::Direct).await
    })
    .await
}

fn between(lab: &NatLab) -> anyhow::Result<(f64, f64)> {
    let list = ["netns", "exec", &lab.name("core"), "nft", "list", "counter", "inet", "cost", "between"];
    let words = String::from_utf8(Command::new("ip").args(list).output()?.stdout)?;
    let after = |name: &str| -> anyhow::Result<f64> {
        let mut found = words.split_whitespace().skip_while(|word| *word != name);
        Ok(found.nth(1).with_context(|| format!("no {name} in '{words}'"))?.parse()?)
    };
    Ok((after("packets")?, after("bytes")?))
}
