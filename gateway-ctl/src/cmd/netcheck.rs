//! `gateway-ctl netcheck`: what the network around the gatewayd of this machine lets through, and what to ask the network
//! team for.

use clap::Args;
use gateway_proto::netcheck::{HostOutcome, HostRole, NetcheckBody, PortMapping, Report, Verdict};

use crate::{
    cmd::{Answer, Context},
    error::CtlError,
    output::{text::printable, time::relative_ms},
};

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct Netcheck {
    /// Show the daemon's last report instead of looking anew.
    #[arg(long, conflicts_with_all = ["control", "relay", "stun"])]
    last: bool,
    /// A control plane to try too, for example before the enrolment.
    #[arg(long, value_name = "HOST:PORT")]
    control: Option<String>,
    /// A relay to try too; more than once for several.
    #[arg(long, value_name = "HOST:PORT")]
    relay: Vec<String>,
    /// A STUN server to ask too (UDP); more than once for several.
    #[arg(long, value_name = "HOST:PORT")]
    stun: Vec<String>,
}

impl Netcheck {
    pub(crate) async fn run(self, context: &mut Context) -> Result<Answer, CtlError> {
        let Self { last, control, relay, stun } = self;
        let body = NetcheckBody { stun, control, relays: relay };
        if let Some(mistake) = body.mistake() {
            return Err(CtlError::Usage(mistake));
        }
        let daemon = context.daemon()?;
        let report = if last { daemon.last_netcheck().await? } else { daemon.netcheck(&body).await? };
        if context.out.is_json() {
            context.out.json(&report)?;
        } else {
            context.out.text(&render(&report, gateway_net::time::unix_ms()))?;
        }
        Ok(if report.verdict == Verdict::Good { Answer::Yes } else { Answer::No })
    }
}

fn forwarded(mapping: &PortMapping) -> String {
    match (mapping.protocol, mapping.outer) {
        (Some(protocol), Some(outer)) => format!("{outer}, by {protocol}"),
        (Some(_) | None, _) => "none".to_owned(),
    }
}

fn render(report: &Report, now_ms: u64) -> String {
    let mut text = match report.verdict {
        Verdict::Good => "GOOD  nothing to mend\n".to_owned(),
        Verdict::Limited => format!("LIMITED  data flows; {} to mend\n", things(report.problems.len())),
        Verdict::Blocked => format!("BLOCKED  {}; {} to mend\n", out_of_reach(report), things(report.problems.len())),
        Verdict::Unknown => {
            "UNKNOWN  there is no server to ask: enrol this gateway, or name some with --control, --relay and \
                             --stun\n"
                .to_owned()
        }
    };
    text.push('\n');
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}  {}\n", printable(&value)));
    line("Checked", relative_ms(now_ms, report.checked_at));
    line(
        "UDP",
        yes_or_unknown(report.udp, "gets out and back", "does not get out", "not known: no STUN server could be asked"),
    );
    line("NAT", report.nat_text.clone());
    let through = if report.nat64.is_some() { ", through NAT64" } else { "" };
    let outer = report.public_ipv4.map_or_else(|| "not seen".to_owned(), |address| format!("{address}{through}"));
    line("IPv4 outside", outer);
    line("IPv6 outside", report.public_ipv6.map_or_else(|| "none".to_owned(), |address| address.to_string()));
    line("Port preserved", yes_or_unknown(report.port_preserved, "yes", "no", "not known"));
    line("Hairpin", yes_or_unknown(report.hairpin, "yes", "no", "not known"));
    line("1200-byte UDP", yes_or_unknown(report.large_datagrams, "passes", "does not pass", "not known"));
    if let Some(mapping) = &report.port_mapping {
        line("Port mapping", forwarded(mapping));
    }
    for latency in &report.latencies {
        line("STUN", format!("{} in {:.1} ms", latency.server, latency.rtt_ms));
    }
    for host in &report.hosts {
        let role = match host.role {
            HostRole::Control => "Control plane",
            HostRole::Relay => "Relay",
        };
        line(role, format!("{} {}", host.host, outcome(&host.outcome)));
    }
    line("HTTP proxy", report.proxy.clone().unwrap_or_else(|| "none".to_owned()));
    let skew = report.clock_skew_ms;
    line("Clock", skew.map_or_else(|| "not compared".to_owned(), |ms| format!("{ms} ms from the control plane's")));
    for problem in report.problems.iter().chain(&report.notes) {
        // The issuer of a certificate is text of whoever answered.
        text.push_str(&format!("\n{}  {}\n", problem.code, printable(&problem.text)));
        if let Some(request) = &problem.request {
            text.push_str(&format!("  to the network team: {}\n", printable(request)));
        }
    }
    text
}

fn outcome(outcome: &HostOutcome) -> String {
    match outcome {
        HostOutcome::Reached { connect_ms } => format!("reached in {connect_ms:.1} ms"),
        HostOutcome::Unproven { connect_ms, .. } => {
            format!("reached in {connect_ms:.1} ms, and not proved to be the one")
        }
        HostOutcome::Intercepted { .. } => "answered by somebody else".to_owned(),
        HostOutcome::Foreign { .. } => "answered by something else".to_owned(),
        HostOutcome::Proxy { .. } => "refused by the proxy".to_owned(),
        HostOutcome::ProxyLogin { .. } => "not let in by the proxy".to_owned(),
        HostOutcome::ProxySilent { .. } => "not reached: the proxy does not answer".to_owned(),
        HostOutcome::TlsSilent { .. } => "no answer over TLS".to_owned(),
        HostOutcome::TlsCutOff { .. } => "cut off when TLS begins".to_owned(),
        HostOutcome::Unresolved { .. } => "does not resolve".to_owned(),
        HostOutcome::Unreachable { .. } => "not reached".to_owned(),
    }
}

/// What a gateway cannot do without, and what that means: a tunnel that stands needs neither.
fn out_of_reach(report: &Report) -> &'static str {
    let lost = |role| {
        let mut of_role = report.hosts.iter().filter(|host| host.role == role).peekable();
        of_role.peek().is_some() && !of_role.any(|host| host.outcome.is_reached())
    };
    match (lost(HostRole::Control), lost(HostRole::Relay)) {
        (true, false) => "the control plane is not reached: tunnels go on, and no change of policy arrives",
        (false, true) => "no relay is reached: tunnels that stand go on, new ones need a direct path that is known",
        // Both are there, and let this process go without.
        (false, false) if report.problems.iter().any(|problem| problem.code == "runs_twice") => {
            "another process with this gateway's key carries its data, and this one nothing"
        }
        (true, true) | (false, false) => {
            "neither the control plane nor a relay is reached: what goes over a direct path goes on, nothing new comes up"
        }
    }
}

fn things(count: usize) -> String {
    if count == 1 { "one thing".to_owned() } else { format!("{count} things") }
}

fn yes_or_unknown(fact: Option<bool>, yes: &str, no: &str, unknown: &str) -> String {
    match fact {
        Some(true) => yes,
        Some(false) => no,
        None => unknown,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use gateway_proto::netcheck::{HostCheck, Observations, Problem, judge};

    use super::*;

    #[test]
    fn what_the_network_answered_cannot_move_the_cursor_or_turn_the_line() {
        let mut report = judge(&Observations::default(), 1000);
        let hostile = "a\u{1b}[2Jb\u{202e}c\nQ";
        report.nat_text = hostile.into();
        report.proxy = Some(hostile.into());
        report.problems.iter_mut().for_each(|problem| problem.text = hostile.into());
        let outcome = HostOutcome::Reached { connect_ms: 1.0 };
        report.hosts.push(HostCheck { role: HostRole::Relay, host: hostile.into(), proxied: false, outcome });
        let text = render(&report, 3000);
        assert!(text.contains("a\u{fffd}[2Jb\u{fffd}c Q"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}') && !text.contains("\nQ"), "{text}");
    }

    #[test]
    fn a_note_stands_with_its_sentence_below_a_verdict_that_is_good() {
        let mut report = judge(&Observations::default(), 1000);
        report.verdict = Verdict::Good;
        let request = Some("Please turn on hairpin NAT.".to_owned());
        report.notes = vec![Problem { code: "hairpin".into(), text: "No way round.".into(), request }];
        let text = render(&report, 3000);
        assert!(text.starts_with("GOOD  nothing to mend\n"), "{text}");
        assert!(
            text.contains("\nhairpin  No way round.\n  to the network team: Please turn on hairpin NAT.\n"),
            "{text}"
        );
    }

    #[test]
    fn the_sentence_for_the_network_team_stands_below_its_problem() {
        let outcome = HostOutcome::Unreachable { problem: "timed out".into() };
        let hosts =
            vec![HostCheck { role: HostRole::Relay, host: "relay.example:443".into(), proxied: false, outcome }];
        let report = judge(&Observations { hosts, ..Observations::default() }, 1000);
        let text = render(&report, 3000);
        let nothing = render(&judge(&Observations::default(), 1000), 3000);
        assert!(nothing.starts_with("UNKNOWN  there is no server to ask"), "{nothing}");
        assert!(text.starts_with("BLOCKED  no relay is reached: tunnels that stand go on, "), "{text}");
        assert!(text.contains("that is known; one thing to mend\n"), "{text}");
        assert!(text.contains("Relay             relay.example:443 not reached"), "{text}");
        assert!(text.contains("\ntcp_blocked  "), "{text}");
        assert!(
            text.contains("  to the network team: Please allow TCP from this machine to relay.example port 443"),
            "{text}"
        );
    }
}
