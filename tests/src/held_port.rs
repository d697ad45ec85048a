//! A port that stays ours while nobody listens on it.
//!
//! Programs and stand-ins here close a port and open it again, or are told a port before they open it. Meanwhile the kernel
//! would give it to anybody who asks for a free one, or take it for an outgoing connection. A socket that is bound to it
//! with `SO_REUSEADDR` and never listens prevents both: who binds to this very port with the same option, as servers do,
//! can listen beside it, and while nobody does, connections are refused as at any closed port.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::net::TcpSocket;

use crate::netns::tcp_socket;

/// A TCP port that is held until this is dropped. It must be taken while nobody listens on it.
#[derive(Debug)]
pub struct HeldPort {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl HeldPort {
    /// A port of loopback; 0: a free one.
    pub fn loopback(port: u16) -> anyhow::Result<Self> {
        Self::take(None, (Ipv4Addr::LOCALHOST, port).into())
    }

    /// A port of an IPv4 address in a network namespace; 0: a free one.
    pub fn take(namespace: Option<&str>, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = tcp_socket(namespace)?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).with_context(|| format!("{address} is taken"))?;
        Ok(Self { address: socket.local_addr()?, _socket: socket })
    }

    /// Its address, with the port it really is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

#[cfg(test)]
mod tests {

    use std::{
        io::ErrorKind,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_held_port_is_closed_until_somebody_listens_beside_it_and_again_afterwards() {
        let held = HeldPort::loopback(0).unwrap();
        let refused = || TcpStream::connect(held.address()).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            assert!(refused());
            let listener = TcpListener::bind(held.address()).unwrap();
            let open = TcpStream::connect(held.address()).unwrap();
            assert_eq!(listener.accept().unwrap().1, open.local_addr().unwrap());
            assert!(HeldPort::loopback(held.port()).is_err(), "somebody listens");
        }
        assert!(refused());
    }
}
