//! Moving frames between two interfaces of this network namespace, through packet sockets.

use std::{
    io::{self, BufRead},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, anyhow};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};

use super::{Lane, Shape};

/// Largest frame: an Ethernet header and the largest MTU of a veth.
const MAX_FRAME: usize = 65_550;
/// `PACKET_OUTGOING`: our own frames, shown to every packet socket.
const OUTGOING: u8 = 4;
/// Bytes of frames that wait to be read.
const RECEIVE_BUFFER: usize = 32 << 20;

type Waiting = (Instant, Vec<u8>);

/// Moves frames between two interfaces until one of them is gone. Says that it is ready by a line
/// `{"event":"ready"}`, and takes changes of the shape from standard input.
pub fn run(left: &str, right: &str, shape: Shape, seed: u64, ready: impl FnOnce()) -> anyhow::Result<()> {
    let (one, other) = (Arc::new(open(left)?), Arc::new(open(right)?));
    let shape = Arc::new(Mutex::new(shape));
    let (failed, failures) = mpsc::sync_channel(4);
    for (from, to, seed) in [(&one, &other, seed), (&other, &one, !seed)] {
        // As long as the queue may ever be; the shape says how much of it is used.
        let (queue, waiting) = mpsc::sync_channel(16_384);
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        let (lane, shape, failed) = (Lane::new(seed), Arc::clone(&shape), failed.clone());
        let queued = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&queued);
        thread::spawn(move || failed.send(receive(&from, lane, &shape, &queue, &queued)).ok());
        thread::spawn(move || transmit(&to, &waiting, &count));
    }
    thread::spawn(move || listen(&shape));
    ready();
    let first = failures.recv().map_err(|_| anyhow!("both lanes ended"))?;
    first.context("an interface of the hop is gone")
}

/// A packet socket bound to an interface.
fn open(interface: &str) -> anyhow::Result<OwnedFd> {
    let mut all = getifaddrs().context("cannot list the interfaces")?;
    let address = all
        .find_map(|entry| {
            let link = entry.address.as_ref().and_then(|address| address.as_link_addr().copied());
            link.filter(|_| entry.interface_name == interface)
        })
        .with_context(|| format!("there is no interface {interface} here"))?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).context("needs root")?;
    bind(fd.as_raw_fd(), &address)?;
    // A burst that the hop has not read yet is not a loss of the wire.
    setsockopt(&fd, RcvBufForce, &RECEIVE_BUFFER).context("needs root")?;
    Ok(fd)
}

fn receive(
    from: &OwnedFd,
    mut lane: Lane,
    shape: &Mutex<Shape>,
    queue: &SyncSender<Waiting>,
    queued: &std::sync::atomic::AtomicUsize,
) -> io::Result<()> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let (length, source) = match recvfrom::<LinkAddr>(from.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            // The other end's interface is down for a moment: it may come back.
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENETDOWN) => continue,
            Err(error) => return Err(error.into()),
        };
        if source.is_some_and(|source| source.pkttype() == OUTGOING) {
            continue;
        }
        let shape = *shape.lock().unwrap_or_else(PoisonError::into_inner);
        if queued.load(Relaxed) >= shape.queue {
            continue;
        }
        let frame = &buffer[..length];
        if let Some(due) = lane.schedule(&shape, frame, Instant::now()) {
            queued.fetch_add(1, Relaxed);
            if queue.try_send((due, frame.to_vec())).is_err() {
                queued.fetch_sub(1, Relaxed);
            }
        }
    }
}

fn transmit(to: &OwnedFd, waiting: &Receiver<Waiting>, queued: &std::sync::atomic::AtomicUsize) {
    for (due, frame) in waiting {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        queued.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        // An interface that is down loses the frame, as a wire does.
        let _ = send(to.as_raw_fd(), &frame, MsgFlags::empty());
    }
}

fn listen(shape: &Mutex<Shape>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let mut current = shape.lock().unwrap_or_else(PoisonError::into_inner);
        // A wrong line is the test's mistake, and shows as a test without its impairment.
        if let Ok(next) = current.changed(&line) {
            *current = next;
        }
    }
}
