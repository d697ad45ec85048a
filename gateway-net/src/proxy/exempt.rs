//! Hosts that are reached without the proxy, in the notation of `NO_PROXY`.

use std::net::IpAddr;

use url::Host;

/// Hosts the proxy is not asked for. Text form: entries separated by commas or spaces. `example.com`, `.example.com` and
/// `*.example.com` mean that name and all below it; `192.0.2.1` one address; `10.0.0.0/8` a network; `*` everything.
/// An entry that is none of these matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exemptions(Vec<Exemption>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exemption {
    Everything,
    /// Lower case, without a dot at either end.
    Domain(String),
    Network {
        address: IpAddr,
        prefix: u32,
    },
}

impl Exemptions {
    /// What `NO_PROXY` or `no_proxy` of the environment says.
    pub fn from_environment() -> Self {
        Self::from_variables(super::environment)
    }

    pub(super) fn from_variables(lookup: impl Fn(&'static str) -> Option<String>) -> Self {
        Self::parse(&lookup("NO_PROXY").or_else(|| lookup("no_proxy")).unwrap_or_default())
    }

    /// From the text form.
    pub fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
        Self(entries.map(Exemption::parse).collect())
    }

    /// Whether `target` is among them.
    pub fn contain(&self, target: &Host<&str>) -> bool {
        self.0.iter().any(|exemption| exemption.matches(target))
    }
}

impl Exemption {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::Everything;
        }
        let (text, prefix) = match entry.split_once('/') {
            Some((text, prefix)) => (text, prefix.parse().ok()),
            None => (entry, Some(u32::MAX)),
        };
        let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let (Ok(address), Some(prefix)) = (text.parse::<IpAddr>(), prefix) {
            let address = address.to_canonical();
            return Self::Network { address, prefix: prefix.min(bits(&address).1) };
        }
        let name = entry.strip_prefix('*').unwrap_or(entry);
        Self::Domain(name.trim_matches('.').to_ascii_lowercase())
    }

    fn matches(&self, target: &Host<&str>) -> bool {
        match self {
            Self::Everything => true,
            Self::Domain(domain) => {
                let Host::Domain(name) = target else { return false };
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let above = name.strip_suffix(domain.as_str());
                !domain.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            Self::Network { address, prefix } => {
                let Some(target) = literal(target) else { return false };
                let ((ours, length), (theirs, other)) = (bits(address), bits(&target));
                // A shift by the whole width does not exist: /0 is everything of the family.
                length == other && (ours ^ theirs).checked_shr(length - prefix).unwrap_or(0) == 0
            }
        }
    }
}

/// A program on this machine, whatever anybody configured.
pub(super) fn is_loopback(target: &Host<&str>) -> bool {
    match target {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Ipv4(_) | Host::Ipv6(_) => literal(target).is_some_and(|address| address.is_loopback()),
    }
}

fn literal(target: &Host<&str>) -> Option<IpAddr> {
    match target {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some(IpAddr::from(*address).to_canonical()),
    }
}

/// The address as a number, and its width.
fn bits(address: &IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}
