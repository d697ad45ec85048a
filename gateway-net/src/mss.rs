//! The largest TCP segment between the programs.
//!
//! A path that drops packets above 1,280 bytes without a word (no ICMP comes back, nobody rewrites the segment size) lets TCP
//! connect and then swallows the first large segment: the handshake of TLS never ends. So the control and relay connections
//! announce, and send, segments that fit the 1,280 bytes which every network must carry (RFC 8200 §5), whatever the header.
//! That costs three headers in a hundred bytes of payload more than the segments of an Ethernet.

use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt::TcpMaxSeg};

/// 1,280 bytes less an IPv6 and a TCP header, and 60 for a tunnel around them.
pub const MAX_SEGMENT: u32 = 1_160;

/// Limits what a socket sends and what it tells the other end to send: of a client before it connects, of a listener for all
/// that it accepts. Where the system refuses, everything works as without it.
pub fn limit(socket: &impl AsFd) {
    if let Err(error) = setsockopt(socket, TcpMaxSeg, &MAX_SEGMENT) {
        tracing::debug!(%error, "the TCP segment size is left to the system");
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn both_ends_keep_to_the_smaller_segment_whichever_of_them_asks_for_it() {
        for server_asks in [false, true] {
            let (server, client) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
            server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            limit(if server_asks { &server } else { &client });
            let listener = server.listen(1).unwrap();
            let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            for end in [&client, &accepted] {
                let segment = getsockopt(end, TcpMaxSeg).unwrap();
                assert!((500..=MAX_SEGMENT).contains(&segment), "{segment}");
            }
        }
    }
}
