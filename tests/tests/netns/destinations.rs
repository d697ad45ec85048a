//! Whom a gateway sends to, and how much: noted at the uplink of each site from before its first packet on, with port guessing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, ensure};
use gateway_tests::{
    measured,
    natlab::{
        NatLab,
        RouterKind::{PortFilter, RandomPort},
    },
    netns::note_leaving,
    platform::Site,
    scene::{Scene, play_between_with},
    wait,
};

use crate::{LIMIT, exchange};

/// A run of port guessing is over after 10 s.
const RUN: Duration = Duration::from_secs(12);
/// Ports of the partner's outer address are guessed at 250 a second; the rest is for attempts without guessing and for what
/// goes over the path that was found.
const A_SECOND_TO_THE_PARTNER: usize = 350;
/// To a relay, the control plane or a name server: questions, and a message or two before a path is found.
const A_SECOND_TO_OTHERS: usize = 200;
/// Two runs a day of 2,048, and two buckets of 640 probes a minute.
const TO_THE_PARTNER: usize = 2 * 2_048 + 2 * 640;
/// Ports of an address where none is guessed: those of a relay, or those that a partner had one after the other.
const NAMED_PORTS: usize = 6;

/// What went to one address: when, and to which ports.
#[derive(Debug, Default)]
struct Sent {
    at: Vec<f64>,
    ports: BTreeSet<u16>,
}

#[tokio::test]
async fn a_gateway_sends_to_nobody_but_its_platform_its_name_server_and_its_partner_and_not_in_floods()
-> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for kind in [RandomPort, PortFilter] {
        lab.add_site(kind)?;
    }
    let dir = tempfile::tempdir()?;
    let mut captures = Vec::new();
    for site in ["s0", "s1"] {
        captures.push(note_leaving(&lab.name(site), "eth0", &dir.path().join(site), "udp or tcp").await?);
    }
    play_between_with(
        &lab,
        |_, options| options.port_guessing = true,
        async |scene| {
            exchange(scene, 5).await?;
            wait::until_true(LIMIT, "both sides guess ports", async || {
                Ok(has_guessed(scene, &scene.north).await? && has_guessed(scene, &scene.south).await?)
            })
            .await?;
            // What is sent meanwhile is what is tested.
            tokio::time::sleep(RUN).await;
            exchange(scene, 5).await
        },
    )
    .await?;
    let mut guessed = 0;
    for (site, capture) in captures.into_iter().enumerate() {
        let lines = String::from_utf8(capture.finish().await?)?;
        guessed = guessed.max(judge(&lab, site, &sent(&lines)?)?);
    }
    ensure!(guessed > NAMED_PORTS, "no port was guessed: {guessed}");
    Ok(())
}

async fn has_guessed(scene: &Scene, site: &Site) -> anyhow::Result<bool> {
    let status = site.status(&scene.platform.ctl).await?;
    Ok(status.peers.iter().any(|peer| peer.path_counts.guess_runs > 0 && peer.path_counts.guess_probes > 0))
}

/// Reads lines such as `1700000000.123456 IP 10.1.0.2.7000 > 203.0.113.6.41000: UDP, length 73`.
fn sent(lines: &str) -> anyhow::Result<BTreeMap<IpAddr, Sent>> {
    let mut sent: BTreeMap<IpAddr, Sent> = BTreeMap::new();
    for line in lines.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, _protocol, _source, ">", destination, ..] = words[..] else { continue };
        let (address, port) = destination.trim_end_matches(':').rsplit_once('.').context("an address and a port")?;
        let entry = sent.entry(address.parse().with_context(|| line.to_owned())?).or_default();
        entry.at.push(at.parse().with_context(|| line.to_owned())?);
        entry.ports.insert(port.parse().with_context(|| line.to_owned())?);
    }
    Ok(sent)
}

/// Insists on the destinations of a site and their rates. Gives how many ports of its partner's outer address it tried.
fn judge(lab: &NatLab, site: usize, sent: &BTreeMap<IpAddr, Sent>) -> anyhow::Result<usize> {
    let [first, second] = lab.relays().map(|relay| relay.ip);
    let (partner, outer) = (lab.site(1 - site).ip, lab.outer(1 - site));
    let platform = [lab.control().ip, first, second];
    let name_servers = name_servers()?;
    for (address, sent) in sent {
        let is_name_server = name_servers.contains(address) && sent.ports.iter().all(|port| *port == 53);
        // netcheck looks whether the router turns a packet round.
        let is_own = *address == lab.outer(site);
        let is_partner = *address == partner || *address == outer;
        ensure!(
            platform.contains(address) || is_name_server || is_own || is_partner,
            "site {site} sent {} packets to {address}, ports {:?}",
            sent.at.len(),
            sent.ports
        );
        let (busiest, limit) = match is_partner {
            true => (busiest_second(&sent.at), A_SECOND_TO_THE_PARTNER),
            false => (busiest_second(&sent.at), A_SECOND_TO_OTHERS),
        };
        measured!("site {site} to {address}: {} packets, {busiest} in a second at most", sent.at.len());
        ensure!(busiest <= limit, "site {site} sent {busiest} packets to {address} in a second");
        ensure!(!is_partner || sent.at.len() <= TO_THE_PARTNER, "{} packets to {address}", sent.at.len());
        ensure!(
            *address == outer || sent.ports.len() <= NAMED_PORTS,
            "ports of {address} were guessed: {:?}",
            sent.ports
        );
        ensure!(!is_partner || sent.ports.iter().all(|port| *port >= 1_024), "{:?}", sent.ports);
    }
    ensure!(platform[1..].iter().any(|relay| sent.contains_key(relay)), "nothing was noted");
    Ok(sent.get(&outer).map_or(0, |sent| sent.ports.len()))
}

fn busiest_second(at: &[f64]) -> usize {
    let mut first = 0;
    (0..at.len()).fold(0, |busiest, last| {
        while at[last] - at[first] >= 1.0 {
            first += 1;
        }
        busiest.max(last + 1 - first)
    })
}

/// Those of this machine; a namespace has no others.
fn name_servers() -> anyhow::Result<Vec<IpAddr>> {
    let text = fs::read_to_string("/etc/resolv.conf")?;
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    Ok(named.filter_map(|address| address.trim().parse().ok()).collect())
}

#[test]
fn a_busy_second_is_found_wherever_it_begins() {
    assert_eq!(busiest_second(&[]), 0);
    assert_eq!(busiest_second(&[0.0, 0.9, 1.0, 1.5, 1.8, 3.0]), 4);
}

#[test]
fn a_line_of_tcpdump_is_read_with_both_protocols() -> anyhow::Result<()> {
    let lines = "1700000000.5 IP 10.1.0.2.7000 > 203.0.113.6.41000: UDP, length 73\n\
                 1700000001.5 IP 10.1.0.2.7000 > 203.0.113.6.41001: UDP, length 73\n\
                 1700000002.5 IP6 2001:db8::2.40000 > 2001:db8::1.443: tcp 0\n";
    let sent = sent(lines)?;
    ensure!(sent.len() == 2, "{sent:?}");
    let partner = &sent[&"203.0.113.6".parse::<IpAddr>()?];
    ensure!(partner.at.len() == 2 && partner.ports == BTreeSet::from([41_000, 41_001]), "{sent:?}");
    Ok(())
}
