//! The owner's end: takes admin streams of partners and serves them from our engine's API, through the guard.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use gateway_proto::{
    admin::{
        call::AdminCall,
        forward::forwarded_for,
        guard::{Guard, Pass, Refusal},
        head::RequestHead,
        limiter::ConnectionLimiter,
        opening::{ActingUser, MAX_OPENING_LEN},
        sessions::SessionOwners,
    },
    audit::note::StreamEnding,
    id::ConnectionId,
    policy::{DeniedReason, ServerName},
    stream::{RefusalCode, ResetCode},
};
use quinn::RecvStream;
use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    engine::EngineApi,
    exchange::Exchange,
    sessions::Sessions,
    wire::{ClientReader, ClientWriter},
};
use crate::{
    audit::{AuditLog, Place, StreamRecord},
    gate::{Gate, Permit},
    send_half::SendHalf,
    traffic::{Role, Traffic},
};

/// Serves admin streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnerEnd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: EngineApi,
    log: AuditLog,
    gate: Gate,
    sign_ins: Mutex<ConnectionLimiter>,
    calls: Mutex<ConnectionLimiter>,
    sessions: Mutex<Sessions>,
    session_owners: Mutex<SessionOwners>,
    begun: Instant,
}

/// Who calls, on one stream.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) connection: ConnectionId,
    /// Of the stream, as its own records have it.
    pub(super) trace: String,
    pub(super) peer: ServerName,
    pub(super) user: ActingUser,
}

impl Caller {
    /// What the engine is told of it: the person where one is known, else the acting user.
    pub(super) fn identity(&self, person: Option<&str>) -> String {
        let person = person.and_then(|person| person.split('@').next());
        forwarded_for(person.unwrap_or(&self.user.name), &self.peer.name, &self.peer.organization_name)
    }
}

/// What a call is judged by: the policy of its moment, as options and people may change while a stream is open.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) guard: Guard,
    /// Who is behind the acting user, as the platform says.
    pub(super) person: Option<String>,
    /// Nobody else gets through.
    pub(super) named_people: bool,
}

impl OwnerEnd {
    /// For the engine of the configuration.
    pub fn new(engine: EngineApi, log: AuditLog, gate: Gate) -> Self {
        Self(Arc::new(Inner {
            engine,
            log,
            gate,
            sign_ins: Mutex::new(ConnectionLimiter::sign_ins()),
            calls: Mutex::new(ConnectionLimiter::calls()),
            sessions: Mutex::default(),
            session_owners: Mutex::default(),
            begun: Instant::now(),
        }))
    }

    /// Who acts: the opening of a stream that has proved its connection.
    pub async fn opening(&self, recv: &mut RecvStream) -> Result<ActingUser, RefusalCode> {
        let mut length = [0; 2];
        recv.read_exact(&mut length).await.map_err(|_| RefusalCode::NoActingUser)?;
        let length = usize::from(u16::from_be_bytes(length));
        if length > MAX_OPENING_LEN {
            return Err(RefusalCode::NoActingUser);
        }
        let mut body = vec![0; length];
        recv.read_exact(&mut body).await.map_err(|_| RefusalCode::NoActingUser)?;
        ActingUser::decode(&body).map_err(|_| RefusalCode::NoActingUser)
    }

    /// Serves one stream until the client or the permission ends.
    pub async fn serve(
        &self,
        permit: Permit,
        peer: ServerName,
        user: ActingUser,
        (send, recv): (SendHalf, RecvStream),
        (traffic, record): (Arc<Traffic>, Box<StreamRecord>),
    ) {
        let caller = Caller { connection: permit.entry.id, trace: record.trace(), peer, user };
        let record: Arc<StreamRecord> = Arc::from(record);
        let reader = ClientReader::new(recv, traffic.clone(), record.clone());
        let writer = ClientWriter::new(send, traffic.clone(), record.clone());
        let mut exchange = Exchange::new(self, &caller, reader, writer);
        let ended = permit.allowed.run_until_cancelled(exchange.run()).await;
        let code = match ended {
            Some(Ok(())) => {
                traffic.finished.fetch_add(1, Relaxed);
                record.ended(StreamEnding::Clean);
                exchange.finish();
                return;
            }
            Some(Err(error)) => {
                debug!(%error, "admin stream ended");
                record.ended(StreamEnding::ResetThere);
                ResetCode::SocketReset
            }
            None => {
                record.ended(StreamEnding::Revoked);
                ResetCode::NotAllowed
            }
        };
        traffic.reset.fetch_add(1, Relaxed);
        exchange.reset(code);
    }

    pub(super) fn engine(&self) -> &EngineApi {
        &self.0.engine
    }

    pub(super) fn log(&self) -> &AuditLog {
        &self.0.log
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the sessions of other admin connections out of a request: it is answered as one that shows none.
    pub(super) fn keep_own_sessions(&self, head: &mut RequestHead, caller: &Caller) {
        let taken = self.session_owners().keep_own(head, caller.connection);
        if taken > 0 {
            let connection = caller.connection;
            info!(%connection, taken, "a session of another admin connection, or in no plain form, does not pass");
        }
    }

    /// The engine sets a cookie in an answer to this caller, who has not seen it yet.
    pub(super) fn session_begun(&self, set_cookie: &str, caller: &Caller) {
        self.session_owners().begun(set_cookie, caller.connection);
    }

    fn session_owners(&self) -> MutexGuard<'_, SessionOwners> {
        self.0.session_owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call of this moment is judged by.
    pub(super) fn terms(&self, caller: &Caller) -> Result<Terms, DeniedReason> {
        let entry = self.0.gate.enter(caller.connection, Role::Listener)?.entry;
        Ok(Terms {
            guard: Guard::new(entry.kind, entry.admin, self.0.engine.context_path()),
            person: entry.person(&caller.user, self.0.gate.now()).map(str::to_owned),
            named_people: entry.admin.named_people,
        })
    }

    /// Takes one attempt to sign in, or says how long to wait.
    pub(super) fn attempt(&self, connection: ConnectionId) -> Result<(), Duration> {
        let now = self.0.begun.elapsed();
        self.0.sign_ins.lock().unwrap_or_else(PoisonError::into_inner).attempt(connection, now)
    }

    /// How long a call has to wait, so that calls without end neither fill the log nor take the machine.
    pub(super) fn pace(&self, connection: ConnectionId) -> Duration {
        let now = self.0.begun.elapsed();
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).pace(connection, now)
    }
}

/// The record of a call under way. It is written when it is dropped: when the call ends, however it ends.
#[derive(Debug)]
pub(super) struct Record {
    call: AdminCall,
    place: Option<Place>,
    begun: Instant,
}

impl Record {
    /// For a call that may begin when this has returned; none: the daemon goes down.
    pub(super) async fn new(log: &AuditLog, caller: &Caller, method: &'static str) -> Option<Self> {
        let place = log.place().await?;
        let call = AdminCall {
            connection: caller.connection,
            trace: caller.trace.clone(),
            organization: caller.peer.organization_name.clone(),
            server: caller.peer.name.clone(),
            user: caller.user.name.clone(),
            known_by: caller.user.known_by,
            person: None,
            account: None,
            method: method.into(),
            path: "unknown".into(),
            class: None,
            status: 0,
            cut: false,
            refused: None,
            duration_ms: 0,
        };
        Some(Self { call, place: Some(place), begun: Instant::now() })
    }

    pub(super) fn passes(&mut self, pass: &Pass) {
        self.call.path = pass.template.into();
        self.call.class = Some(pass.class);
    }

    pub(super) fn person(&mut self, person: Option<String>) {
        self.call.person = person;
    }

    pub(super) fn account(&mut self, account: Option<String>) {
        self.call.account = account;
    }

    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.call.path = refusal.template.into();
        self.call.class = refusal.class;
        self.status(refusal.status);
        self.call.refused = Some(refusal.reason.clone());
    }

    /// The answer is ours, and at hand.
    pub(super) fn status(&mut self, status: u16) {
        (self.call.status, self.call.cut) = (status, false);
    }

    /// The engine's answer begins; until it is whole the call counts as cut.
    pub(super) fn begins(&mut self, status: u16) {
        (self.call.status, self.call.cut) = (status, true);
    }

    /// The answer that began has been led back to its end.
    pub(super) fn is_whole(&mut self) {
        self.call.cut = false;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        place.record(AdminCall { duration_ms, ..self.call.clone() });
    }
}
