//! The sessions of one pair: the newest, and the one before it until the newest has proved itself.

use super::{ProbeBody, ProbeCipher, ProbeError, probe_session_id};
use crate::signal::{Channel, ProbeSecrets, Role, SessionId, SignalError, Trickle};

/// One finished exchange: its sealed channel and its probe keys.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    cipher: ProbeCipher,
    channel: Channel,
    role: Role,
    /// The peer was heard in this session: it has the keys too.
    confirmed: bool,
}

impl Session {
    pub(super) fn new(id: SessionId, secrets: &ProbeSecrets, role: Role, channel: Channel) -> Self {
        Self { id, cipher: ProbeCipher::new(id, secrets, role), channel, role, confirmed: false }
    }

    pub(super) fn seal_probe(&mut self, body: ProbeBody, padded: bool) -> Vec<u8> {
        self.cipher.seal(body, padded)
    }

    /// A probe of so many bytes.
    pub(super) fn seal_probe_to(&mut self, body: ProbeBody, size: usize) -> Vec<u8> {
        self.cipher.seal_to(body, size)
    }

    pub(super) fn seal_trickle(&mut self, trickle: &Trickle) -> Result<Vec<u8>, SignalError> {
        self.channel.seal(trickle)
    }
}

/// At most two sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    newest: Option<Session>,
    previous: Option<Session>,
}

impl Sessions {
    /// Adds a session. The one before stays when the peer was heard in it; one that the peer never used gives way.
    pub(super) fn install(&mut self, session: Session) {
        if let Some(last) = self.newest.replace(session)
            && (last.confirmed || self.previous.is_none())
        {
            self.previous = Some(last);
        }
    }

    /// The ids by which probes are known.
    pub(super) fn ids(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.newest.iter().chain(&self.previous).map(|session| session.id)
    }

    /// Whether the newest session began with our offer.
    pub(super) fn offered(&self) -> bool {
        self.newest.as_ref().is_some_and(|session| session.role == Role::Initiator)
    }

    /// The session for new searches.
    pub(super) fn newest(&mut self) -> Option<&mut Session> {
        self.newest.as_mut()
    }

    /// The session the peer surely has: for heartbeats and proofs.
    pub(super) fn established(&mut self) -> Option<&mut Session> {
        match (&mut self.newest, &mut self.previous) {
            (Some(newest), Some(previous)) if !newest.confirmed => Some(previous),
            (newest, _) => newest.as_mut(),
        }
    }

    /// The session of that id.
    pub(super) fn get(&mut self, id: SessionId) -> Option<&mut Session> {
        [&mut self.newest, &mut self.previous].into_iter().flatten().find(|session| session.id == id)
    }

    /// Opens a probe of either session.
    pub(super) fn open_probe(&mut self, packet: &[u8]) -> Result<(SessionId, ProbeBody), ProbeError> {
        let id = probe_session_id(packet).ok_or(ProbeError::Malformed)?;
        let session = self.get(id).ok_or(ProbeError::UnknownSession)?;
        let body = session.cipher.open(packet)?;
        session.confirmed = true;
        Ok((id, body))
    }

    /// Opens a transport message of either session.
    pub(super) fn open_trickle(&mut self, id: SessionId, sealed: &[u8]) -> Result<Trickle, SignalError> {
        let session = self.get(id).ok_or(SignalError::UnknownSession)?;
        session.channel.open(sealed)
    }

    /// A path was proved in that session: with the newest, the one before has served. Says whether the ids changed.
    pub(super) fn mark_proved(&mut self, id: SessionId) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.id == id) && self.previous.take().is_some()
    }
}
