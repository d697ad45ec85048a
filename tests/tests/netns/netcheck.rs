//! `gateway-ctl netcheck` behind networks with something wrong: the cause is named, with the sentence to send.

use anyhow::{Context, ensure};
use gateway_proto::{netcheck::Report, path::NatMapping};
use gateway_tests::{
    natlab::{
        NatLab,
        RouterKind::{self, NoUdp, OnlyProxy, PortFilter, RandomPort},
    },
    platform::{Platform, PlatformOptions, Site},
};

/// A platform with one enrolled gateway behind a router of this kind.
async fn start(kind: RouterKind) -> anyhow::Result<(Site, Platform, NatLab)> {
    let mut lab = NatLab::start()?;
    let site = lab.add_site(kind)?;
    let [relay, second] = lab.relays();
    let options =
        PlatformOptions { control: lab.control(), relay, more_relays: vec![second], ..PlatformOptions::default() };
    let platform = Platform::start_with(options).await?;
    platform.add_relays().await?;
    let site = platform.site_with("north", lab.site(site), &lab.options(site)).await?;
    Ok((site, platform, lab))
}

/// The report, and the exit code of `gateway-ctl netcheck`.
async fn netcheck(site: &Site, platform: &Platform) -> anyhow::Result<(Report, i32)> {
    let outcome = platform.ctl.run(&["netcheck", "--json", "--socket", site.socket()]).await?;
    let report = serde_json::from_str(&outcome.stdout).with_context(|| format!("no report: {outcome:?}"))?;
    Ok((report, outcome.code.context("an exit code")?))
}

fn problem<'a>(report: &'a Report, code: &str) -> anyhow::Result<(&'a str, &'a str)> {
    let found = report.problems.iter().find(|problem| problem.code == code);
    let problem = found.with_context(|| format!("no {code} in {:?}", report.problems))?;
    Ok((&problem.text, problem.request.as_deref().unwrap_or_default()))
}

#[tokio::test]
async fn a_kind_network_has_nothing_to_mend_and_a_random_nat_is_named() -> anyhow::Result<()> {
    let (site, platform, _lab) = start(PortFilter).await?;
    let (report, code) = netcheck(&site, &platform).await?;
    ensure!(code == 0 && report.problems.is_empty(), "{report:?}");
    ensure!(report.nat == NatMapping::EndpointIndependent && report.large_datagrams == Some(true), "{report:?}");
    ensure!(report.latencies.len() == 4 && report.hosts.len() == 3, "{report:?}");
    drop((site, platform));
    let (site, platform, _lab) = start(RandomPort).await?;
    let (report, code) = netcheck(&site, &platform).await?;
    ensure!(code == 1 && report.nat == NatMapping::Random, "{report:?}");
    problem(&report, "hard_nat")?;
    Ok(())
}

#[tokio::test]
async fn blocked_udp_is_named_with_addresses_and_ports() -> anyhow::Result<()> {
    let (site, platform, _lab) = start(NoUdp).await?;
    let (report, code) = netcheck(&site, &platform).await?;
    ensure!(code == 1 && report.udp == Some(false), "{report:?}");
    let (_, request) = problem(&report, "udp_blocked")?;
    let expected = "Please allow UDP from 10.1.0.2 to relay-1.lab (198.51.100.6) port 3478, relay-1.lab (198.51.100.6) port \
                    3479, relay-2.lab (198.51.100.10) port 3478";
    ensure!(request.starts_with(expected), "{request}");
    Ok(())
}

#[tokio::test]
async fn through_a_proxy_the_hosts_are_reached_and_the_proxy_is_named() -> anyhow::Result<()> {
    let (site, platform, _lab) = start(OnlyProxy).await?;
    let (report, _) = netcheck(&site, &platform).await?;
    ensure!(report.proxy.as_deref() == Some("10.1.0.1:3128"), "{report:?}");
    ensure!(report.problems.iter().all(|problem| problem.code == "udp_blocked"), "{:?}", report.problems);
    Ok(())
}

#[tokio::test]
async fn a_relay_that_somebody_else_answers_for_is_told_with_the_certificate_shown() -> anyhow::Result<()> {
    let (site, platform, lab) = start(PortFilter).await?;
    // Whoever asks for relay-2 gets an answer from somewhere else, with another key.
    lab.nft("r0", "add rule inet lab before ip daddr 198.51.100.10 tcp dport 443 dnat ip to 198.51.100.6")?;
    let (report, code) = netcheck(&site, &platform).await?;
    ensure!(code == 1, "{report:?}");
    let (text, request) = problem(&report, "tls_intercepted")?;
    let shown = platform.relay.ready("tls_pin")?;
    ensure!(text.contains("relay-2.lab:443") && text.contains(shown), "{text}");
    ensure!(request.contains("exempt relay-2.lab:443 from TLS inspection"), "{request}");
    Ok(())
}

#[tokio::test]
async fn a_clock_that_keeps_the_gateway_out_is_named() -> anyhow::Result<()> {
    let (mut site, platform, _lab) = start(PortFilter).await?;
    site.restart_with_clock("+2h").await?;
    let (report, code) = netcheck(&site, &platform).await?;
    ensure!(code == 1, "{report:?}");
    let (text, request) = problem(&report, "clock_skew")?;
    ensure!(text.contains("2 h ahead") && request.contains("NTP"), "{text} {request}");
    Ok(())
}
