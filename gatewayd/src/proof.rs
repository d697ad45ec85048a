//! End-to-end proof: the control stream of a tunnel and what its round trips say about the peer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gateway_net::time::unix_ms;
use gateway_proto::stream::{ControlFrame, MAX_CONTROL_FRAME_LEN};
use quinn::{RecvStream, SendStream};
use tokio::sync::{Notify, mpsc, watch};

/// Heartbeat while streams are open.
const ACTIVE_HEARTBEAT: Duration = Duration::from_secs(1);
/// Heartbeat while none is, after the last ping of either side: it also keeps the tunnel from idling out, which takes 8 s.
const IDLE_HEARTBEAT: Duration = Duration::from_millis(7_000);
/// The side that asked last waits so much longer, so that they take turns: three packets every time, where a question of
/// both would cost twice as many. The side that was dialled waits twice as much, so that two that asked in one moment part
/// again.
const BEHIND: Duration = Duration::from_millis(300);
/// A peer that asks again this soon while idle did not get our answer: our way to it is in question.
const ASKED_AGAIN: Duration = Duration::from_millis(3_500);
/// A heartbeat unanswered for this long means: not connected.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_millis(2500);
/// Pings of the peer that wait for their answer.
const PONG_QUEUE: usize = 16;

/// What the control stream has proved about a peer.
#[derive(Debug, Default)]
pub struct Proof {
    state: Mutex<ProofState>,
    /// Told when connectivity begins or ends.
    changed: Arc<Notify>,
    /// Told when an answer is missing, so that the path is looked at.
    missed: Notify,
    /// Asks for a ping now.
    ping: Notify,
    /// Told at every answered ping.
    heard: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct ProofState {
    tunnel_up: bool,
    /// A round trip succeeded through the tunnel that is up.
    proved: bool,
    sequence: u64,
    unanswered_since: Option<(u64, Instant)>,
    last_proof_at: Option<u64>,
    rtt: Option<Duration>,
}

impl Proof {
    /// Nothing proved yet; `changed` is told when connectivity begins or ends.
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { changed, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, ProofState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a round trip succeeded within the heartbeat limit and nothing says otherwise since.
    pub fn is_connected(&self) -> bool {
        let state = self.state();
        let overdue = state.unanswered_since.is_some_and(|(_, since)| since.elapsed() > HEARTBEAT_LIMIT);
        state.tunnel_up && state.proved && !overdue
    }

    /// The last successful round trip, Unix milliseconds.
    pub fn last_proof_at(&self) -> Option<u64> {
        self.state().last_proof_at
    }

    /// Round-trip time of the last proof.
    pub fn rtt(&self) -> Option<Duration> {
        self.state().rtt
    }

    /// Asks for a round trip now and waits for it up to `limit`, so that what is said afterwards is true now.
    pub async fn refresh(&self, limit: Duration) {
        if !self.state().tunnel_up {
            return;
        }
        let heard = self.heard.notified();
        tokio::pin!(heard);
        heard.as_mut().enable();
        self.ping.notify_one();
        let _ = tokio::time::timeout(limit, heard).await;
    }

    /// Asks for a round trip now: the path changed, and its first packet shows QUIC what was lost on the former one.
    pub fn nudge(&self) {
        if self.state().tunnel_up {
            self.ping.notify_one();
        }
    }

    /// Resolves when an answer is missing although the tunnel stands.
    pub async fn missed(&self) {
        self.missed.notified().await;
    }

    fn is_unanswered(&self) -> bool {
        self.state().unanswered_since.is_some()
    }

    fn tunnel_is(&self, up: bool) {
        {
            let mut state = self.state();
            state.tunnel_up = up;
            state.proved = false;
            state.unanswered_since = None;
        }
        if !up {
            self.changed.notify_one();
        }
    }

    fn next_ping(&self) -> u64 {
        let mut state = self.state();
        state.sequence += 1;
        let sequence = state.sequence;
        state.unanswered_since.get_or_insert((sequence, Instant::now()));
        sequence
    }

    /// An answer proves the way for its own ping and for those before it.
    fn pong(&self, sequence: u64, sent_at: Option<Instant>) {
        let was_connected = self.is_connected();
        {
            let mut state = self.state();
            if state.unanswered_since.is_some_and(|(first, _)| sequence >= first) {
                state.unanswered_since = None;
            }
            state.proved = true;
            state.last_proof_at = Some(unix_ms());
            state.rtt = sent_at.map(|at| at.elapsed()).or(state.rtt);
        }
        self.heard.notify_waiters();
        if !was_connected {
            self.changed.notify_one();
        }
    }
}

/// Runs a tunnel's control stream until it fails; then the tunnel is of no use and its owner closes it.
///
/// `active` is the number of open streams; one of the two sides leads, the one that dialled. Returns why it ended.
pub async fn heartbeat(
    send: SendStream,
    recv: RecvStream,
    proof: &Proof,
    active: watch::Receiver<u32>,
    leads: bool,
) -> HeartbeatError {
    let (pongs, pongs_rx) = mpsc::channel(PONG_QUEUE);
    let pinged = Mutex::new((0, Instant::now()));
    proof.tunnel_is(true);
    // However this ends, dropped half-way included, nothing is proved any more.
    let _down = TunnelDown(proof);
    tokio::select! {
        error = read_frames(recv, proof, pongs, &pinged) => error,
        error = write_frames(send, proof, pongs_rx, active, &pinged, leads) => error,
    }
}

struct TunnelDown<'a>(&'a Proof);

impl Drop for TunnelDown<'_> {
    fn drop(&mut self) {
        self.0.tunnel_is(false);
    }
}

/// Why the control stream ended.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The tunnel is gone.
    #[error("the tunnel was closed")]
    Closed,
    /// The peer broke the protocol.
    #[error("the peer's control stream is malformed")]
    Malformed,
}

async fn read_frames(
    mut recv: RecvStream,
    proof: &Proof,
    pongs: mpsc::Sender<u64>,
    pinged: &Mutex<(u64, Instant)>,
) -> HeartbeatError {
    let mut body = [0; MAX_CONTROL_FRAME_LEN];
    loop {
        let mut length = [0; 2];
        if recv.read_exact(&mut length).await.is_err() {
            return HeartbeatError::Closed;
        }
        let length = usize::from(u16::from_be_bytes(length));
        let Some(body) = body.get_mut(..length) else { return HeartbeatError::Malformed };
        if recv.read_exact(body).await.is_err() {
            return HeartbeatError::Closed;
        }
        match ControlFrame::decode(body) {
            // More pings than answers fit: the peer floods; the surplus stays unanswered.
            Ok(ControlFrame::Ping { sequence }) => drop(pongs.try_send(sequence)),
            Ok(ControlFrame::Pong { sequence }) => {
                let (last, at) = *pinged.lock().unwrap_or_else(PoisonError::into_inner);
                if sequence <= last {
                    proof.pong(sequence, (sequence == last).then_some(at));
                }
            }
            Err(_) => return HeartbeatError::Malformed,
        }
    }
}

async fn write_frames(
    mut send: SendStream,
    proof: &Proof,
    mut pongs: mpsc::Receiver<u64>,
    mut active: watch::Receiver<u32>,
    pinged: &Mutex<(u64, Instant)>,
    leads: bool,
) -> HeartbeatError {
    // Messages wait for nothing, and the proof of life waits for no message.
    let _ = send.set_priority(1);
    let own_pause = IDLE_HEARTBEAT + if leads { BEHIND } else { 2 * BEHIND };
    let mut last_ping: Option<tokio::time::Instant> = None;
    let mut asked_at: Option<tokio::time::Instant> = None;
    let mut idle_at = tokio::time::Instant::now();
    loop {
        let busy = *active.borrow_and_update() > 0;
        let after = |pause| last_ping.map_or_else(tokio::time::Instant::now, |at| at + pause);
        let next_ping = if busy { after(ACTIVE_HEARTBEAT) } else { idle_at };
        let mut asks_too = false;
        let frame = tokio::select! {
            Some(sequence) = pongs.recv() => {
                let now = tokio::time::Instant::now();
                let again = asked_at.replace(now).is_some_and(|at| now - at < ASKED_AGAIN);
                asks_too = again && !busy && after(ACTIVE_HEARTBEAT) <= now;
                // While our own question is open, theirs crossed it and takes no turn away.
                if !proof.is_unanswered() {
                    idle_at = now + IDLE_HEARTBEAT;
                }
                ControlFrame::Pong { sequence }
            }
            () = proof.ping.notified() => ping(proof, pinged),
            () = tokio::time::sleep_until(next_ping) => ping(proof, pinged),
            // What is not answered is asked again soon. Most pings are, a moment after this wait began.
            () = tokio::time::sleep_until(after(ACTIVE_HEARTBEAT)), if !busy && proof.is_unanswered() => {
                if !proof.is_unanswered() {
                    continue;
                }
                ping(proof, pinged)
            }
            changed = active.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return HeartbeatError::Closed,
            },
        };
        let mut frames = frame.encode();
        if asks_too {
            frames.extend(ping(proof, pinged).encode());
        }
        if asks_too || matches!(frame, ControlFrame::Ping { .. }) {
            let now = tokio::time::Instant::now();
            last_ping = Some(now);
            idle_at = now + own_pause;
        }
        if send.write_all(&frames).await.is_err() {
            return HeartbeatError::Closed;
        }
    }
}

/// The next ping; with one before it unanswered, the path is in question.
fn ping(proof: &Proof, pinged: &Mutex<(u64, Instant)>) -> ControlFrame {
    if proof.is_unanswered() {
        proof.missed.notify_one();
    }
    let sequence = proof.next_ping();
    *pinged.lock().unwrap_or_else(PoisonError::into_inner) = (sequence, Instant::now());
    ControlFrame::Ping { sequence }
}
