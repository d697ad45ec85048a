//! A UDP socket for STUN beside the tunnel's: what measures relays ([`crate::relay_probe`]) and looks at the network
//! ([`crate::netcheck`]) must not be mixed up with what paths live from. As there, an IPv4 server that is reached through a NAT64 has its own
//! address.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use gateway_net::{nat64, udp::mapped};
use gateway_proto::path::normalize;
use tokio::{
    net::{UdpSocket, lookup_host},
    time::{Instant, timeout, timeout_at},
};

/// Longer than any packet that is asked for.
const BUFFER: usize = 2048;

#[derive(Debug)]
pub(crate) struct StunSocket {
    socket: UdpSocket,
    local: SocketAddr,
}

impl StunSocket {
    /// Both families on one port; IPv4 alone where there is no IPv6.
    pub(crate) async fn bind() -> io::Result<Self> {
        let socket = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
            Ok(socket) => socket,
            Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
        };
        Ok(Self { local: socket.local_addr()?, socket })
    }

    pub(crate) fn port(&self) -> u16 {
        self.local.port()
    }

    /// Whether packets can go to an address of this family.
    pub(crate) fn reaches(&self, address: &SocketAddr) -> bool {
        address.is_ipv4() || self.local.is_ipv6()
    }

    /// What cannot be sent is not answered: that is noticed anyway.
    pub(crate) async fn send(&self, packet: &[u8], to: SocketAddr) {
        if self.local.is_ipv4() {
            let _ = self.socket.send_to(packet, to).await;
            return;
        }
        let sent = self.socket.send_to(packet, mapped(to)).await;
        if sent.is_err_and(|error| nat64::is_no_way(&error))
            && let Some(translated) = nat64::translated(to)
        {
            let _ = self.socket.send_to(packet, translated).await;
        }
    }

    /// The next packet; none: there was none until then.
    pub(crate) async fn receive(&self, until: Instant) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match timeout_at(until, self.socket.recv_from(&mut buffer)).await {
                Err(_) => return None,
                Ok(Ok((length, from))) => {
                    buffer.truncate(length);
                    return Some((buffer, nat64::plain(normalize(from))));
                }
                // An ICMP error of an earlier packet: others may still answer.
                Ok(Err(_)) => {}
            }
        }
    }
}

/// The addresses of each server (`host:port`), all looked up at once; none of a name that does not resolve within `limit`.
pub(crate) async fn resolve(servers: impl Iterator<Item = &str>, limit: Duration) -> Vec<Vec<SocketAddr>> {
    let found = join_all(servers.map(|server| timeout(limit, lookup_host(server)))).await;
    let addresses = found.into_iter().map(|found| found.ok().and_then(Result::ok).into_iter().flatten());
    addresses.map(|addresses| addresses.map(|address| nat64::plain(normalize(address))).collect()).collect()
}
