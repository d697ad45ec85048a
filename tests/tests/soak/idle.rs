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
        let (packets, bytes) = counted(&lab, "between")?;
        let per_second = bytes / WATCHED.as_secs_f64();
        measured!("idle pair: {per_second:.1} bytes/s in both directions together, {packets} packets in {WATCHED:?}");
        ensure!(per_second > 0.0, "the path is not kept open");
        ensure!(per_second <= BYTES_PER_SECOND, "{per_second:.1} bytes/s");
        scene.on_path(PathKind::Direct).await
    })
    .await
}

/// Where packets between the two sites are dropped, and those between the first site and the relays counted.
const RELAYED: &str = r#"table inet cost {
  counter tried { }
  counter over_udp { }
  counter over_tls { }
  chain forward {
    type filter hook forward priority -10;
    iifname { "s0", "s1" } oifname { "s0", "s1" } meta l4proto udp counter name tried drop;
    iifname "s0" oifname { "to-relay-1", "to-relay-2" } meta l4proto udp counter name over_udp;
    iifname { "to-relay-1", "to-relay-2" } oifname "s0" meta l4proto udp counter name over_udp;
    iifname "s0" oifname { "to-relay-1", "to-relay-2" } meta l4proto tcp counter name over_tls;
    iifname { "to-relay-1", "to-relay-2" } oifname "s0" meta l4proto tcp counter name over_tls;
  }
}"#;
/// Over UDP: 40 for the pair; for two relays, whatever the pairs, 9 each for the pings and 14 for the STUN questions; the rest as above.
// One ping of full length and its answer, ten bytes/s of five minutes, may fall into them.
const RELAYED_BYTES_PER_SECOND: f64 = 115.0;

#[tokio::test]
async fn an_idle_pair_on_a_relay_costs_little_more_than_on_a_direct_path() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(PortFilter)?;
    }
    lab.nft("core", RELAYED)?;
    play_between(&lab, async |scene| {
        scene.on_path(PathKind::Relayed).await?;
        // Measurements, not synchronisation.
        tokio::time::sleep(SETTLED).await;
        let names = ["over_udp", "over_tls", "tried"];
        let before = counted_all(&lab, names)?;
        tokio::time::sleep(WATCHED).await;
        let after = counted_all(&lab, names)?;
        let per_second = |at: usize| (after[at].1 - before[at].1) / WATCHED.as_secs_f64();
        measured!(
            "idle pair on a relay: {:.1} bytes/s over UDP to two relays ({} packets in {WATCHED:?}), {:.1} over TLS, {:.1} to find \
             a direct path",
            per_second(0),
            after[0].0 - before[0].0,
            per_second(1),
            per_second(2)
        );
        ensure!(per_second(0) > 0.0, "the tunnel is not kept up");
        ensure!(per_second(0) <= RELAYED_BYTES_PER_SECOND, "{:.1} bytes/s", per_second(0));
        scene.on_path(PathKind::Relayed).await
    })
    .await
}

/// Packets and bytes of each counter.
fn counted_all(lab: &NatLab, names: [&str; 3]) -> anyhow::Result<[(f64, f64); 3]> {
    Ok([counted(lab, names[0])?, counted(lab, names[1])?, counted(lab, names[2])?])
}

fn counted(lab: &NatLab, counter: &str) -> anyhow::Result<(f64, f64)> {
    let list = ["netns", "exec", &lab.name("core"), "nft", "list", "counter", "inet", "cost", counter];
    let words = String::from_utf8(Command::new("ip").args(list).output()?.stdout)?;
    let after = |name: &str| -> anyhow::Result<f64> {
        let mut found = words.split_whitespace().skip_while(|word| *word != name);
        Ok(found.nth(1).with_context(|| format!("no {name} in '{words}'"))?.parse()?)
    };
    Ok((after("packets")?, after("bytes")?))
}
