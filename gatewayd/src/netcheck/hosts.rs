//! TLS servers: reached, taken apart on the way, or not there.

use std::{error::Error, time::Duration};

use futures_util::future::join_all;
use gateway_net::{
    causes::with_causes,
    inspect::{InspectError, Sight, inspect},
    proxy::{Proxy, ProxyError},
    tls::ServerTrust,
};
use gateway_proto::netcheck::{HostCheck, HostOutcome, HostRole, split_host};
use url::Host;

/// For everything up to the end of the handshake.
const LIMIT: Duration = Duration::from_secs(5);

/// A server to try.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) role: HostRole,
    /// `host:port`.
    pub(super) host: String,
    /// How its key is known; none: it is not.
    pub(super) trust: Option<ServerTrust>,
}

/// Tries all at once.
pub(super) async fn try_all(targets: &[Target], proxy: Option<&Proxy>) -> Vec<HostCheck> {
    join_all(targets.iter().map(|target| try_one(target, proxy))).await
}

async fn try_one(target: &Target, proxy: Option<&Proxy>) -> HostCheck {
    let sight = match split_host(&target.host) {
        Some((host, port)) => {
            let host = match host.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(ip)) => Host::Ipv4(ip),
                Ok(std::net::IpAddr::V6(ip)) => Host::Ipv6(ip),
                Err(_) => Host::Domain(host),
            };
            inspect(&host, port, target.trust, proxy, LIMIT).await
        }
        None => Err(InspectError::Resolve(std::io::ErrorKind::InvalidInput.into())),
    };
    HostCheck { role: target.role, host: target.host.clone(), outcome: outcome(sight, target.trust) }
}

fn outcome(sight: Result<Sight, InspectError>, trust: Option<ServerTrust>) -> HostOutcome {
    let text = |error: &(dyn Error + 'static)| with_causes(error);
    match sight {
        Ok(sight) if sight.genuine => HostOutcome::Reached { connect_ms: sight.connect.as_secs_f64() * 1e3 },
        Ok(sight) => HostOutcome::Intercepted {
            issuer: sight.issuer,
            shown: sight.shown.to_string(),
            pinned: match trust {
                Some(ServerTrust::Pin(pin)) => pin.to_string(),
                Some(ServerTrust::WebPki) | None => "of a certificate for this name from the public web PKI".into(),
            },
        },
        Err(InspectError::Proxy(error @ (ProxyError::Unreachable { .. } | ProxyError::Resolve { .. }))) => {
            HostOutcome::ProxySilent { problem: text(&error) }
        }
        Err(InspectError::Proxy(error @ ProxyError::Credentials { .. })) => {
            HostOutcome::ProxyLogin { problem: text(&error) }
        }
        Err(InspectError::Proxy(error)) => HostOutcome::Proxy { problem: text(&error) },
        Err(InspectError::Resolve(error)) => HostOutcome::Unresolved { problem: text(&error) },
        Err(InspectError::Connect(error)) => HostOutcome::Unreachable { problem: text(&error) },
        Err(error @ InspectError::Timeout { .. }) => HostOutcome::Unreachable { problem: text(&error) },
        Err(error @ InspectError::ProxyTimeout { .. }) => HostOutcome::ProxySilent { problem: text(&error) },
        Err(error @ InspectError::TlsTimeout { .. }) => HostOutcome::TlsSilent { problem: text(&error) },
        Err(InspectError::Tls(error)) => HostOutcome::Foreign { problem: text(&error) },
    }
}
