//! The kernel's socket under the tunnel's, and how it is opened anew.
//!
//! A socket that is bound to one address survives the loss of that address, but not unharmed: the kernel refuses what is
//! sent meanwhile as invalid, which quinn takes for a kernel without batches (GSO) and without ECN, for good. So it is
//! opened anew, at the same address and port, when the address is back ([`crate::net_watch`] says when). One that takes
//! every address needs no new binding, only a fresh look at what the kernel can do.
//!
//! While there is none, packets are lost as on any dead path, and the relay carries.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    task::{Context, Poll},
};

use gateway_net::udp::UdpIo;
use quinn_udp::{RecvMeta, Transmit};
use socket2::SockRef;

/// Kernel buffer asked for, each way: the default of about 200 KiB loses packets of one burst (measured, design notes).
const SOCKET_BUFFER: usize = 4 << 20;

pub(super) type Room = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Binding {
    /// None: it could not be opened again yet.
    io: RwLock<Option<UdpIo>>,
    /// With the port that the kernel chose.
    local: SocketAddr,
    /// What the kernel could do when it was opened first.
    segments: usize,
    gro_segments: usize,
    may_fragment: bool,
}

impl Binding {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let io = UdpIo::new(bind(address)?, SOCKET_BUFFER)?;
        let (local, state) = (io.local_addr()?, io.state());
        let (segments, gro_segments) = (state.max_gso_segments(), state.gro_segments());
        let may_fragment = state.may_fragment();
        Ok(Self { io: RwLock::new(Some(io)), local, segments, gro_segments, may_fragment })
    }

    /// Opens it anew at the same address. When that fails there is none.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let mut io = self.io.write().unwrap_or_else(PoisonError::into_inner);
        let kept = io.take().filter(|_| self.local.ip().is_unspecified());
        let socket = match kept {
            Some(kept) => kept.socket().try_clone()?,
            // Two cannot have the same address: the former one is closed by now.
            None => bind(self.local)?,
        };
        *io = Some(UdpIo::new(socket, SOCKET_BUFFER)?);
        Ok(())
    }

    /// Whether there is one, and it still does all that it could at first.
    pub(super) fn is_sound(&self) -> bool {
        self.read().as_ref().is_some_and(|io| io.state().max_gso_segments() >= self.segments)
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.read().as_ref().map_or(Ok(()), |io| io.send(transmit))
    }

    pub(super) fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.read().as_ref().map_or(Err(io::ErrorKind::NotConnected.into()), |io| io.try_send(transmit))
    }

    pub(super) fn is_full(&self) -> bool {
        self.read().as_ref().is_some_and(UdpIo::is_full)
    }

    /// Resolves when there is room to send; may do so too early.
    pub(super) fn writable(&self) -> Room {
        match self.read().as_ref() {
            Some(io) => Box::pin(io.writable()),
            None => Box::pin(std::future::ready(())),
        }
    }

    /// Receives batches. While there is none, whoever opens it must wake the task.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.read().as_ref().map_or(Poll::Pending, |io| io.poll_recv(cx, buffers, metas))
    }

    /// Does something with the options of the socket.
    pub(super) fn with_options<T>(&self, act: impl FnOnce(SockRef<'_>) -> T) -> Option<T> {
        self.read().as_ref().map(|io| act(SockRef::from(io.socket())))
    }

    pub(super) fn max_gso_segments(&self) -> usize {
        self.read().as_ref().map_or(1, |io| io.state().max_gso_segments())
    }

    pub(super) fn gro_segments(&self) -> usize {
        self.gro_segments
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.may_fragment
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<UdpIo>> {
        self.io.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More segments than the kernel takes: refused as invalid, like everything while the address is gone.
    fn send_nonsense(binding: &Binding, to: SocketAddr) {
        let contents = vec![0; 60_000];
        let nonsense =
            Transmit { destination: to, ecn: None, contents: &contents, segment_size: Some(1), src_ip: None };
        assert!(binding.try_send(&nonsense).is_err());
    }

    #[tokio::test]
    async fn what_the_kernel_refused_once_is_forgotten_and_the_port_stays() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let binding = Binding::open(address.parse().unwrap()).unwrap();
            assert!(binding.is_sound());
            send_nonsense(&binding, to);
            assert!(!binding.is_sound() && binding.max_gso_segments() == 1, "batches are off for good");
            binding.reopen().unwrap();
            assert!(binding.is_sound() && binding.max_gso_segments() > 1);
            let hello = Transmit { destination: to, ecn: None, contents: b"hello", segment_size: None, src_ip: None };
            binding.try_send(&hello).unwrap();
            let (length, from) = receiver.recv_from(&mut [0; 16]).unwrap();
            assert_eq!((length, from.port()), (5, binding.local().port()));
        }
    }

    #[tokio::test]
    async fn a_port_that_somebody_took_is_not_opened_and_had_again_when_it_is_free() {
        let binding = Binding::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let held = binding.io.write().unwrap().take();
        drop(held);
        let taken = std::net::UdpSocket::bind(binding.local()).unwrap();
        assert_eq!(binding.reopen().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let hello =
            Transmit { destination: binding.local(), ecn: None, contents: b"x", segment_size: None, src_ip: None };
        assert!(!binding.is_sound() && binding.send(&hello).is_ok(), "what is sent meanwhile is lost");
        assert!(binding.try_send(&hello).is_err() && !binding.is_full());
        drop(taken);
        binding.reopen().unwrap();
        assert!(binding.is_sound());
    }
}
