//! The wires of a lab: between which machines, with which addresses, good or bad.

use super::{BadWire, NatLab, RouterKind, address::Address};
use crate::netns::{batch, inside, ip};

impl NatLab {
    /// Between the core and the outermost machine of a site.
    pub(super) fn uplink(
        &mut self,
        index: u8,
        device: &str,
        lower: (&str, &str),
        families: (bool, bool),
        bad_wire: Option<&str>,
    ) -> anyhow::Result<Option<BadWire>> {
        let core = self.name("core");
        self.wired(&format!("h{index}"), (&core, device), lower, Address::wan(index), families, bad_wire)
    }

    /// A link, with a hop called `hop` in the middle if the wire is to be bad.
    pub(super) fn wired(
        &mut self,
        hop: &str,
        upper: (&str, &str),
        lower: (&str, &str),
        address: Address,
        families: (bool, bool),
        bad_wire: Option<&str>,
    ) -> anyhow::Result<Option<BadWire>> {
        let Some(settings) = bad_wire else {
            self.link(upper, lower, address, families)?;
            return Ok(None);
        };
        let hop = self.namespace(hop)?;
        for (end, own) in [(upper, "outer"), (lower, "inner")] {
            veth(end, (&hop, own))?;
            batch(&hop, &format!("link set {own} up\n"))?;
            // A packet socket sees frames as they are handed over: they must be whole, and no longer than the wire allows.
            inside(end.0, &["ethtool", "-K", end.1, "tx", "off"])?;
        }
        self.address(upper, lower, address, families)?;
        Ok(Some(BadWire::start(&hop, settings)?))
    }

    /// A link with addresses of the wanted families (IPv4, IPv6), and the way out over it.
    pub(super) fn link(
        &self,
        upper: (&str, &str),
        lower: (&str, &str),
        address: Address,
        families: (bool, bool),
    ) -> anyhow::Result<()> {
        veth(upper, lower)?;
        self.address(upper, lower, address, families)
    }

    fn address(
        &self,
        upper: (&str, &str),
        lower: (&str, &str),
        address: Address,
        (v4, v6): (bool, bool),
    ) -> anyhow::Result<()> {
        let gateway = address.gateway();
        for ((namespace, device), own, way_out) in [(upper, gateway, None), (lower, address, Some(gateway))] {
            let mut lines = format!("link set {device} up\n");
            if v4 {
                lines += &format!("addr add {}/30 dev {device}\n", own.v4);
            }
            if v6 {
                lines += &format!("addr add {}/64 dev {device} nodad\n", own.v6);
            }
            if let Some(way_out) = way_out {
                if v4 {
                    lines += &format!("route add default via {}\n", way_out.v4);
                }
                if v6 {
                    lines += &format!("route add default via {}\n", way_out.v6);
                }
            }
            batch(namespace, &lines)?;
        }
        Ok(())
    }

    /// Sites with public addresses behind a router: the core must know the way.
    pub(super) fn route_back(&self, kind: RouterKind, index: u8, core: &str, device: &str) -> anyhow::Result<()> {
        let (site, wan) = (Address::site(kind, index), Address::wan(index));
        let mut lines = String::new();
        if kind == RouterKind::Firewall {
            lines += &format!("route add {}/32 via {} dev {device}\n", site.v4, wan.v4);
        }
        if kind.has_ipv6() {
            lines += &format!("route add {}/128 via {} dev {device}\n", site.v6, wan.v6);
        }
        if lines.is_empty() { Ok(()) } else { batch(core, &lines) }
    }
}

fn veth(one: (&str, &str), other: (&str, &str)) -> anyhow::Result<()> {
    ip(&["link", "add", one.1, "netns", one.0, "type", "veth", "peer", "name", other.1, "netns", other.0])
}
