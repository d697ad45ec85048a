//! The NAT64 of the network that this machine is in, for everything that sends: one per process, as there is one network.
//!
//! Nobody knows one unless the program finds it out ([`gateway_proto::nat64::Discovery`]) and tells [`set`]. It is used where the kernel says that
//! there is no way to an IPv4 address, packet by packet and connection by connection: a machine that has an IPv4 route for some
//! addresses uses it for these.

use std::{io, net::SocketAddr, sync::LazyLock};

use gateway_proto::nat64::{Nat64, Nat64Prefix};
use tokio::sync::watch;

static KNOWN: LazyLock<watch::Sender<Nat64>> = LazyLock::new(watch::Sender::default);

/// What is known now; tells whoever waits for a change.
pub fn set(nat64: Nat64) {
    KNOWN.send_if_modified(|known| {
        let is_news = *known != nat64;
        *known = nat64;
        is_news
    });
}

/// What is known, and its changes.
pub fn subscribe() -> watch::Receiver<Nat64> {
    KNOWN.subscribe()
}

/// The prefix that is sent through; none: no NAT64 is known.
pub fn prefix() -> Option<Nat64Prefix> {
    KNOWN.borrow().prefix()
}

/// Whether there is one.
pub fn is_known() -> bool {
    prefix().is_some()
}

/// Where a packet to an IPv4 address goes; none: not through a NAT64.
pub fn translated(to: SocketAddr) -> Option<SocketAddr> {
    KNOWN.borrow().translated(to)
}

/// Who is behind an address in normal form: the IPv4 address of a translated one, any other as it is.
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(_) => KNOWN.borrow().plain(address),
    }
}

/// Whether the kernel has no way to an address.
pub fn is_no_way(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), NetworkUnreachable | HostUnreachable | AddrNotAvailable)
}

/// Sends to an address: at `native`, its form for the socket at hand, or, where there is no way, through the NAT64. `None` for a
/// socket that cannot send to this family.
///
/// # Errors
/// Those of the last `send`; `NetworkUnreachable` where there was none.
pub fn send(
    to: SocketAddr,
    native: Option<SocketAddr>,
    mut send: impl FnMut(SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    let sent = match native {
        Some(native) => send(native),
        None => Err(io::ErrorKind::NetworkUnreachable.into()),
    };
    match sent {
        Err(error) if is_no_way(&error) => match translated(to) {
            Some(translated) => send(translated),
            None => Err(error),
        },
        sent => sent,
    }
}

/// Connects to an address, or, where there is no way, through the NAT64: what [`send`] does for a packet.
///
/// # Errors
/// Those of the last `connect`.
pub(crate) async fn connect<T, F>(to: SocketAddr, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    match connect(to).await {
        Err(error) if is_no_way(&error) => match translated(to) {
            Some(translated) => connect(translated).await,
            None => Err(error),
        },
        connected => connected,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    // One test: what is known is the process's.
    #[test]
    fn what_the_kernel_has_no_way_for_goes_through_the_nat64_and_nothing_else_does() {
        let to: SocketAddr = "198.51.100.7:4000".parse().unwrap();
        let outer: SocketAddr = "[2001:db8:6464::c633:6407]:4000".parse().unwrap();
        let tried = |native: Option<SocketAddr>, kind: Option<io::ErrorKind>| {
            let mut tried = Vec::new();
            let sent = send(to, native, |at| {
                tried.push(at);
                kind.filter(|_| at.is_ipv4()).map_or(Ok(()), |kind| Err(kind.into()))
            });
            (tried, sent.map_err(|error| error.kind()))
        };
        let connected = |kind: Option<io::ErrorKind>| {
            let at = |at: SocketAddr| async move {
                kind.filter(|_| at.is_ipv4()).map_or(Ok(at), |kind| Err(io::Error::from(kind)))
            };
            connect(to, at).now_or_never().unwrap().map_err(|error| error.kind())
        };
        let no_way = io::ErrorKind::NetworkUnreachable;
        assert_eq!(connected(Some(no_way)), Err(no_way), "none is known");
        assert_eq!(tried(Some(to), Some(no_way)), (vec![to], Err(no_way)), "none is known");
        assert_eq!((tried(None, None), plain(outer)), ((vec![], Err(no_way)), outer));
        let mut changes = subscribe();
        changes.mark_unchanged();
        let known = Nat64::new(Nat64Prefix::new("2001:db8:6464::".parse().unwrap(), 96));
        set(known.clone());
        assert!(changes.has_changed().unwrap() && is_known());
        changes.mark_unchanged();
        set(known);
        assert!(!changes.has_changed().unwrap(), "no news");
        assert_eq!(tried(Some(to), Some(no_way)), (vec![to, outer], Ok(())));
        assert_eq!(tried(None, None), (vec![outer], Ok(())), "a socket for IPv6 only");
        assert_eq!(tried(Some(to), None), (vec![to], Ok(())), "IPv4 has a way");
        let full = io::ErrorKind::WouldBlock;
        assert_eq!(tried(Some(to), Some(full)), (vec![to], Err(full)));
        assert_eq!((connected(Some(no_way)), connected(None)), (Ok(outer), Ok(to)), "and connections like packets");
        let refused = io::ErrorKind::ConnectionRefused;
        assert_eq!(connected(Some(refused)), Err(refused), "the host was there");
        assert_eq!((plain(outer), plain(to)), (to, to));
        set(Nat64::default());
        assert!(!is_known() && translated(to).is_none());
    }
}
