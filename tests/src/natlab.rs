//! The NAT lab: sites behind every kind of router, around one internet with a control plane and two relays.
//!
//! ```text
//!   control.lab   relay-1.lab   relay-2.lab          198.51.100.0/24, 2001:db8:0::/48
//!        \             |            /
//!         ─────────── core ───────────
//!        /             |            \
//!    router          router        carrier           203.0.113.0/24, 2001:db8:1::/48
//!       |              |              |
//!     site           site           router           10.0.0.0/8 behind a NAT, 192.0.2.0/24 without
//!                                     |
//!                                   site
//! ```
//!
//! Control plane and relays have IPv4 and IPv6 and are reached by name, on the usual ports; the names stand in a hosts
//! file of every namespace. What the routers do is in `rules`; what that makes possible, in [`RouterKind::best_rung`].
//! Names of namespaces carry our process id, so that labs do not meet; everything goes on drop. Needs root.

mod address;
mod kind;
mod links;
mod mapper;
mod matrix;
mod outcome;
mod proxy;
mod report;
mod rules;
mod way;
mod wire;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use address::{Address, carrier_lan, v6};
use anyhow::{Context, ensure};

pub use kind::{RouterKind, Rung};
pub use mapper::Mapper;
pub use matrix::{Matrix, NETWORK};
pub use outcome::{FIRST_LIMIT, Outcome};
pub use proxy::Proxy;
pub use report::Report;
pub use way::Way;
pub use wire::BadWire;

use crate::{
    netns::{inside, ip, nft, remove, sysctl},
    platform::{GatewayOptions, Placement},
};

static LABS: AtomicU32 = AtomicU32::new(0);

/// Names and places of what stands in the open internet.
const SERVICES: [&str; 3] = ["control", "relay-1", "relay-2"];
/// Sites at most: what the address plan holds.
const MAX_SITES: u8 = 60;

/// A lab; gone on drop.
#[derive(Debug)]
pub struct NatLab {
    stem: String,
    namespaces: Vec<String>,
    sites: Vec<LabSite>,
    /// Between the core and the relays, where they are far.
    relay_wires: Vec<BadWire>,
}

/// One site of a lab.
#[derive(Debug)]
struct LabSite {
    kind: RouterKind,
    _proxy: Option<Proxy>,
    _mapper: Option<Mapper>,
    wire: Option<BadWire>,
}

impl NatLab {
    /// The internet: core, control plane and relays.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with([None, None])
    }

    /// The same with a bad wire between each relay and the rest; see [`crate::hop`] for the settings.
    pub fn start_with_relays_behind(wires: [&str; 2]) -> anyhow::Result<Self> {
        Self::start_with(wires.map(Some))
    }

    fn start_with(wires: [Option<&str>; 2]) -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        let stem = format!("gl{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let mut lab = Self { stem, namespaces: Vec::new(), sites: Vec::new(), relay_wires: Vec::new() };
        let core = lab.namespace("core")?;
        nft(&core, rules::CORE)?;
        let wires = [None, wires[0], wires[1]];
        for ((name, index), wire) in SERVICES.into_iter().zip(0..).zip(wires) {
            let service = lab.namespace(name)?;
            let (device, address) = (format!("to-{name}"), Address::service(index));
            let (upper, lower) = ((core.as_str(), device.as_str()), (service.as_str(), "eth0"));
            let wire = lab.wired(&format!("h{name}"), upper, lower, address, (true, true), wire)?;
            lab.relay_wires.extend(wire);
        }
        Ok(lab)
    }

    /// Where the control plane runs.
    pub fn control(&self) -> Placement {
        self.service(0)
    }

    /// Where the relays run.
    pub fn relays(&self) -> [Placement; 2] {
        [self.service(1), self.service(2)]
    }

    /// Builds a site behind a router of this kind. Gives its number.
    pub fn add_site(&mut self, kind: RouterKind) -> anyhow::Result<usize> {
        self.add(kind, None)
    }

    /// The same with a bad wire between the internet and the site; see [`crate::hop`] for the settings.
    pub fn add_site_on_a_bad_wire(&mut self, kind: RouterKind, settings: &str) -> anyhow::Result<usize> {
        self.add(kind, Some(settings))
    }

    /// The bad wire of a site, to change it while the lab is in use; without its owner the wire is cut.
    pub fn take_wire(&mut self, site: usize) -> anyhow::Result<BadWire> {
        self.sites.get_mut(site).and_then(|site| site.wire.take()).context("this site has no bad wire")
    }

    /// The bad wires of the relays, to change them while the lab is in use; without their owner they are cut.
    pub fn take_relay_wires(&mut self) -> anyhow::Result<[BadWire; 2]> {
        let wires = std::mem::take(&mut self.relay_wires);
        wires.try_into().ok().context("the relays have no bad wires")
    }

    /// Sets a kernel parameter of a part of the lab, for example of the router `r0`.
    pub fn set(&self, part: &str, setting: &str) -> anyhow::Result<()> {
        sysctl(&self.name(part), &[setting])
    }

    /// Loads rules in a part of the lab, for example in the router `r0`.
    pub fn nft(&self, part: &str, rules: &str) -> anyhow::Result<()> {
        nft(&self.name(part), rules)
    }

    /// The uplink of a site has no carrier, as after a pulled plug.
    pub fn cut(&self, site: usize) -> anyhow::Result<()> {
        self.carrier(site, "down")
    }

    /// The plug is in again.
    pub fn mend(&self, site: usize) -> anyhow::Result<()> {
        self.carrier(site, "up")
    }

    fn carrier(&self, site: usize, state: &str) -> anyhow::Result<()> {
        ip(&["-n", &self.name("core"), "link", "set", &format!("s{site}"), state])
    }

    /// The router of a site forgets every mapping and connection, as after a reboot.
    pub fn reboot_nat(&self, site: usize) -> anyhow::Result<()> {
        inside(&self.name(&format!("r{site}")), &["conntrack", "-F"])
    }

    fn add(&mut self, kind: RouterKind, bad_wire: Option<&str>) -> anyhow::Result<usize> {
        let index = u8::try_from(self.sites.len()).ok().filter(|index| *index < MAX_SITES).context("too many sites")?;
        let core = self.name("core");
        let (to_site, families) = (format!("s{index}"), (kind.has_ipv4(), kind.has_ipv6()));
        let site = self.namespace(&format!("s{index}"))?;
        let address = Address::site(kind, index);
        if kind == RouterKind::Public {
            let wire = self.uplink(index, &to_site, (&site, "eth0"), families, bad_wire)?;
            self.sites.push(LabSite { kind, _proxy: None, _mapper: None, wire });
            return Ok(index.into());
        }
        let router = self.namespace(&format!("r{index}"))?;
        let wire = if kind == RouterKind::CarrierGrade {
            let carrier = self.namespace(&format!("c{index}"))?;
            let wire = self.uplink(index, &to_site, (&carrier, "wan"), families, bad_wire)?;
            let between = Address { v4: carrier_lan(index).1, v6: v6(3, index, 2) };
            self.link((&carrier, "lan"), (&router, "wan"), between, families)?;
            nft(&carrier, &rules::carrier(index))?;
            wire
        } else {
            self.uplink(index, &to_site, (&router, "wan"), families, bad_wire)?
        };
        self.link((&router, "lan"), (&site, "eth0"), address, families)?;
        nft(&router, &rules::router(kind, index))?;
        self.route_back(kind, index, &core, &to_site)?;
        let proxy = (kind == RouterKind::OnlyProxy).then(|| {
            let names = self.services().map(|(name, address)| (name, address.v4)).collect();
            Proxy::start(&router, SocketAddr::new(address.gateway().v4.into(), proxy::PORT), names)
        });
        let mapper = (kind == RouterKind::MappedPort).then(|| self.mapper(index.into(), Mapper::EVERYTHING));
        self.sites.push(LabSite { kind, _proxy: proxy.transpose()?, _mapper: mapper.transpose()?, wire });
        Ok(index.into())
    }

    /// Lets the router of a site forward ports when it is asked; `protocols` in the words of miniupnpd's configuration.
    pub fn mapper(&self, site: usize, protocols: &str) -> anyhow::Result<Mapper> {
        let index = u8::try_from(site).ok().filter(|index| *index < MAX_SITES).context("no such site")?;
        let (core, router) = (self.name("core"), self.name(&format!("r{index}")));
        // One more outer address: miniupnpd forwards nothing at those of documentation, which the lab has otherwise.
        let outer = format!("{}/32", Mapper::outer(site));
        ip(&["-n", &router, "addr", "add", &outer, "dev", "wan"])?;
        ip(&["-n", &core, "route", "add", &outer, "via", &Address::wan(index).v4.to_string()])?;
        nft(&router, "insert rule inet lab through ct status dnat accept")?;
        Mapper::start(&router, Mapper::outer(site), protocols)
    }

    /// Where the gateway of a site runs.
    pub fn site(&self, site: usize) -> Placement {
        let (kind, index) = (self.sites[site].kind, u8::try_from(site).unwrap_or(MAX_SITES));
        let address = Address::site(kind, index);
        let ip: IpAddr = if kind.has_ipv4() { address.v4.into() } else { address.v6.into() };
        Placement::inside(&self.name(&format!("s{index}")), ip)
    }

    /// The outer IPv4 address of a site: where its partner sees it, unless it has one of its own.
    pub fn outer(&self, site: usize) -> IpAddr {
        Address::wan(u8::try_from(site).unwrap_or(MAX_SITES)).v4.into()
    }

    /// What the gateway of a site must be told: the port that its router maps, and its proxy.
    pub fn options(&self, site: usize) -> GatewayOptions {
        let (kind, index) = (self.sites[site].kind, u8::try_from(site).unwrap_or(MAX_SITES));
        let proxy = SocketAddr::new(Address::site(kind, index).gateway().v4.into(), proxy::PORT);
        GatewayOptions {
            listen: Some(format!("[::]:{}", rules::INNER_PORT)),
            proxy: (kind == RouterKind::OnlyProxy).then(|| proxy::url(proxy)),
            port_mapping: kind == RouterKind::MappedPort,
            ..GatewayOptions::default()
        }
    }

    /// The namespace of a part of the lab: `core`, `s0` (a site), `r0` (its router), `c0` (its carrier), a service.
    pub fn name(&self, part: &str) -> String {
        format!("{}{part}", self.stem)
    }

    fn service(&self, index: u8) -> Placement {
        let name = SERVICES[usize::from(index)];
        Placement::inside(&self.name(name), Address::service(index).v4.into()).named(&format!("{name}.lab"))
    }

    fn services(&self) -> impl Iterator<Item = (String, Address)> {
        SERVICES.iter().zip(0..).map(|(name, index)| (format!("{name}.lab"), Address::service(index)))
    }

    fn namespace(&mut self, part: &str) -> anyhow::Result<String> {
        let name = self.name(part);
        // Noted before it is made, so that it goes whatever happens.
        self.namespaces.push(name.clone());
        ip(&["netns", "add", &name])?;
        sysctl(&name, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        let hosts: String = self
            .services()
            .map(|(name, address)| format!("{} {name}\n{} {name}\n", address.v4, address.v6))
            .chain(["127.0.0.1 localhost\n".to_owned()])
            .collect();
        fs::create_dir_all(etc(&name))?;
        fs::write(etc(&name).join("hosts"), hosts)?;
        Ok(name)
    }
}

impl Drop for NatLab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            remove(namespace);
            // One that was never made cannot be removed.
            fs::remove_dir_all(etc(namespace)).ok();
        }
    }
}

/// What `ip netns exec` lays over /etc.
fn etc(namespace: &str) -> PathBuf {
    Path::new("/etc/netns").join(namespace)
}
