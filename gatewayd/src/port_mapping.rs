//! A port that the router forwards to us (`[tunnel] port_mapping`), asked for by PCP, NAT-PMP or UPnP IGD.
//!
//! One task asks, renews long before the mapping ends (a router that was restarted has it again within two minutes), asks anew
//! after a change of the network, and gives the port back at the end. What it has is in [`Mapped`]: the address becomes a
//! candidate, netcheck shows both address and failure. Off unless configured: a router that opens ports to whoever asks is
//! for the administrator to allow. IPv4 only.
//!
//! Everything the router says is a claim of the local network: the outer address is only ever offered to partners, who
//! probe it within their limits like any other.

mod router;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp};
use gateway_net::entropy::random;
use gateway_proto::{
    backoff::Backoff,
    netcheck::{MappingProtocol, PortMapping as Mapped},
    path::is_public,
};
use igd_next::{
    AddPortError, PortMappingProtocol, SearchOptions,
    aio::{
        Gateway,
        tokio::{Tokio, search_gateway},
    },
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A mapping of a daemon that was killed lives on for so long.
const LEASE: Duration = Duration::from_secs(600);
/// Between two renewals.
const RENEWAL: Duration = Duration::from_secs(120);
/// After a failure; doubles.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const RETRY_LIMIT: Duration = Duration::from_secs(15 * 60);
/// PCP and NAT-PMP: one question and two repetitions, 1.75 s.
const QUESTION: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(250), max_retries: 2, max_retry_timeout: None };
/// For a UPnP router to be found.
const SEARCH_LIMIT: Duration = Duration::from_secs(3);
/// For the port to be given back.
const REMOVAL_LIMIT: Duration = Duration::from_secs(1);
/// What people see in the router's list.
const DESCRIPTION: &str = "gatewayd";

/// Keeps a mapping of the tunnel socket's port.
#[derive(Debug)]
pub struct PortMapper {
    /// The port of the tunnel socket.
    pub port: NonZeroU16,
    /// Told whenever the machine's network changes or it slept.
    pub network: watch::Receiver<u64>,
    /// What there is.
    pub mapped: watch::Sender<Option<Mapped>>,
}

/// Why there is no mapping.
#[derive(Debug, thiserror::Error)]
enum MappingError {
    #[error("there is no IPv4 default route, so no router to ask")]
    NoRouter,
    #[error("the router gives no port (PCP and NAT-PMP: {pmp}; UPnP: {upnp})")]
    Refused { pmp: String, upnp: String },
    #[error("the router's own outer address is not public: it is behind another NAT, where no port can be asked for")]
    NotPublic,
    #[error("the router did not renew the mapping: {0}")]
    NotRenewed(String),
}

/// A mapping, and how to keep it.
#[derive(Debug)]
struct Mapping {
    kind: Kind,
    outer: SocketAddrV4,
}

#[derive(Debug)]
enum Kind {
    Pmp(Box<PortMapping>),
    Upnp { router: Box<Gateway<Tokio>>, local: SocketAddr, lease: u32 },
}

impl PortMapper {
    /// Runs until `stop`; gives the port back then.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, RETRY_LIMIT);
        loop {
            self.network.mark_unchanged();
            let Some(asked) = stop.run_until_cancelled(Mapping::ask(self.port)).await else { return };
            let error = match asked {
                Ok(mapping) => {
                    backoff.reset();
                    self.keep(mapping, &stop).await
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                self.tell(Mapped { protocol: None, outer: None, problem: Some(error.to_string()) });
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(backoff.next_delay(u32::from_be_bytes(random()))) => {}
                    Ok(()) = self.network.changed() => backoff.reset(),
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// Renews until the network changes, `stop`, or the router does not want any more: then the error says why.
    async fn keep(&mut self, mut mapping: Mapping, stop: &CancellationToken) -> Option<MappingError> {
        loop {
            let problem = (!is_public(*mapping.outer.ip())).then(|| MappingError::NotPublic.to_string());
            let outer = problem.is_none().then_some(mapping.outer.into());
            self.tell(Mapped { protocol: Some(mapping.protocol()), outer, problem });
            tokio::select! {
                () = sleep(RENEWAL) => {
                    if let Err(error) = mapping.renew().await {
                        return Some(error);
                    }
                }
                // The router may be another one; the one before forgets by itself if it is out of reach.
                Ok(()) = self.network.changed() => {
                    mapping.remove().await;
                    return None;
                }
                () = stop.cancelled() => {
                    mapping.remove().await;
                    self.mapped.send_replace(None);
                    return None;
                }
            }
        }
    }

    fn tell(&self, next: Mapped) {
        self.mapped.send_if_modified(|current| {
            if current.as_ref() == Some(&next) {
                return false;
            }
            match (&next.protocol, &next.problem) {
                (_, Some(problem)) => warn!(%problem, "no port mapping"),
                (Some(protocol), None) => info!(%protocol, "the router forwards a port to this gateway"),
                (None, None) => {}
            }
            *current = Some(next);
            true
        });
    }
}

impl Mapping {
    /// Asks the router of the default route: PCP, then NAT-PMP, then UPnP.
    async fn ask(port: NonZeroU16) -> Result<Self, MappingError> {
        let router = router::default_router().ok_or(MappingError::NoRouter)?;
        let local = router::source_towards(router).ok_or(MappingError::NoRouter)?;
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: u32::try_from(LEASE.as_secs()).ok(),
            timeout_config: Some(QUESTION),
        };
        let asked = PortMapping::new(router.into(), local.into(), InternetProtocol::Udp, port, options).await;
        let pmp = match asked {
            Ok(mapping) => match outer_of(&mapping).await {
                Ok(outer) => return Ok(Self { kind: Kind::Pmp(Box::new(mapping)), outer }),
                Err(problem) => problem,
            },
            Err(error) => error.to_string(),
        };
        debug!(problem = %pmp, "no mapping by PCP or NAT-PMP");
        let local = SocketAddr::new(local.into(), port.get());
        upnp(router, local).await.map_err(|upnp| MappingError::Refused { pmp, upnp })
    }

    fn protocol(&self) -> MappingProtocol {
        match &self.kind {
            Kind::Pmp(mapping) => match mapping.mapping_type() {
                PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
                PortMappingType::NatPmp => MappingProtocol::NatPmp,
            },
            Kind::Upnp { .. } => MappingProtocol::Upnp,
        }
    }

    async fn renew(&mut self) -> Result<(), MappingError> {
        let renewed = match &mut self.kind {
            Kind::Pmp(mapping) => match mapping.renew().await {
                Ok(()) => outer_of(mapping).await,
                Err(error) => Err(error.to_string()),
            },
            Kind::Upnp { router, local, lease } => {
                let port = self.outer.port();
                let added = router
                    .add_port(PortMappingProtocol::UDP, port, *local, *lease, DESCRIPTION)
                    .await
                    .map_err(|e| e.to_string());
                match added {
                    Ok(()) => outer_ip(router).await.map(|ip| SocketAddrV4::new(ip, port)),
                    Err(problem) => Err(problem),
                }
            }
        };
        self.outer = renewed.map_err(MappingError::NotRenewed)?;
        Ok(())
    }

    /// Gives the port back, if the router hears us.
    async fn remove(self) {
        let removal = async {
            match self.kind {
                Kind::Pmp(mapping) => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
                Kind::Upnp { router, .. } => {
                    let removed = router.remove_port(PortMappingProtocol::UDP, self.outer.port()).await;
                    removed.map_err(|error| error.to_string())
                }
            }
        };
        match timeout(REMOVAL_LIMIT, removal).await {
            Ok(Ok(())) => debug!("the mapped port is given back"),
            Ok(Err(problem)) => debug!(%problem, "the mapped port was not given back"),
            Err(_) => debug!("the router does not answer; the mapped port ends by itself"),
        }
    }
}

/// The outer address of a mapping by PCP, which names it, or NAT-PMP, where it is another question.
async fn outer_of(mapping: &PortMapping) -> Result<SocketAddrV4, String> {
    let port = mapping.external_port().get();
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip: IpAddr::V4(ip), .. } => ip,
        PortMappingType::Pcp { external_ip: IpAddr::V6(ip), .. } => {
            ip.to_ipv4_mapped().ok_or("the outer address is IPv6")?
        }
        PortMappingType::NatPmp => {
            natpmp::external_address(mapping.gateway(), Some(QUESTION)).await.map_err(|e| e.to_string())?
        }
    };
    Ok(SocketAddrV4::new(ip, port))
}

/// The first device that answers may be anybody's: only the router of the default route is asked for a port.
async fn upnp(default_router: Ipv4Addr, local: SocketAddr) -> Result<Mapping, String> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(local.ip(), 0);
    options.timeout = Some(SEARCH_LIMIT);
    let router = search_gateway(options).await.map_err(|error| error.to_string())?;
    if router.addr.ip() != IpAddr::V4(default_router) {
        return Err("what answers is not the router of the default route".to_owned());
    }
    let ip = outer_ip(&router).await?;
    let mut lease = u32::try_from(LEASE.as_secs()).unwrap_or_default();
    let mut added = router.add_port(PortMappingProtocol::UDP, local.port(), local, lease, DESCRIPTION).await;
    if matches!(added, Err(AddPortError::OnlyPermanentLeasesSupported)) {
        lease = 0;
        added = router.add_port(PortMappingProtocol::UDP, local.port(), local, lease, DESCRIPTION).await;
    }
    let port = match added {
        Ok(()) => local.port(),
        Err(AddPortError::PortInUse) => {
            let any = router.add_any_port(PortMappingProtocol::UDP, local, lease, DESCRIPTION).await;
            any.map_err(|error| error.to_string())?
        }
        Err(error) => return Err(error.to_string()),
    };
    Ok(Mapping { kind: Kind::Upnp { router: Box::new(router), local, lease }, outer: SocketAddrV4::new(ip, port) })
}

async fn outer_ip(router: &Gateway<Tokio>) -> Result<Ipv4Addr, String> {
    match router.get_external_ip().await {
        Ok(IpAddr::V4(ip)) => Ok(ip),
        Ok(IpAddr::V6(_)) => Err("the outer address is IPv6".into()),
        Err(error) => Err(error.to_string()),
    }
}
