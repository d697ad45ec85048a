//! End-to-end proof: the control stream of a tunnel and what its round trips say about the peer.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gateway_net::time::unix_ms;
use gateway_proto::{
    id::RelayId,
    pulse::{Pulse, Question},
    relay::HomeWord,
    stream::{ControlFrame, MAX_CONTROL_FRAME_LEN},
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep_until, timeout},
};

use crate::{peer::Peer, timer::until};

/// Pings of the peer that wait for their answer, or to be taken note of.
const PING_QUEUE: usize = 16;

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Ping {
    sequence: u64,
    wants_answer: bool,
}

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
    /// How many pings were answered. A count, because whoever waits for an answer waits for other things too, and may be told of
    /// both at once.
    answers: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct ProofState {
    /// Of the tunnel that is up.
    pulse: Option<Pulse>,
    last_proof_at: Option<u64>,
    answered_at: Option<Instant>,
    rtt: Option<Duration>,
    /// What the peer was told of our home, in whichever tunnel.
    home: HomeWord,
}

impl Proof {
    /// Nothing proved yet; `changed` is told when connectivity begins or ends.
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { changed, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, ProofState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer's gateway answered in this tunnel and nothing says otherwise since. While no stream is open that its QUIC
    /// acknowledges us is enough, for eight minutes at most; [`refresh`](Self::refresh) asks the gateway itself.
    pub fn is_connected(&self) -> bool {
        self.state().pulse.as_ref().is_some_and(|pulse| pulse.is_connected(Instant::now()))
    }

    /// The last successful round trip, Unix milliseconds: an answer of the peer's gateway, or of its QUIC while no stream is open.
    pub fn last_proof_at(&self) -> Option<u64> {
        self.state().last_proof_at
    }

    /// When the peer's gateway answered last, on our own clock.
    pub fn answered_at(&self) -> Option<Instant> {
        self.state().answered_at
    }

    /// Told at every answer of the peer's gateway: how many there were.
    pub fn answers(&self) -> watch::Receiver<u64> {
        self.answers.subscribe()
    }

    /// Round-trip time of the last answer of the peer's gateway.
    pub fn rtt(&self) -> Option<Duration> {
        self.state().rtt
    }

    /// Asks for a round trip now and waits for it up to `limit`, so that what is said afterwards is true now.
    pub async fn refresh(&self, limit: Duration) {
        if !self.is_up() {
            return;
        }
        let mut answers = self.answers();
        self.ping.notify_one();
        let _ = timeout(limit, answers.changed()).await;
    }

    /// Asks for a round trip now: the path changed, and its first packet shows QUIC what was lost on the former one.
    pub fn nudge(&self) {
        if self.is_up() {
            self.ping.notify_one();
        }
    }

    /// Resolves when an answer is missing although the tunnel stands.
    pub async fn missed(&self) {
        self.missed.notified().await;
    }

    /// What a frame that goes now says of our home, if that is `home`.
    fn say_home(&self, home: Option<RelayId>) -> Option<RelayId> {
        self.state().home.say(home, Instant::now())
    }

    /// When the peer is to be told of it in a question out of turn.
    fn home_due_at(&self, home: Option<RelayId>) -> Option<Instant> {
        self.state().home.due_at(home, Instant::now())
    }

    fn is_up(&self) -> bool {
        self.state().pulse.is_some()
    }

    fn tunnel_is(&self, pulse: Option<Pulse>) {
        let up = pulse.is_some();
        self.state().pulse = pulse;
        if !up {
            self.changed.notify_one();
        }
    }

    /// Asks the pulse of the tunnel that is up.
    fn with<T>(&self, ask: impl FnOnce(&mut Pulse, Instant) -> T) -> Result<T, HeartbeatError> {
        self.state().pulse.as_mut().map(|pulse| ask(pulse, Instant::now())).ok_or(HeartbeatError::Closed)
    }

    /// The same, after a look at how many acknowledgements QUIC had from the peer. One that proves the way shows that the peer is there,
    /// and answers nobody who waits: those asked for more.
    fn with_acknowledgements<T>(
        &self,
        count: u64,
        ask: impl FnOnce(&mut Pulse, Instant) -> T,
    ) -> Result<T, HeartbeatError> {
        let (is_new, asked) = {
            let mut state = self.state();
            let pulse = state.pulse.as_mut().ok_or(HeartbeatError::Closed)?;
            let now = Instant::now();
            let was_connected = pulse.is_connected(now);
            let is_proved = pulse.on_acknowledgements(count);
            let asked = ask(pulse, now);
            if is_proved {
                state.last_proof_at = Some(unix_ms());
            }
            (is_proved && !was_connected, asked)
        };
        if is_new {
            self.changed.notify_one();
        }
        Ok(asked)
    }

    fn answered(&self, sequence: u64) -> Result<(), HeartbeatError> {
        let was_connected = {
            let mut state = self.state();
            let pulse = state.pulse.as_mut().ok_or(HeartbeatError::Closed)?;
            let now = Instant::now();
            let was_connected = pulse.is_connected(now);
            if !pulse.on_answer(sequence, now) {
                return Ok(());
            }
            let rtt = pulse.rtt();
            state.last_proof_at = Some(unix_ms());
            state.answered_at = Some(now);
            state.rtt = rtt.or(state.rtt);
            was_connected
        };
        self.answers.send_modify(|answers| *answers += 1);
        if !was_connected {
            self.changed.notify_one();
        }
        Ok(())
    }
}

/// Runs a tunnel's control stream until it fails; then the tunnel is of no use and its owner closes it.
///
/// The streams are those of the control stream of `connection`, a tunnel to `peer`. `proof` is told of the peer's answers, and the peer is told
/// of our `home`. One of the two sides leads, the one that dialled. Returns why it ended.
pub async fn heartbeat(
    connection: &Connection,
    (send, recv): (SendStream, RecvStream),
    peer: &Peer,
    proof: &Proof,
    home: watch::Receiver<Option<RelayId>>,
    leads: bool,
) -> HeartbeatError {
    let (pings, pings_rx) = mpsc::channel(PING_QUEUE);
    proof.tunnel_is(Some(Pulse::new(leads, Instant::now())));
    // However this ends, dropped half-way included, nothing is proved any more.
    let _down = TunnelDown(proof);
    let ended = tokio::select! {
        ended = read_frames(recv, peer, proof, pings) => ended,
        ended = write_frames((connection, send), peer, proof, pings_rx, home) => ended,
    };
    let Err(error) = ended;
    error
}

struct TunnelDown<'a>(&'a Proof);

impl Drop for TunnelDown<'_> {
    fn drop(&mut self) {
        self.0.tunnel_is(None);
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
    peer: &Peer,
    proof: &Proof,
    pings: mpsc::Sender<Ping>,
) -> Result<Infallible, HeartbeatError> {
    let mut body = [0; MAX_CONTROL_FRAME_LEN];
    loop {
        let mut length = [0; 2];
        recv.read_exact(&mut length).await.map_err(|_| HeartbeatError::Closed)?;
        let length = usize::from(u16::from_be_bytes(length));
        let body = body.get_mut(..length).ok_or(HeartbeatError::Malformed)?;
        recv.read_exact(body).await.map_err(|_| HeartbeatError::Closed)?;
        let home = match ControlFrame::decode(body).map_err(|_| HeartbeatError::Malformed)? {
            ControlFrame::Ping { sequence, wants_answer, home } => {
                // More pings than answers fit: the peer floods; the surplus stays unanswered.
                let _ = pings.try_send(Ping { sequence, wants_answer });
                home
            }
            ControlFrame::Pong { sequence, home } => {
                proof.answered(sequence)?;
                home
            }
        };
        if let Some(home) = home {
            peer.hear_home(home);
        }
    }
}

async fn write_frames(
    (connection, mut send): (&Connection, SendStream),
    peer: &Peer,
    proof: &Proof,
    mut pings: mpsc::Receiver<Ping>,
    mut home: watch::Receiver<Option<RelayId>>,
) -> Result<Infallible, HeartbeatError> {
    let mut active = peer.streams.subscribe();
    // Messages wait for nothing, and the proof of life waits for no message.
    let _ = send.set_priority(1);
    let acknowledgements = || connection.stats().frame_rx.acks;
    loop {
        let is_active = active.borrow_and_update().is_active();
        let next_at = proof.with(|pulse, _| {
            pulse.set_active(is_active);
            pulse.next_at()
        })?;
        let own_home = *home.borrow_and_update();
        let home_due_at = proof.home_due_at(own_home);
        let mut frames = Vec::new();
        let question = tokio::select! {
            Some(Ping { sequence, wants_answer }) = pings.recv() => {
                if wants_answer {
                    frames.extend(ControlFrame::Pong { sequence, home: proof.say_home(own_home) }.encode());
                }
                proof.with(Pulse::on_question)?
            }
            () = proof.ping.notified() => Some(proof.with_acknowledgements(acknowledgements(), Pulse::ask)?),
            () = until(home_due_at) => Some(proof.with_acknowledgements(acknowledgements(), Pulse::ask)?),
            Ok(()) = home.changed() => None,
            // The question that was due may have been answered meanwhile.
            () = sleep_until(next_at.into()) => proof.with_acknowledgements(acknowledgements(), Pulse::on_timer)?,
            changed = active.changed() => changed.map(|()| None).map_err(|_| HeartbeatError::Closed)?,
        };
        if let Some(Question { sequence, is_repeated, wants_answer }) = question {
            if is_repeated {
                proof.missed.notify_one();
            }
            let home = if wants_answer { proof.say_home(own_home) } else { None };
            frames.extend(ControlFrame::Ping { sequence, wants_answer, home }.encode());
        }
        if !frames.is_empty() {
            send.write_all(&frames).await.map_err(|_| HeartbeatError::Closed)?;
        }
    }
}

#[cfg(test)]
mod tests;
