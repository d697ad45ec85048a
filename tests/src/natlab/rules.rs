//! What the routers of the lab do, as nftables rule sets.
//!
//! Linux gives every conntrack entry an outer port of its own, so "one outer port for all destinations" is written down:
//! the gateway's one socket has the port [`INNER_PORT`], and a rule maps it to [`OUTER_PORT`]. Filtering is conntrack
//! alone (address and port), or a rule that lets more in. What the router drops leaves no conntrack entry, so an early
//! packet of a stranger takes nobody's port; only at [`RouterKind::PlainMasquerade`] it does.

use super::{
    RouterKind,
    address::{Address, carrier_lan},
};

/// UDP port of the gateway's tunnel socket in every site.
pub(super) const INNER_PORT: u16 = 7000;
/// The outer port of the NATs that have one for all destinations.
pub(super) const OUTER_PORT: u16 = 41_000;

/// Nobody inside asked for it.
const UNASKED: &str = "iifname \"wan\" ct state new drop;";

/// The rules of the router of site `index`.
pub(super) fn router(kind: RouterKind, index: u8) -> String {
    let (wan, site) = (Address::wan(index).v4, Address::site(kind, index).v4);
    let one_port = format!(
        "oifname \"wan\" ip saddr {site} udp sport {INNER_PORT} snat ip to {wan}:{OUTER_PORT};
         oifname \"wan\" masquerade;"
    );
    let inwards = format!("iifname \"wan\" udp dport {OUTER_PORT} dnat ip to {site}:{INNER_PORT};");
    let masquerade = "oifname \"wan\" masquerade;";
    let random = "oifname \"wan\" masquerade fully-random;";
    let closed = UNASKED;
    match kind {
        RouterKind::Public => String::new(),
        RouterKind::Firewall | RouterKind::Ipv6Only => table("", "", closed),
        RouterKind::OpenFilter => {
            let open = format!("iifname \"wan\" ip daddr {site} udp dport {INNER_PORT} accept; {closed}");
            table(&inwards, &one_port, &open)
        }
        RouterKind::AddressFilter => {
            let known = format!(
                "iifname \"lan\" meta l4proto udp update @sent_to {{ ip daddr }};
                 iifname \"wan\" ip saddr @sent_to ip daddr {site} udp dport {INNER_PORT} accept; {closed}"
            );
            table(&inwards, &one_port, &known)
        }
        RouterKind::PortFilter => table("", &one_port, closed),
        RouterKind::PreservedPort | RouterKind::CarrierGrade => table("", masquerade, closed),
        RouterKind::PlainMasquerade => chains("", masquerade, "", ""),
        RouterKind::RandomPort | RouterKind::MappedPort => table("", random, closed),
        RouterKind::NoUdp => table("", masquerade, &format!("meta l4proto udp drop; {closed}")),
        RouterKind::OnlyHttps => {
            let https = "iifname \"lan\" meta l4proto != tcp drop; iifname \"lan\" tcp dport != 443 drop;";
            table("", masquerade, &format!("{https} {closed}"))
        }
        RouterKind::OnlyProxy => table("", "", "drop;"),
    }
}

/// The rules of the carrier in front of site `index`: one outer port, open to what was sent to (RFC 6888).
pub(super) fn carrier(index: u8) -> String {
    let (wan, customer) = (Address::wan(index).v4, carrier_lan(index).1);
    let one_port = format!(
        "oifname \"wan\" ip saddr {customer} udp sport {INNER_PORT} snat ip to {wan}:{OUTER_PORT};
         oifname \"wan\" masquerade;"
    );
    table("", &one_port, "iifname \"wan\" ct state new drop;")
}

/// The middle of the internet: private addresses do not exist there.
pub(super) const CORE: &str = "table inet lab {
  chain private {
    type filter hook prerouting priority -200;
    ip daddr { 10.0.0.0/8, 100.64.0.0/10 } drop;
    ip saddr { 10.0.0.0/8, 100.64.0.0/10 } drop;
  }
  chain middle { type filter hook forward priority 0; }
}";

/// The chains `before` (DNAT), `after` (SNAT) and `through` (what is forwarded). Neighbour discovery is never filtered.
fn table(before: &str, after: &str, through: &str) -> String {
    chains(before, after, through, UNASKED)
}

/// The same, with what is done with packets to the router itself (`own`).
fn chains(before: &str, after: &str, through: &str, own: &str) -> String {
    format!(
        "table inet lab {{
           set sent_to {{ type ipv4_addr; flags dynamic, timeout; timeout 60s; size 4096; }}
           chain before {{ type nat hook prerouting priority -100; {before} }}
           chain after {{ type nat hook postrouting priority 100; {after} }}
           chain through {{ type filter hook forward priority 0; {through} }}
           chain own {{ type filter hook input priority 0; meta l4proto ipv6-icmp accept; {own} }}
         }}"
    )
}
