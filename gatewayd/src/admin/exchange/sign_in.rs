//! Who signs in at the engine, and whether it knows a call's session.

use std::time::Duration;

use gateway_proto::admin::{
    answer::AnswerHead,
    form::has_one_reading,
    forward::session_check,
    guard::{MAX_FILTER_LEN, MAX_LOGIN_LEN, Pass, Refusal, is_bypass, may_search_events},
    operation::Method,
};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::{
    super::sessions::{Session, account_in, account_of_form, clean, key_at, key_of_cookie},
    Call, Exchange, Stop, refusal,
    upload::whole,
};

/// The largest answer to a question of our own, in bytes.
const MAX_OWN_ANSWER: usize = 64 << 10;
/// How long a call waits for a name that only the log is told.
const NAMED_WITHIN: Duration = Duration::from_secs(2);

impl Exchange<'_> {
    /// A sign-in form, whole: who signs in is looked at before the engine sees it.
    pub(super) async fn form(&mut self, call: &mut Call<'_>) -> Result<Vec<u8>, Stop> {
        let form = whole(&mut self.reader, call, MAX_LOGIN_LEN).await?;
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

    /// A filter of events, whole: it may not find out by a search what is masked in the answer.
    pub(super) async fn filter(&mut self, call: &mut Call<'_>) -> Result<Vec<u8>, Stop> {
        let filter = whole(&mut self.reader, call, MAX_FILTER_LEN).await?;
        if may_search_events(&filter) {
            let reason = "not part of this admin connection: search in what events tell needs the option patient data";
            return Err(refusal(403, reason.into(), Some(&call.pass)).into());
        }
        Ok(filter)
    }

    /// Before a body passes, the engine must know the session: what it deserializes before a sign-in, nobody may send.
    pub(super) async fn ask_session(&mut self, call: &Call<'_>) -> Result<Option<String>, Stop> {
        match self.ask_whose(call).await? {
            (200, account) => Ok(account),
            (status, _) => Err(no_session(status, &call.pass).into()),
        }
    }

    /// Whose session a call shows, for the log; none: the engine does not say, or not soon, and answers the call as it thinks
    /// right.
    pub(super) async fn ask_account(&mut self, call: &Call<'_>) -> Option<String> {
        // Nothing remembers that a cookie is nobody's: such calls are two at the engine, and count as two.
        let pace = self.owner.pace(self.caller.connection);
        if !pace.is_zero() {
            sleep(pace).await;
        }
        if let Ok(Ok((_, account))) = timeout(NAMED_WITHIN, self.ask_whose(call)).await {
            return account;
        }
        debug!("the engine does not say whose session a call shows");
        // The rest of the answer may come on this connection yet.
        self.engine = None;
        None
    }

    /// The status with which the engine answers whose session a call shows, and the account where that is 200.
    async fn ask_whose(&mut self, call: &Call<'_>) -> Result<(u16, Option<String>), Stop> {
        let (Some(key), Some(api)) = (call.session, call.pass.api.as_deref()) else { return Ok((401, None)) };
        let question = session_check(call.head, api, &self.identity);
        let answer = self.ask_engine(&question, Method::Get).await?;
        let engine = self.engine.as_mut().ok_or(Stop::CutOff)?;
        let body = engine.reader.whole_body(answer.framing, MAX_OWN_ANSWER).await?;
        if answer.close || body.is_none() {
            self.engine = None;
        }
        if answer.status != 200 {
            return Ok((answer.status, None));
        }
        let account = body.as_deref().and_then(account_in);
        let mut sessions = self.owner.sessions();
        for key in [Some(key), call.shown].into_iter().flatten() {
            sessions.put(key, Session { signed_in: true, account: account.clone() }, Instant::now());
        }
        Ok((200, account))
    }

    pub(super) fn note_session(&self, call: &Call<'_>, answer: &AnswerHead) {
        let set_cookies = || answer.fields.iter().filter(|field| field.name == "set-cookie");
        for field in set_cookies() {
            self.owner.session_begun(&field.value, self.caller);
        }
        let mut sessions = self.owner.sessions();
        if answer.status == 401 || matches!(call.pass.template, "/users/_logout" | "/users/_inactivityLogout") {
            // At this API only: whose calls at the others are, nobody may take out of the log by a call here.
            if let Some(key) = call.session {
                sessions.forget(&key);
            }
        }
        // A page that answers 200 may be the one that asks for the password once more.
        let (Some(account), Some(api), 200) = (&call.account, &call.pass.api, answer.status) else { return };
        let begun: Vec<_> = set_cookies().filter_map(|field| key_of_cookie(&field.value)).collect();
        // The engine may go on with the cookie that it was shown.
        let signed_in = if begun.is_empty() { call.shown.into_iter().collect() } else { begun };
        for shown in signed_in {
            for key in [shown, key_at(&shown, api)] {
                let session = Session { signed_in: false, account: Some(account.clone()) };
                sessions.put(key, session, Instant::now());
            }
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

#[cfg(test)]
mod tests {
    use gateway_proto::{
        admin::{guard::Guard, head::RequestHead},
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
