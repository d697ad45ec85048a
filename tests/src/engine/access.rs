//! Who may ask: sessions, Basic authentication, the bypass user, and what every request did.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::definition::EngineDefinition;

/// Requests remembered at most.
const MAX_EXECUTED: usize = 100_000;

/// The user of `server.api.bypassword`.
pub const BYPASS: &str = "bypass";

/// One request that came through to an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// Method.
    pub method: String,
    /// Raw path and query.
    pub target: String,
    /// The operation's path template.
    pub template: String,
    /// The operation's class.
    pub class: String,
    /// Who asked; none: nobody had to say.
    pub user: Option<String>,
    /// Address in the engine's audit log: `X-Forwarded-For` where there is one, else the peer's.
    pub address: String,
    /// Every header, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the body.
    pub body: usize,
    /// Status of the answer.
    pub status: u16,
}

/// Sessions, users and the log.
#[derive(Debug)]
pub struct Access {
    bypass_password: Option<String>,
    retry_limit: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<String, String>,
    /// By context and value of the cookie: a session of one context is nothing in the other.
    sessions: BTreeMap<(String, String), String>,
    failures: BTreeMap<String, u32>,
    locked: BTreeSet<String>,
    logins: u64,
    failed_logins: u64,
    executed: Vec<Executed>,
}

/// How a login went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Welcome.
    Success,
    /// Wrong user or password.
    Fail,
    /// Too many wrong ones before.
    LockedOut,
}

impl Access {
    /// Access by a definition.
    pub fn new(definition: &EngineDefinition) -> Self {
        Self {
            bypass_password: definition.bypass_password.clone(),
            retry_limit: definition.retry_limit,
            state: Mutex::new(State { users: definition.users.clone(), ..State::default() }),
        }
    }

    /// Checks a password.
    pub fn login(&self, user: &str, password: &str) -> Login {
        let mut state = self.lock();
        if state.locked.contains(user) {
            state.failed_logins += 1;
            return Login::LockedOut;
        }
        if state.users.get(user).is_some_and(|right| right == password) {
            state.failures.remove(user);
            state.logins += 1;
            return Login::Success;
        }
        state.failed_logins += 1;
        let failures = state.failures.entry(user.into()).or_default();
        *failures += 1;
        if self.retry_limit > 0 && *failures >= self.retry_limit {
            state.locked.insert(user.into());
        }
        Login::Fail
    }

    /// Opens a session in a context and gives the cookie's value.
    pub fn open_session(&self, context: &str, user: &str) -> String {
        let cookie = fresh_cookie();
        self.lock().sessions.insert((context.into(), cookie.clone()), user.into());
        cookie
    }

    /// The user of a session.
    pub fn session(&self, context: &str, cookie: &str) -> Option<String> {
        self.lock().sessions.get(&(context.to_owned(), cookie.to_owned())).cloned()
    }

    /// Ends a session.
    pub fn close_session(&self, context: &str, cookie: &str) {
        self.lock().sessions.remove(&(context.to_owned(), cookie.to_owned()));
    }

    /// Ends every session, as a restart does.
    pub fn close_all(&self) {
        self.lock().sessions.clear();
    }

    /// The user of an `Authorization: Basic`; `bypass` is believed from a loopback address only.
    pub fn basic(&self, authorization: &str, peer: IpAddr) -> Option<String> {
        let encoded = authorization.strip_prefix("Basic ").or_else(|| authorization.strip_prefix("basic "))?;
        let decoded = String::from_utf8(BASE64.decode(encoded.trim().as_bytes()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        if user == BYPASS {
            let is_right = self.bypass_password.as_deref() == Some(password);
            return (is_right && peer.is_loopback()).then(|| user.into());
        }
        (self.login(user, password) == Login::Success).then(|| user.into())
    }

    /// Sets the password of a user.
    pub fn set_password(&self, user: &str, password: &str) {
        self.lock().users.insert(user.into(), password.into());
    }

    /// The users.
    pub fn users(&self) -> Vec<String> {
        self.lock().users.keys().cloned().collect()
    }

    /// Logins that went well and those that did not.
    pub fn logins(&self) -> [u64; 2] {
        let state = self.lock();
        [state.logins, state.failed_logins]
    }

    /// Remembers a request.
    pub fn note(&self, executed: Executed) {
        let mut state = self.lock();
        if state.executed.len() < MAX_EXECUTED {
            state.executed.push(executed);
        }
    }

    /// The requests so far.
    pub fn executed(&self) -> Vec<Executed> {
        self.lock().executed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cookie value in the engine's form.
pub fn fresh_cookie() -> String {
    format!("node0{}0", HEXLOWER.encode(&gateway_net::entropy::random::<16>()))
}
