//! The sessions at the engine that went through this gateway: which of them the engine knows, and which account's they are.
//! That each of them is good on one connection only is `gateway_proto::admin::sessions`.
//!
//! Only hashes of what a client shows are kept, so nothing here signs anybody in.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use gateway_proto::admin::head::RequestHead;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Sessions remembered at most; the oldest is forgotten first and asked for again when it is used.
const MAX_SESSIONS: usize = 1024;
/// The engine is asked again after this time: it may have been restarted, or have ended the session.
const BELIEVED: Duration = Duration::from_secs(300);

/// What a request shows to the engine, as a hash.
pub(super) type SessionKey = [u8; 32];

#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: BTreeMap<SessionKey, (Session, Instant)>,
    order: VecDeque<SessionKey>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    /// The engine said that it is signed in.
    pub(super) signed_in: bool,
    /// The account at the engine.
    pub(super) account: Option<String>,
}

impl Sessions {
    pub(super) fn get(&self, key: &SessionKey, now: Instant) -> Session {
        let Some((session, at)) = self.known.get(key) else { return Session::default() };
        let signed_in = session.signed_in && now.saturating_duration_since(*at) < BELIEVED;
        Session { signed_in, account: session.account.clone() }
    }

    pub(super) fn put(&mut self, key: SessionKey, session: Session, now: Instant) {
        if self.known.insert(key, (session, now)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > MAX_SESSIONS {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    pub(super) fn forget(&mut self, key: &SessionKey) {
        if self.known.remove(key).is_some() {
            self.order.retain(|other| other != key);
        }
    }
}

/// The key of what a request shows; none: it shows nothing.
pub(super) fn key_of(head: &RequestHead) -> Option<SessionKey> {
    let field = |name: &str| head.fields.iter().find(|field| field.name == name).map(|field| field.value.as_str());
    let cookies =
        field("cookie").unwrap_or_default().split(';').map(str::trim).filter(|c| c.starts_with("JSESSIONID="));
    let cookies = cookies.collect::<Vec<_>>().join(";");
    let authorization = field("authorization").unwrap_or_default();
    (!cookies.is_empty() || !authorization.is_empty()).then(|| hash(&cookies, authorization))
}

/// The key of what is shown at the API below one path. The engine keeps the sessions of each API by themselves: who is signed in
/// at one is nobody at the next.
pub(super) fn key_at(shown: &SessionKey, api: &str) -> SessionKey {
    Sha256::new().chain_update(shown).chain_update(api).finalize().into()
}

/// The key of a session that the engine has just begun.
pub(super) fn key_of_cookie(set_cookie: &str) -> Option<SessionKey> {
    let cookie = set_cookie.split(';').next()?.trim();
    cookie.starts_with("JSESSIONID=").then(|| hash(cookie, ""))
}

fn hash(cookies: &str, authorization: &str) -> SessionKey {
    Sha256::new().chain_update(cookies).chain_update([0]).chain_update(authorization).finalize().into()
}

/// The account in the engine's answer to `GET /users/current`.
pub(super) fn account_in(answer: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(answer).ok()?;
    clean(value.get("user")?.get("username")?.as_str()?)
}

/// The account named in a sign-in form; none: it cannot be read, and does not pass.
pub(super) fn account_of_form(form: &[u8]) -> Option<String> {
    let mut names = url::form_urlencoded::parse(form).filter(|(key, _)| key == "username").map(|(_, value)| value);
    let name = names.next()?;
    // Two names: the engine might take the other one.
    if names.next().is_some() { None } else { Some(name.into_owned()) }
}

/// An account as it may stand in the log.
pub(super) fn clean(account: &str) -> Option<String> {
    let text: String = account.chars().filter(|c| !c.is_control()).take(64).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_session_is_signed_in_is_believed_for_a_while_and_whose_it_is_stays_known() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.put([1; 32], Session { signed_in: true, account: Some("admin".into()) }, now);
        assert!(sessions.get(&[1; 32], now + BELIEVED / 2).signed_in);
        let later = sessions.get(&[1; 32], now + BELIEVED);
        assert_eq!((later.signed_in, later.account.as_deref()), (false, Some("admin")));
        assert!(!sessions.get(&[2; 32], now).signed_in);
    }

    #[test]
    fn what_is_shown_is_something_else_at_each_api() {
        let shown = hash("JSESSIONID=node0", "");
        let keys = [
            shown,
            key_at(&shown, "/api"),
            key_at(&shown, "/api/4.5.2"),
            key_at(&hash("JSESSIONID=node1", ""), "/api"),
        ];
        let different: std::collections::BTreeSet<_> = keys.into_iter().collect();
        assert_eq!(different.len(), 4);
    }
}
