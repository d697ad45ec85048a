//! Looks at the network around this gateway: what gets out, what comes back, and who is in between.
//!
//! A look asks the STUN servers of the policy from one socket of its own (so that a running tunnel is not touched), opens
//! a TLS connection to the control plane and to every relay, and drops it again. What was seen is judged in
//! [`gateway_proto::netcheck`]. It runs every five minutes by itself, a line in the log says what changed, and whenever
//! somebody asks; one at a time. Before the enrolment only what the asking person names is looked at.

mod hosts;
mod reflect;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use gateway_net::{
    https::{HttpsRequest, exchange},
    nat64,
    proxy::Proxy,
    time::{unix_ms, unix_secs},
    tls::{ServerTrust, TlsPin},
    ws::CONNECT_TIMEOUT,
};
use gateway_proto::{
    api::local::ControlStatus,
    netcheck::{
        CarrierSight, HostRole, NetcheckBody, Observations, PortMapping, Report, Verdict, http_date, judge, split_host,
    },
    path::Selected,
};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use crate::{
    authority::Authority,
    registry::{Registry, RunningRelay},
    socket::TunnelSocket,
};
use hosts::Target;

/// Between two looks of the daemon's own.
const INTERVAL: Duration = Duration::from_secs(300);
/// After the start: links and policy come first.
const FIRST: Duration = Duration::from_secs(20);
/// For an answer of the control plane, whatever it is: as long as its link may take to connect, and a little.
const DATE_LIMIT: Duration = CONNECT_TIMEOUT.saturating_add(Duration::from_secs(2));
/// The longest body of such an answer, which nobody reads.
const DATE_BODY: usize = 1 << 20;
/// STUN servers asked in one look.
const MAX_SERVERS: usize = 12;
/// TLS servers tried in one look.
const MAX_HOSTS: usize = 12;

/// The looker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Netcheck(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authority: Authority,
    proxy: Option<Proxy>,
    socket: Arc<TunnelSocket>,
    mapped: watch::Receiver<Option<PortMapping>>,
    control: watch::Receiver<ControlStatus>,
    registry: Registry,
    last: watch::Sender<Option<Report>>,
    /// Two looks at a time would measure each other.
    turn: Mutex<()>,
}

impl Netcheck {
    /// Looks with the policy's servers, through `proxy`. `mapped` is the port that the router forwards to the tunnel
    /// socket, `registry` knows how that gets to the relays.
    pub fn new(
        authority: Authority,
        proxy: Option<Proxy>,
        socket: Arc<TunnelSocket>,
        mapped: watch::Receiver<Option<PortMapping>>,
        control: watch::Receiver<ControlStatus>,
        registry: Registry,
    ) -> Self {
        let last = watch::Sender::new(None);
        Self(Arc::new(Shared { authority, proxy, socket, mapped, control, registry, last, turn: Mutex::new(()) }))
    }

    /// The last report.
    pub fn last(&self) -> Option<Report> {
        self.0.last.borrow().clone()
    }

    /// Looks now, at the policy's servers and at those of `body`. Takes up to 15 s, and as long again where a look is
    /// under way.
    pub async fn look(&self, body: &NetcheckBody) -> Report {
        let _turn = self.0.turn.lock().await;
        let report = judge(&self.observe(body).await, unix_ms());
        self.0.last.send_replace(Some(report.clone()));
        report
    }

    /// Looks again and again until `stop`, and logs what changed.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut known: Option<(Verdict, BTreeSet<String>)> = None;
            tokio::time::sleep(FIRST).await;
            loop {
                if self.0.authority.view().policy.is_some() {
                    let report = self.look(&NetcheckBody::default()).await;
                    let codes: BTreeSet<_> = report.problems.iter().map(|problem| problem.code.clone()).collect();
                    let found = Some((report.verdict, codes));
                    if found != known {
                        tell(&report);
                        known = found;
                    }
                }
                tokio::time::sleep(INTERVAL).await;
            }
        })
        .await;
    }

    async fn observe(&self, body: &NetcheckBody) -> Observations {
        let (servers, targets) = (self.servers(body), self.targets(body));
        let proxy = self.0.proxy.as_ref();
        let (udp, hosts, sources, skew) = tokio::join!(
            reflect::reflect(&servers),
            hosts::try_all(&targets, proxy),
            hosts::sources(proxy),
            self.skew()
        );
        Observations {
            reflections: udp.reflections,
            port: udp.port,
            hairpin: udp.hairpin,
            large: udp.large,
            hosts,
            proxy: proxy.map(ToString::to_string),
            sources,
            clock_skew_ms: skew,
            socket: self.0.socket.problem(),
            nat64: nat64::prefix(),
            port_mapping: self.0.mapped.borrow().clone(),
            carriers: self.carriers(),
            direct: self.direct(),
            runs_twice: self.0.authority.twice(),
        }
    }

    fn carriers(&self) -> Vec<CarrierSight> {
        let port = self.0.socket.local_port();
        let attached = self.0.registry.relays().into_iter().filter(|relay| relay.link.state().borrow().attached);
        let sight = |relay: RunningRelay| {
            let Target { host, .. } = Target::of_url(HostRole::Relay, &relay.entry.url, None)?;
            Some(CarrierSight { relay: host, port, reason: relay.link.carrier() })
        };
        attached.filter_map(sight).collect()
    }

    /// Where direct paths carry data to: an answer came back over each within seconds.
    fn direct(&self) -> Vec<SocketAddr> {
        let peers = self.0.registry.peers().into_iter().filter(|peer| peer.proof.is_connected());
        let paths = peers.filter_map(|peer| peer.path());
        paths
            .filter_map(|path| match path.selected {
                Selected::Direct { remote, .. } => Some(remote),
                Selected::Relayed | Selected::None => None,
            })
            .collect()
    }

    /// The control plane's clock minus ours: from the link, or, where our signatures are refused because of the clock, from
    /// the date of an answer that needs none.
    async fn skew(&self) -> Option<i64> {
        let known = self.0.control.borrow().clone();
        if known.connected {
            return known.clock_skew_ms;
        }
        let enrollment = self.0.authority.enrollment().borrow().clone()?;
        let request = HttpsRequest {
            url: Url::parse(&enrollment.control).ok()?,
            trust: enrollment.trust().ok()?,
            proxy: self.0.proxy.clone(),
            json: None,
            max_body: DATE_BODY,
            limit: DATE_LIMIT,
        };
        let answer = exchange(request).await.ok()?;
        let date = http_date(answer.headers.get("date")?.to_str().ok()?)?;
        let skew = i128::from(date) - i128::from(unix_secs());
        i64::try_from(skew * 1000).ok()
    }

    fn servers(&self, body: &NetcheckBody) -> Vec<String> {
        let view = self.0.authority.view();
        let known = view.policy.iter().flat_map(|policy| &policy.relays).flat_map(|relay| &relay.stun);
        distinct(known.chain(&body.stun).cloned(), MAX_SERVERS)
    }

    /// Control plane and relays of the enrolment and the policy, each with its key, and those of the body without.
    fn targets(&self, body: &NetcheckBody) -> Vec<Target> {
        let mut targets = Vec::new();
        if let Some(enrollment) = &*self.0.authority.enrollment().borrow() {
            targets.extend(Target::of_url(HostRole::Control, &enrollment.control, enrollment.trust().ok()));
        }
        let view = self.0.authority.view();
        for relay in view.policy.iter().flat_map(|policy| &policy.relays) {
            let trust = match &relay.tls_pin {
                Some(pin) => pin.parse::<TlsPin>().ok().map(ServerTrust::Pin),
                None => Some(ServerTrust::WebPki),
            };
            targets.extend(Target::of_url(HostRole::Relay, &relay.url, trust));
        }
        let named = body.control.iter().map(|host| (HostRole::Control, host));
        for (role, host) in named.chain(body.relays.iter().map(|host| (HostRole::Relay, host))) {
            targets.extend(split_host(host).map(|_| Target { role, host: host.clone(), trust: None }));
        }
        targets.truncate(MAX_HOSTS);
        targets
    }
}

impl Target {
    fn of_url(role: HostRole, url: &str, trust: Option<ServerTrust>) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let host = format!("{}:{}", url.host()?, url.port_or_known_default()?);
        Some(Self { role, host, trust })
    }
}

/// Each once, in their order.
fn distinct(all: impl Iterator<Item = String>, most: usize) -> Vec<String> {
    let mut seen = BTreeSet::new();
    all.filter(|one| seen.insert(one.clone())).take(most).collect()
}

fn tell(report: &Report) {
    let codes: Vec<_> = report.problems.iter().map(|problem| problem.code.as_str()).collect();
    let codes = codes.join(" ");
    match report.verdict {
        Verdict::Good => info!(nat = %report.nat, "the network suits a gateway"),
        Verdict::Limited => info!(nat = %report.nat, %codes, "the network limits this gateway: gateway-ctl netcheck"),
        Verdict::Blocked => warn!(%codes, "the network blocks this gateway: gateway-ctl netcheck"),
        Verdict::Unknown => {
            info!("nobody can be asked whether the network suits a gateway: the policy names no server")
        }
    }
}
