//! The engine's TCP Listener: at most ten connections (or as configured), the next one is accepted and closed at once
//! without a byte; answers strictly in order; every byte received is kept for comparison. A channel that is stopped or
//! paused ([`Engine::close`]) ends what it holds with FIN; an engine that dies ([`Engine::stop`]) resets it. [`Manners`]
//! make it rude.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{acknowledge, control_id, frame, take_frame};
use crate::{held_port::HeldPort, netns::tcp_socket, platform::Placement, wait};

/// Connections the engine serves at once (its default).
pub const MAX_CONNECTIONS: usize = 10;

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Orderly: FIN.
    Fin,
    /// Hard: RST.
    Reset,
}

/// How the engine behaves towards a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// Answers `AA` with the control id, at once.
    Polite,
    /// Answers `AA` after this time.
    Slow(Duration),
    /// Answers `AE`.
    Refuse,
    /// Answers `AA` with somebody else's control id.
    WrongControlId,
    /// Ends the connection before it reads.
    EndBeforeReading(Ending),
    /// Reads the message, then ends the connection without an answer.
    EndAfterReading(Ending),
    /// Answers half an acknowledgement, then ends the connection.
    HalfAnswer(Ending),
    /// Reads and never answers.
    Silent,
    /// Accepts and never reads: the sender's window fills up.
    Deaf,
    /// Answers bytes that are no frame, then stays.
    Garbage,
}

/// One message that arrived whole.
#[derive(Debug, Clone)]
pub struct Received {
    /// Number of the connection it came over, counted from 1.
    pub connection: u64,
    /// Its MSH-10.
    pub control_id: String,
    /// Its bytes, unframed.
    pub bytes: Vec<u8>,
    /// When its last byte arrived.
    pub at: Instant,
}

/// How the gateway ended a connection to the engine.
#[derive(Debug, Clone, Copy)]
struct Closed {
    ending: Ending,
    at: Instant,
}

/// The engine's listening end. Dropping it closes everything.
#[derive(Debug)]
pub struct Engine {
    port: HeldPort,
    namespace: Option<String>,
    shared: Arc<Shared>,
    /// Owns the accept loop, which owns the connections.
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    manners: Mutex<Manners>,
    received: Mutex<Vec<Received>>,
    closed: Mutex<Vec<Closed>>,
    accepted: AtomicU64,
    open: AtomicUsize,
    /// Bytes read so far, complete messages or not.
    bytes: AtomicU64,
    max_connections: usize,
    /// The channel is being stopped or paused.
    closing: watch::Sender<bool>,
}

impl Engine {
    /// Listens on a free loopback port.
    pub fn start(manners: Manners) -> anyhow::Result<Self> {
        Self::start_at(&Placement::loopback(), manners)
    }

    /// Listens on a free loopback port of the machine at `placement`.
    pub fn start_at(placement: &Placement, manners: Manners) -> anyhow::Result<Self> {
        Self::listen_at(placement, 0, MAX_CONNECTIONS, manners)
    }

    /// Listens on a loopback port of the machine at `placement` with a connection limit of its own; port 0: a free one.
    pub fn listen_at(
        placement: &Placement,
        port: u16,
        max_connections: usize,
        manners: Manners,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            manners: Mutex::new(manners),
            received: Mutex::default(),
            closed: Mutex::default(),
            accepted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            max_connections,
            closing: watch::Sender::new(false),
        });
        let namespace = placement.namespace.clone();
        let port = HeldPort::take(namespace.as_deref(), (Ipv4Addr::LOCALHOST, port).into())?;
        let listener = listen(namespace.as_deref(), port.address())?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, namespace, shared, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Changes how it treats messages from now on.
    pub fn behave(&self, manners: Manners) {
        *lock(&self.shared.manners) = manners;
    }

    /// Stops or pauses the channel: the port is closed and every connection ends with FIN.
    pub async fn close(&mut self) {
        self.shared.closing.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Dies: the port is closed and every connection is reset.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Listens again where it did before.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let listener = listen(self.namespace.as_deref(), self.address()).context("the engine cannot listen again")?;
        self.shared.closing.send_replace(false);
        self.tasks.spawn(accept(listener, Arc::clone(&self.shared)));
        Ok(())
    }

    /// Everything that arrived so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// How many messages arrived so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.received).len()
    }

    /// How many messages with this control id arrived.
    pub fn count_of(&self, control_id: &str) -> usize {
        lock(&self.shared.received).iter().filter(|received| received.control_id == control_id).count()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes read so far, complete messages or not.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Waits until so many messages arrived.
    pub async fn wait_for(&self, count: usize, limit: Duration) -> anyhow::Result<()> {
        wait::until_true(limit, format!("the engine received {count} messages"), async || Ok(self.count() >= count))
            .await
    }

    /// Waits until so many bytes arrived.
    pub async fn wait_for_bytes(&self, bytes: u64, limit: Duration) -> anyhow::Result<()> {
        wait::until_true(limit, format!("the engine received {bytes} bytes"), async || Ok(self.bytes() >= bytes)).await
    }

    /// Waits until the gateway ended a connection, and tells how and when. Each end is told once.
    pub async fn wait_for_end(&self, limit: Duration) -> anyhow::Result<(Ending, Instant)> {
        wait::until(limit, "a connection to the engine ends", async || {
            let mut closed = lock(&self.shared.closed);
            Ok((!closed.is_empty()).then(|| closed.remove(0)).map(|closed| (closed.ending, closed.at)))
        })
        .await
    }

    /// Forgets the ends seen so far.
    pub fn forget_ends(&self) {
        lock(&self.shared.closed).clear();
    }
}

fn listen(namespace: Option<&str>, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = tcp_socket(namespace)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(64)?)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst) + 1;
                if shared.open.load(Ordering::SeqCst) >= shared.max_connections {
                    // The engine's own behaviour: FIN without a byte.
                    drop(stream);
                    continue;
                }
                connections.spawn(serve(stream, number, Open::new(Arc::clone(&shared))));
            }
            Some(_) = connections.join_next() => {}
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Counts a connection as open for as long as it lives, also when its task is aborted.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(mut stream: TcpStream, number: u64, open: Open) {
    let shared = &open.0;
    // An aborted task (the engine dies) must not look like an orderly end.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
    let mut closing = shared.closing.subscribe();
    let ending = tokio::select! {
        ending = converse(&mut stream, number, shared) => ending,
        _ = closing.wait_for(|closing| *closing) => Ending::Fin,
    };
    end(stream, ending);
}

/// Treats the connection as the manners say, up to how it is to be ended.
async fn converse(stream: &mut TcpStream, number: u64, shared: &Shared) -> Ending {
    let at_start = *lock(&shared.manners);
    if let Manners::EndBeforeReading(ending) = at_start {
        return ending;
    }
    if at_start == Manners::Deaf {
        return std::future::pending().await;
    }
    let (mut buffer, mut from) = (Vec::new(), 0);
    loop {
        while let Some(message) = take_frame(&mut buffer, &mut from) {
            let id = control_id(&message).unwrap_or_default();
            lock(&shared.received).push(Received {
                connection: number,
                control_id: id.clone(),
                bytes: message,
                at: Instant::now(),
            });
            let manners = *lock(&shared.manners);
            if answer(stream, manners, &id).await.is_err() {
                return closed(shared, Ending::Reset);
            }
            if let Manners::EndAfterReading(ending) | Manners::HalfAnswer(ending) = manners {
                return ending;
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return closed(shared, Ending::Fin),
            Ok(length) => {
                shared.bytes.fetch_add(length as u64, Ordering::SeqCst);
            }
            Err(_) => return closed(shared, Ending::Reset),
        }
    }
}

async fn answer(stream: &mut TcpStream, manners: Manners, id: &str) -> io::Result<()> {
    let whole = frame(&acknowledge("AA", id));
    match manners {
        Manners::Polite => stream.write_all(&whole).await,
        Manners::Slow(delay) => {
            tokio::time::sleep(delay).await;
            stream.write_all(&whole).await
        }
        Manners::Refuse => stream.write_all(&frame(&acknowledge("AE", id))).await,
        Manners::WrongControlId => stream.write_all(&frame(&acknowledge("AA", "SOMEBODY-ELSE"))).await,
        Manners::HalfAnswer(_) => stream.write_all(&whole[..whole.len() / 2]).await,
        Manners::Garbage => stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
        Manners::Silent | Manners::Deaf | Manners::EndBeforeReading(_) | Manners::EndAfterReading(_) => Ok(()),
    }
}

fn end(stream: TcpStream, ending: Ending) {
    let linger = match ending {
        Ending::Fin => None,
        Ending::Reset => Some(Duration::ZERO),
    };
    socket2::SockRef::from(&stream).set_linger(linger).ok();
}

/// Notes how the gateway ended the connection; ours ends the same way.
fn closed(shared: &Shared, ending: Ending) -> Ending {
    lock(&shared.closed).push(Closed { ending, at: Instant::now() });
    ending
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
