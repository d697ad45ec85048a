//! A port that the router forwards to us (`[tunnel] port_mapping`), asked for by PCP, NAT-PMP or UPnP IGD.
//!
//! One task asks, renews long before the mapping ends (a router that was restarted has it again within two minutes; how, says
//! [`gateway_proto::netcheck::Lease`]), asks anew after a change of the network, and gives the port back at the end. What it has is in [`Mapped`]: the address becomes a
//! candidate, status and netcheck show both address and failure. Off unless configured: a router that opens ports to whoever asks is
//! for the administrator to allow. IPv4 only.
//!
//! Everything the router says is a claim of the local network: the outer address is only ever offered to partners, who
//! probe it within their limits like any other.

mod router;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU16,
    time::{Duration, Instant},
};

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp,
    pcp::{self, BaseMapRequest},
};
use gateway_net::entropy::random_u32;
use gateway_proto::{
    backoff::Backoff,
    netcheck::{LEASE, Lease, LeaseError, MappingProtocol, PortMapping as Mapped, outer_ipv4},
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
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

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
    #[error("the router gives no port (PCP: {pcp}; NAT-PMP: {nat_pmp}; UPnP: {upnp})")]
    Refused { pcp: String, nat_pmp: String, upnp: String },
    #[error("the router did not renew the mapping: {0}")]
    NotRenewed(String),
}

/// A mapping, and how to keep it.
#[derive(Debug)]
struct Mapping {
    kind: Kind,
    lease: Lease,
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
                    () = sleep(backoff.next_delay(random_u32())) => {}
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
            let outer = mapping.lease.outer();
            let problem = outer.as_ref().err().map(LeaseError::to_string);
            self.tell(Mapped { protocol: Some(mapping.protocol()), outer: outer.ok(), problem });
            tokio::select! {
                () = sleep_until(mapping.lease.renew_at().into()) => {
                    let former = mapping.lease;
                    if let Err(error) = mapping.renew().await {
                        return Some(error);
                    }
                    if former.was_forgotten_before(&mapping.lease) {
                        info!("the router was restarted; it forwards a port again");
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
        let base = BaseMapRequest::new(router.into(), local.into(), InternetProtocol::Udp, port);
        let pcp = match granted(pcp::port_mapping(base, None, None, options(port)).await).await {
            Ok(mapping) => return Ok(mapping),
            Err(problem) => problem,
        };
        // Whatever it said: routers of before PCP say nothing to it, or nonsense.
        let asked = natpmp::port_mapping(router.into(), InternetProtocol::Udp, port, options(port)).await;
        let nat_pmp = match granted(asked).await {
            Ok(mapping) => return Ok(mapping),
            Err(problem) => problem,
        };
        debug!(%pcp, %nat_pmp, "no mapping by PCP or NAT-PMP");
        let local = SocketAddr::new(local.into(), port.get());
        upnp(router, local).await.map_err(|upnp| MappingError::Refused { pcp, nat_pmp, upnp })
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
            Kind::Pmp(mapping) => match renewed(mapping).await {
                Ok(()) => lease_of(mapping).await,
                Err(problem) => Err(problem),
            },
            Kind::Upnp { router, local, lease } => {
                let port = self.lease.port();
                let added = router
                    .add_port(PortMappingProtocol::UDP, port, *local, *lease, DESCRIPTION)
                    .await
                    .map_err(|e| e.to_string());
                match added {
                    Ok(()) => outer_ip(router).await.map(|ip| lasting(ip, port)),
                    Err(problem) => Err(problem),
                }
            }
        };
        self.lease = renewed.map_err(MappingError::NotRenewed)?;
        Ok(())
    }

    /// Gives the port back, if the router hears us.
    async fn remove(self) {
        let removal = async {
            match self.kind {
                Kind::Pmp(mapping) => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
                Kind::Upnp { router, .. } => {
                    let removed = router.remove_port(PortMappingProtocol::UDP, self.lease.port()).await;
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

fn options(port: NonZeroU16) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: u32::try_from(LEASE.as_secs()).ok(),
        timeout_config: Some(QUESTION),
    }
}

/// A mapping as it was granted; what cannot be kept is none.
async fn granted<E: std::fmt::Display>(asked: Result<PortMapping, E>) -> Result<Mapping, String> {
    let mapping = asked.map_err(|error| error.to_string())?;
    let lease = lease_of(&mapping).await?;
    Ok(Mapping { kind: Kind::Pmp(Box::new(mapping)), lease })
}

/// Asks for the same again, for as long as at first: a router that was in trouble may have granted little.
async fn renewed(mapping: &mut PortMapping) -> Result<(), String> {
    let options = options(mapping.external_port());
    let (router, port) = (mapping.gateway(), mapping.internal_port());
    let next = match mapping.mapping_type() {
        PortMappingType::Pcp { client, nonce, external_ip } => {
            let base = BaseMapRequest::new(router, client, InternetProtocol::Udp, port);
            pcp::port_mapping(base, Some(nonce), Some(external_ip), options).await.map_err(|error| error.to_string())
        }
        PortMappingType::NatPmp => {
            natpmp::port_mapping(router, InternetProtocol::Udp, port, options).await.map_err(|error| error.to_string())
        }
    };
    *mapping = next?;
    Ok(())
}

/// What a mapping is worth. PCP names the outer address, with NAT-PMP it is another question.
async fn lease_of(mapping: &PortMapping) -> Result<Lease, String> {
    let now = Instant::now();
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => outer_ipv4(external_ip).ok_or("the outer address is IPv6")?,
        PortMappingType::NatPmp => {
            natpmp::external_address(mapping.gateway(), Some(QUESTION)).await.map_err(|e| e.to_string())?
        }
    };
    let outer = SocketAddrV4::new(ip, mapping.external_port().get());
    Lease::new(outer, mapping.lifetime(), Some(mapping.gateway_epoch()), now).map_err(|error| error.to_string())
}

fn lasting(ip: Ipv4Addr, port: u16) -> Lease {
    Lease::lasting(SocketAddrV4::new(ip, port), Instant::now())
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
    Ok(Mapping { kind: Kind::Upnp { router: Box::new(router), local, lease }, lease: lasting(ip, port) })
}

async fn outer_ip(router: &Gateway<Tokio>) -> Result<Ipv4Addr, String> {
    match router.get_external_ip().await {
        Ok(IpAddr::V4(ip)) => Ok(ip),
        Ok(IpAddr::V6(_)) => Err("the outer address is IPv6".into()),
        Err(error) => Err(error.to_string()),
    }
}
