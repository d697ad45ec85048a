//! One admin stream at the owner's gateway: requests judged, written anew to the engine, answers led back.

mod masked;
mod upload;

use gateway_net::causes::with_causes;
use gateway_proto::{
    admin::{
        answer::{AnswerHead, own_answer, rewrite_start_file},
        body::{BodyDecoder, LAST_CHUNK, chunk},
        form::has_one_reading,
        forward::{engine_head, session_check},
        guard::{BodyRule, MAX_LOGIN_LEN, Pass, Refusal, is_bypass},
        head::{Framing, RequestHead},
        operation::Method,
    },
    stream::ResetCode,
};
use tokio::time::{Instant, sleep};
use tracing::info;
use upload::{answer_to, next_part, upload};

use super::{
    engine::{EngineConnection, EngineError},
    owner::{Caller, OwnerEnd, Record, Terms},
    sessions::{Session, SessionKey, account_in, account_of_form, clean, key_of, key_of_cookie},
    wire::{ClientError, ClientReader, ClientWriter},
};

/// The largest start file that is rewritten, in bytes.
const MAX_START_FILE: usize = 4 << 20;
/// The largest answer to a question of our own, in bytes.
const MAX_OWN_ANSWER: usize = 64 << 10;
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
                Err(ClientError::Head(error)) => {
                    let mut record = self.record("-").await?;
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
        let session = key_of(head);
        let known = session.map(|key| self.owner.sessions().get(&key, Instant::now())).unwrap_or_default();
        record.account(known.account.clone());
        let pass = guard.judge(head)?;
        record.passes(&pass);
        if !self.owner.log().is_writable() {
            return Err(refusal(503, "the gateway cannot record admin calls now".into(), Some(&pass)).into());
        }
        let by_password = head.fields.iter().any(|field| field.name == "authorization") && !known.signed_in;
        if pass.body == BodyRule::Login || by_password {
            self.owner.attempt(self.caller.connection).map_err(|wait| {
                let reason = format!("too many sign-in attempts through gateway: wait {} s", wait.as_secs() + 1);
                refusal(429, reason, Some(&pass))
            })?;
        }
        let mut call = Call { head, pass, session, body: body.clone(), account: None };
        let result = self.pass_on(&mut call, known, record).await;
        *body = call.body;
        result
    }

    async fn pass_on(&mut self, call: &mut Call<'_>, known: Session, record: &mut Record) -> Result<(), Stop> {
        let by_password = call.head.fields.iter().any(|field| field.name == "authorization");
        let with_body = matches!(call.pass.body, BodyRule::SignedIn(_)) && call.head.has_body();
        // A password is asked for once, so that it counts as one attempt; a body must wait for the answer.
        if (with_body || by_password) && call.pass.api.is_some() && !known.signed_in {
            let account = self.ask_session(call).await?;
            record.account(account);
        }
        if call.head.expects_continue && call.head.has_body() {
            self.writer.write(CONTINUE).await?;
        }
        let form = match call.pass.body {
            BodyRule::Login => Some(self.form(call).await?),
            BodyRule::None | BodyRule::SignedIn(_) => None,
        };
        if call.account.is_some() {
            record.account(call.account.clone());
        }
        let answer = self.ask(call, form.as_deref()).await?;
        record.status(answer.status);
        self.note_session(call, &answer);
        self.lead_back(call, answer).await
    }

    /// A sign-in form, whole: who signs in is looked at before the engine sees it.
    async fn form(&mut self, call: &mut Call<'_>) -> Result<Vec<u8>, Stop> {
        let (mut part, mut form) = (Vec::new(), Vec::new());
        while next_part(&mut self.reader, call, &mut part).await? {
            form.append(&mut part);
            if form.len() as u64 > MAX_LOGIN_LEN {
                return Err(
                    refusal(413, "refused by the gateway: the body is too large".into(), Some(&call.pass)).into()
                );
            }
        }
        if !has_one_reading(&form) {
            let reason = "refused by the gateway: the sign-in form can be read in more than one way";
            return Err(refusal(403, reason.into(), Some(&call.pass)).into());
        }
        if url::form_urlencoded::parse(&form).any(|(name, value)| name != "password" && is_bypass(&value)) {
            let reason = "refused by the gateway: the bypass account is for local programs";
            return Err(refusal(403, reason.into(), Some(&call.pass)).into());
        }
        let account = account_of_form(&form);
        if account.is_none() && call.pass.api.is_some() {
            return Err(
                refusal(403, "refused by the gateway: the sign-in names no account".into(), Some(&call.pass)).into()
            );
        }
        call.account = account.and_then(|account| clean(&account));
        Ok(form)
    }

    /// Before a body passes, the engine must know the session: what it deserializes before a sign-in, nobody may send.
    async fn ask_session(&mut self, call: &Call<'_>) -> Result<Option<String>, Stop> {
        let (Some(key), Some(api)) = (call.session, call.pass.api.as_deref()) else {
            return Err(no_session(401, &call.pass).into());
        };
        let question = session_check(call.head, api, &self.identity);
        let answer = self.ask_engine(&question, Method::Get).await?;
        let engine = self.engine.as_mut().ok_or(Stop::CutOff)?;
        let body = engine.reader.whole_body(answer.framing, MAX_OWN_ANSWER).await?;
        if answer.close || body.is_none() {
            self.engine = None;
        }
        if answer.status != 200 {
            return Err(no_session(answer.status, &call.pass).into());
        }
        let account = body.as_deref().and_then(account_in);
        self.owner.sessions().put(key, Session { signed_in: true, account: account.clone() }, Instant::now());
        Ok(account)
    }

    fn note_session(&self, call: &Call<'_>, answer: &AnswerHead) {
        let set_cookies = || answer.fields.iter().filter(|field| field.name == "set-cookie");
        for field in set_cookies() {
            self.owner.session_begun(&field.value, self.caller);
        }
        let mut sessions = self.owner.sessions();
        if let Some(key) = call.session
            && (answer.status == 401 || matches!(call.pass.template, "/users/_logout" | "/users/_inactivityLogout"))
        {
            sessions.forget(&key);
        }
        let (Some(account), 200) = (&call.account, answer.status) else { return };
        for field in set_cookies() {
            if let Some(key) = key_of_cookie(&field.value) {
                let session = Session { signed_in: false, account: Some(account.clone()) };
                sessions.put(key, session, Instant::now());
            }
        }
    }

    /// Sends a request without a body, on a new connection if the kept one has gone.
    async fn ask_engine(&mut self, request: &[u8], method: Method) -> Result<AnswerHead, EngineError> {
        loop {
            let mut engine = self.take_engine().await?;
            let answer = async {
                engine.send(request).await?;
                engine.reader.head(method).await
            };
            match answer.await {
                Ok(answer) => {
                    self.keep_engine(engine);
                    return Ok(answer);
                }
                // The engine may have closed it while it was idle. A sign-in is not sent twice: it would count as two.
                Err(_) if engine.used && matches!(method, Method::Get | Method::Head) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_engine(&mut self) -> Result<EngineConnection, EngineError> {
        if let Some(mut engine) = self.engine.take()
            && engine.is_alive().await
        {
            return Ok(engine);
        }
        self.owner.engine().connect().await
    }

    fn keep_engine(&mut self, mut engine: EngineConnection) {
        engine.used = true;
        self.engine = Some(engine);
    }

    async fn ask(&mut self, call: &mut Call<'_>, form: Option<&[u8]>) -> Result<AnswerHead, Stop> {
        let mut request = engine_head(call.head, &call.pass, &self.identity);
        if let Some(form) = form {
            match call.head.framing {
                Framing::Chunked => {
                    request.extend_from_slice(&chunk(form));
                    request.extend_from_slice(LAST_CHUNK);
                }
                Framing::None | Framing::Length(_) | Framing::UntilClose => request.extend_from_slice(form),
            }
        }
        let method = call.head.method;
        if form.is_some() || matches!(method, Method::Get | Method::Head) {
            return Ok(self.ask_engine(&request, method).await?);
        }
        let mut engine = self.take_engine().await?;
        engine.send(&request).await?;
        let EngineConnection { reader, writer, .. } = &mut engine;
        let limit = match call.pass.body {
            BodyRule::SignedIn(limit) => limit,
            BodyRule::None | BodyRule::Login => 0,
        };
        let answer = answer_to(upload(&mut self.reader, call, writer, limit), reader.head(method)).await?;
        self.keep_engine(engine);
        Ok(answer)
    }

    /// The engine's answer to the client, changed where it must be.
    async fn lead_back(&mut self, call: &Call<'_>, answer: AnswerHead) -> Result<(), Stop> {
        let Some(mut engine) = self.engine.take() else { return Err(Stop::CutOff) };
        let empty = matches!(answer.framing, Framing::None | Framing::Length(0));
        let good = (200..300).contains(&answer.status) && !empty;
        if call.pass.start_file && good {
            let whole = engine.reader.whole_body(answer.framing, MAX_START_FILE).await?;
            let text = whole.filter(|_| !answer.is_encoded()).and_then(|bytes| String::from_utf8(bytes).ok());
            let unreadable = || "gateway: the engine's start file is not readable".to_owned();
            let text = text.ok_or_else(|| refusal(502, unreadable(), Some(&call.pass)))?;
            let text = rewrite_start_file(&text, &call.head.host);
            self.writer.write(&answer.for_client(Framing::Length(text.len() as u64), false)).await?;
            self.writer.write(text.as_bytes()).await?;
        } else if let Some(redaction) = call.pass.redaction.filter(|_| good) {
            self.lead_back_masked(call, &answer, &mut engine.reader, redaction).await?;
        } else {
            let framing = match answer.framing {
                Framing::UntilClose => Framing::Chunked,
                framing @ (Framing::None | Framing::Length(_) | Framing::Chunked) => framing,
            };
            self.writer.write(&answer.for_client(framing, false)).await?;
            let (mut decoder, mut part) = (BodyDecoder::new(answer.framing), Vec::new());
            // From here on nothing but the whole answer may look like one.
            while engine.reader.body(&mut decoder, &mut part).await.map_err(|_| Stop::CutOff)? {
                self.send_part(framing, &part).await?;
            }
            if framing == Framing::Chunked {
                self.writer.write(LAST_CHUNK).await?;
            }
        }
        if !answer.close && call.body.is_done() {
            self.keep_engine(engine);
        }
        Ok(())
    }

    async fn send_part(&mut self, framing: Framing, part: &[u8]) -> Result<(), ClientError> {
        if part.is_empty() {
            return Ok(());
        }
        match framing {
            Framing::Chunked => self.writer.write(&chunk(part)).await,
            Framing::None | Framing::Length(_) | Framing::UntilClose => self.writer.write(part).await,
        }
    }
}

/// Why a body does not pass, by the engine's answer to whether it knows the session. 401 is the engine's word alone: the
/// Administrator takes it for the end of its session and signs its user out.
fn no_session(answered: u16, pass: &Pass) -> Refusal {
    let (status, reason) = match answered {
        401 => (401, "sign in at the engine first".to_owned()),
        403 => (403, "gateway: the engine does not let this account see its own session".to_owned()),
        404 => (404, "gateway: the engine has no API at this path".to_owned()),
        503 => (503, "gateway: the engine is not ready to say whether the session is signed in".to_owned()),
        other => (502, format!("gateway: the engine answered {other} when asked whether the session is signed in")),
    };
    refusal(status, reason, Some(pass))
}

fn refusal(status: u16, reason: String, pass: Option<&Pass>) -> Refusal {
    Refusal {
        status,
        reason,
        template: pass.map_or("unknown", |pass| pass.template),
        class: pass.map(|pass| pass.class),
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::{
        admin::guard::Guard,
        policy::{AdminScope, ConnectionKind},
    };

    use super::*;

    #[test]
    fn only_the_engine_ends_a_session_and_every_other_answer_of_it_says_what_is_wrong() {
        let head = b"GET /api/server/id HTTP/1.1\r\nHost: h\r\n\r\n";
        let head = RequestHead::parse(head).unwrap();
        let guard = Guard::new(ConnectionKind::AdminReadOnly, AdminScope::default(), "");
        let pass = guard.judge(&head).unwrap();
        for (answered, status) in [(401, 401), (403, 403), (404, 404), (503, 503), (500, 502), (302, 502)] {
            let refusal = no_session(answered, &pass);
            assert_eq!((refusal.status, refusal.template), (status, "/server/id"), "{answered}");
            assert!(refusal.reason.is_ascii() && !refusal.reason.contains(['\r', '\n']), "{}", refusal.reason);
        }
    }
}
