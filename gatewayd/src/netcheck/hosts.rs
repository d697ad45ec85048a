//! TLS servers: reached, taken apart on the way, or not there.

use std::{error::Error, net::IpAddr, time::Duration};

use futures_util::future::join_all;
use gateway_net::{
    causes::with_causes,
    inspect::{InspectError, Sight, inspect},
    proxy::{Proxy, ProxyError},
    tls::{ServerTrust, TlsPin},
    ws::CONNECT_TIMEOUT,
};
use gateway_proto::netcheck::{HostCheck, HostOutcome, HostRole, OWN_ISSUER, ProxyRefusal, split_host};
use url::Host;

use crate::{
    candidates::RESOLVE_TIMEOUT,
    net_watch::{way_to, ways_out},
    stun_socket::resolve,
};

/// For everything up to the end of the handshake: what a link waits for is not out of reach.
const LIMIT: Duration = CONNECT_TIMEOUT;

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

/// Our own addresses towards the proxy or, where there is none or its name does not resolve, the internet.
pub(super) async fn sources(proxy: Option<&Proxy>) -> Vec<IpAddr> {
    let proxy = proxy.map(ToString::to_string);
    let found = resolve(proxy.iter().map(String::as_str), RESOLVE_TIMEOUT).await;
    let mut near: Vec<IpAddr> = found.into_iter().flatten().filter_map(way_to).collect();
    near.sort_unstable();
    near.dedup();
    if near.is_empty() { ways_out().into_iter().flatten().collect() } else { near }
}

async fn try_one(target: &Target, proxy: Option<&Proxy>) -> HostCheck {
    let mut proxied = false;
    let sight = match split_host(&target.host) {
        Some((host, port)) => {
            let host = match host.parse::<IpAddr>() {
                Ok(IpAddr::V4(ip)) => Host::Ipv4(ip),
                Ok(IpAddr::V6(ip)) => Host::Ipv6(ip),
                Err(_) => Host::Domain(host),
            };
            proxied = proxy.is_some_and(|proxy| proxy.covers(&host));
            inspect(&host, port, Some(target.trust.unwrap_or(ServerTrust::WebPki)), proxy, LIMIT).await
        }
        None => Err(InspectError::Resolve(std::io::ErrorKind::InvalidInput.into())),
    };
    HostCheck { role: target.role, host: target.host.clone(), proxied, outcome: outcome(sight, target.trust) }
}

fn outcome(sight: Result<Sight, InspectError>, trust: Option<ServerTrust>) -> HostOutcome {
    let text = |error: &(dyn Error + 'static)| with_causes(error);
    let ms = |sight: &Sight| sight.connect.as_secs_f64() * 1e3;
    match sight {
        Ok(sight) if sight.genuine => HostOutcome::Reached { connect_ms: ms(&sight) },
        // Before the enrolment no key is known: what our programs make for themselves is as good as it gets.
        Ok(sight) if trust.is_none() && sight.issuer.as_deref() == Some(OWN_ISSUER) => {
            HostOutcome::Reached { connect_ms: ms(&sight) }
        }
        Ok(sight) if trust.is_none() => {
            HostOutcome::Unproven { connect_ms: ms(&sight), shown: sight.shown.to_string(), issuer: sight.issuer }
        }
        Ok(sight) => intercepted(sight.shown, sight.issuer, trust),
        // The right key in a certificate that nobody can use, and any key while none is known: not what a link could use.
        Err(error @ InspectError::Shown { shown, .. })
            if trust.is_none_or(|trust| trust == ServerTrust::Pin(shown)) =>
        {
            HostOutcome::Foreign { problem: text(&error) }
        }
        Err(InspectError::Shown { shown, issuer, source: _ }) => intercepted(shown, issuer, trust),
        Err(InspectError::Proxy(error @ (ProxyError::Unreachable { .. } | ProxyError::Resolve { .. }))) => {
            HostOutcome::ProxySilent { problem: text(&error) }
        }
        Err(InspectError::Proxy(error @ ProxyError::Credentials { .. })) => {
            HostOutcome::ProxyLogin { problem: text(&error) }
        }
        Err(InspectError::Proxy(error)) => HostOutcome::Proxy { problem: text(&error), refusal: refusal(&error) },
        Err(InspectError::Resolve(error)) => HostOutcome::Unresolved { problem: text(&error) },
        Err(InspectError::Connect(error)) => HostOutcome::Unreachable { problem: text(&error) },
        Err(error @ InspectError::Timeout { .. }) => HostOutcome::Unreachable { problem: text(&error) },
        Err(error @ InspectError::ProxyTimeout { .. }) => HostOutcome::ProxySilent { problem: text(&error) },
        Err(error @ InspectError::TlsTimeout { .. }) => HostOutcome::TlsSilent { problem: text(&error) },
        Err(error @ InspectError::CutOff(_)) => HostOutcome::TlsCutOff { problem: text(&error) },
        Err(InspectError::Tls(error)) => HostOutcome::Foreign { problem: text(&error) },
    }
}

fn intercepted(shown: TlsPin, issuer: Option<String>, trust: Option<ServerTrust>) -> HostOutcome {
    let pinned = match trust {
        Some(ServerTrust::Pin(pin)) => pin.to_string(),
        Some(ServerTrust::WebPki) | None => "of a certificate for this name from the public web PKI".into(),
    };
    HostOutcome::Intercepted { issuer, shown: shown.to_string(), pinned }
}

fn refusal(error: &ProxyError) -> ProxyRefusal {
    match error {
        ProxyError::Refused { status, .. } => ProxyRefusal::of_status(status.as_u16()),
        ProxyError::Scheme { .. } => ProxyRefusal::LoginScheme,
        ProxyError::Malformed { .. } => ProxyRefusal::NotAProxy,
        ProxyError::Broken { .. } => ProxyRefusal::BrokenOff,
        ProxyError::Resolve { .. } | ProxyError::Unreachable { .. } | ProxyError::Credentials { .. } => {
            ProxyRefusal::NotAllowed
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;

    /// What comes of a relay behind a proxy that answers so; nothing: it hangs up.
    async fn through(answer: &'static str) -> HostCheck {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy: Proxy = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            client.write_all(answer.as_bytes()).await.unwrap();
        });
        assert_eq!(sources(Some(&proxy)).await, [IpAddr::from([127, 0, 0, 1])]);
        try_one(&Target { role: HostRole::Relay, host: "relay.example:443".into(), trust: None }, Some(&proxy)).await
    }

    #[tokio::test]
    async fn what_the_proxy_says_is_told_apart_by_what_has_to_be_asked_for() {
        for (answer, expected) in [
            ("HTTP/1.1 403 No\r\n\r\n", ProxyRefusal::NotAllowed),
            ("HTTP/1.1 429 Slow down\r\n\r\n", ProxyRefusal::TooOften),
            ("HTTP/1.1 502 Bad\r\n\r\n", ProxyRefusal::NotReached),
            ("HTTP/1.1 302 There\r\nLocation: http://login.example/\r\n\r\n", ProxyRefusal::LoginPage),
            ("HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM\r\n\r\n", ProxyRefusal::LoginScheme),
            ("SSH-2.0-OpenSSH\r\n\r\n", ProxyRefusal::NotAProxy),
            ("", ProxyRefusal::BrokenOff),
        ] {
            let check = through(answer).await;
            let HostOutcome::Proxy { refusal, .. } = check.outcome else { panic!("{answer}: {check:?}") };
            assert!(check.proxied && refusal == expected, "{answer}: {refusal:?}");
        }
        let check = through("HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n").await;
        assert!(matches!(check.outcome, HostOutcome::ProxyLogin { .. }), "{check:?}");
    }
}
