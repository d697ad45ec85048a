//! One admin stream at the owner's gateway: requests judged, written anew to the engine, answers led back.

mod masked;
mod round_trip;
mod sign_in;
mod upload;

use gateway_net::causes::with_causes;
use gateway_proto::{
    admin::{
        answer::own_answer,
        body::BodyDecoder,
        guard::{BodyRule, Pass, Refusal},
        head::{Framing, RequestHead},
    },
    stream::ResetCode,
};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{
    engine::{EngineConnection, EngineError},
    owner::{Caller, OwnerEnd, Record, Terms},
    sessions::{SessionKey, key_at, key_of},
    wire::{ClientError, ClientReader, ClientWriter},
};

/// What is read of a refused body, so that the connection can go on, in bytes.
const MAX_DRAINED: usize = 1 << 20;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub(super) struct Exchange<'a> {
    owner: &'a OwnerEnd,
    caller: &'a Caller,
    reader: ClientReader,
    writer: ClientWriter,
    engine: Option<EngineConnection>,
    /// Who the engine is told is calling.
    identity: String,
}

/// Why a call does not get the engine's answer.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("refused")]
    Refused(Refusal),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer that began cannot be completed.
    #[error("the answer was cut off")]
    CutOff,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A request with what was decided about it.
struct Call<'h> {
    head: &'h RequestHead,
    pass: Pass,
    /// What it shows, whichever API it is for.
    shown: Option<SessionKey>,
    /// The same at the API it is for.
    session: Option<SessionKey>,
    body: BodyDecoder,
    /// The account a sign-in is for.
    account: Option<String>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(owner: &'a OwnerEnd, caller: &'a Caller, reader: ClientReader, writer: ClientWriter) -> Self {
        Self { owner, caller, reader, writer, engine: None, identity: caller.identity(None) }
    }

    pub(super) fn finish(&mut self) {
        self.writer.finish();
        self.reader.stop(ResetCode::Refused);
    }

    pub(super) fn reset(&mut self, code: ResetCode) {
        self.writer.reset_as(code);
        self.reader.stop(code);
    }

    /// Serves requests until the client ends.
    pub(super) async fn run(&mut self) -> Result<(), ClientError> {
        loop {
            let mut head = match self.reader.head().await {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(()),
                Err(ClientError::Head { error, method }) => {
                    let mut record = self.record(method).await?;
                    let refusal = Refusal::from(error);
                    record.refused(&refusal);
                    return self.writer.write(&own_answer(refusal.status, &refusal.reason, true)).await;
                }
                Err(error) => return Err(error),
            };
            self.owner.keep_own_sessions(&mut head, self.caller);
            let mut record = self.record(head.method.name()).await?;
            let stays_open = self.call(&head, &mut record).await?;
            drop(record);
            if !stays_open || head.close {
                return Ok(());
            }
        }
    }

    /// Returns when the call may begin.
    async fn record(&self, method: &'static str) -> Result<Record, ClientError> {
        let pace = self.owner.pace(self.caller.connection);
        if !pace.is_zero() {
            sleep(pace).await;
        }
        Record::new(self.owner.log(), self.caller, method).await.ok_or(ClientError::NoLog)
    }

    /// One request and its answer; `false`: the connection ends with it.
    async fn call(&mut self, head: &RequestHead, record: &mut Record) -> Result<bool, ClientError> {
        let mut body = BodyDecoder::new(head.framing);
        let refusal = match self.try_call(head, &mut body, record).await {
            Ok(()) => return Ok(body.is_done()),
            Err(Stop::Client(error)) => return Err(error),
            Err(Stop::CutOff) => return Err(ClientError::Gone),
            Err(Stop::Refused(refusal)) => {
                info!(reason = refusal.reason, path = refusal.template, "admin call refused");
                refusal
            }
            Err(Stop::Engine(error)) => {
                info!(reason = with_causes(&error), "the engine's admin API did not answer");
                self.engine = None;
                let answer = own_answer(502, &format!("gateway: {error}"), true);
                record.status(502);
                self.writer.write(&answer).await?;
                return Ok(false);
            }
        };
        record.refused(&refusal);
        // A client that waits for leave to send its body may send it or not: only the end of the connection is clear.
        let waits = head.expects_continue && head.has_body();
        let small = !matches!(head.framing, Framing::Length(length) if length > MAX_DRAINED as u64);
        let stays_open = !waits && small && !matches!(refusal.status, 400 | 413 | 502);
        self.writer.write(&own_answer(refusal.status, &refusal.reason, !stays_open)).await?;
        Ok(stays_open && self.drain(&mut body).await?)
    }

    async fn drain(&mut self, body: &mut BodyDecoder) -> Result<bool, ClientError> {
        let (mut part, mut drained) = (Vec::new(), 0);
        loop {
            match self.reader.body(body, &mut part).await {
                Ok(true) => drained += part.len(),
                Ok(false) => return Ok(true),
                // Where it ends is not known, so nothing behind it is read; the answer has been written all the same.
                Err(ClientError::Body(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
            if drained > MAX_DRAINED {
                return Ok(false);
            }
        }
    }

    async fn try_call(&mut self, head: &RequestHead, body: &mut BodyDecoder, record: &mut Record) -> Result<(), Stop> {
        let Terms { guard, person, named_people } =
            self.owner.terms(self.caller).map_err(|reason| refusal(403, reason.to_string(), None))?;
        self.identity = self.caller.identity(person.as_deref());
        let is_unnamed = named_people && person.is_none();
        record.person(person);
        if is_unnamed {
            let reason = "this admin connection is for named people: say who you are with gateway-ctl admin enter";
            return Err(refusal(403, reason.to_owned(), None).into());
        }
        let shown = key_of(head);
        let known = shown.map(|key| self.owner.sessions().get(&key, Instant::now())).unwrap_or_default();
        record.account(known.account);
        let pass = guard.judge(head)?;
        record.passes(&pass);
        // Pages belong to no API.
        let session = shown.map(|key| pass.api.as_deref().map_or(key, |api| key_at(&key, api)));
        let here = session.map(|key| self.owner.sessions().get(&key, Instant::now())).unwrap_or_default();
        let is_named = here.account.is_some();
        // Who somebody is at one API says nothing of who the engine takes him for at another one.
        if is_named || pass.api.is_some() {
            record.account(here.account);
        }
        if !self.owner.log().is_writable() {
            return Err(refusal(503, "the gateway cannot record admin calls now".into(), Some(&pass)).into());
        }
        let by_password = head.fields.iter().any(|field| field.name == "authorization") && !here.signed_in;
        if pass.body == BodyRule::Login || by_password {
            self.owner.attempt(self.caller.connection).map_err(|wait| {
                let reason = format!("too many sign-in attempts through gateway: wait {} s", wait.as_secs() + 1);
                refusal(429, reason, Some(&pass))
            })?;
        }
        let mut call = Call { head, pass, shown, session, body: body.clone(), account: None };
        let result = self.pass_on(&mut call, (here.signed_in, is_named), record).await;
        *body = call.body;
        result
    }

    /// `signed_in`: the engine said so; `is_named`: whose session it is at this API is known here.
    async fn pass_on(
        &mut self,
        call: &mut Call<'_>,
        (signed_in, is_named): (bool, bool),
        record: &mut Record,
    ) -> Result<(), Stop> {
        let by_password = call.head.fields.iter().any(|field| field.name == "authorization");
        let with_body = matches!(call.pass.body, BodyRule::SignedIn(_) | BodyRule::Filter) && call.head.has_body();
        let is_unproved = call.pass.api.is_some() && !signed_in;
        // A password is asked for once, so that it counts as one attempt; a body must wait for the answer.
        if is_unproved && (with_body || by_password) {
            let account = self.ask_session(call).await?;
            record.account(account);
        } else if is_unproved && call.pass.body != BodyRule::Login && !is_named {
            // A session of before this gateway's start, or one that was forgotten: the log says whose it is all the same.
            let account = self.ask_account(call).await;
            record.account(account);
        }
        if call.head.expects_continue && call.head.has_body() {
            self.writer.write(CONTINUE).await?;
        }
        let whole = match call.pass.body {
            BodyRule::Login => Some(self.form(call).await?),
            BodyRule::Filter => Some(self.filter(call).await?),
            BodyRule::None | BodyRule::SignedIn(_) => None,
        };
        if call.account.is_some() {
            record.account(call.account.clone());
        }
        let answer = self.ask(call, whole.as_deref()).await?;
        record.begins(answer.status);
        self.note_session(call, &answer);
        self.lead_back(call, answer).await?;
        record.is_whole();
        Ok(())
    }
}

fn refusal(status: u16, reason: String, pass: Option<&Pass>) -> Refusal {
    Refusal {
        status,
        reason,
        template: pass.map_or("unknown", |pass| pass.template),
        class: pass.map(|pass| pass.class),
    }
}
