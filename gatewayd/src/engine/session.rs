//! A session with the engine's API: one form login, a cookie, and requests that only read.
//!
//! The password is read from its file at each login and kept nowhere; neither it, nor the cookie, nor a text of the engine
//! gets into an error: a hostile engine could hand the password back.

use std::time::Duration;

use gateway_net::{
    http::{self, HttpSetupError},
    secret_file::{self, SecretFileError},
    tls::{PinMismatch, TlsPin, speaks_no_tls},
};
use gateway_proto::engine::{
    EngineState,
    answers::{AnswerError, MAX_ANSWER},
    clean,
};
use reqwest::{Method, Response, StatusCode, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::task::JoinError;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::config::{EngineConfig, EngineLogin};

/// A request may take this long; a login costs the engine half a second of its CPU.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The engine refuses every request without this header; any value will do.
const REQUESTED_WITH: (&str, &str) = ("X-Requested-With", "gatewayd");
/// What every engine tells everybody.
const VERSION: &str = "/server/version";
/// The longest session id that is taken.
const MAX_SESSION_ID: usize = 200;

/// Why the engine was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot read the password of the engine's user ([engine] password_file)")]
    Password(#[from] SecretFileError),
    #[error("the password file of the engine's user is empty or not UTF-8 ([engine] password_file)")]
    NoPassword,
    #[error("the engine refuses the login of user '{user}': {why}")]
    Refused { user: String, why: &'static str },
    #[error("the engine does not answer at {host}; is it running, and is [engine] api right?")]
    Unreachable {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error(
        "the engine at {host} answers, but with another TLS key than [engine] tls_pin says: if it got a new certificate, set tls_pin \
         to {presented}; if not, something else answers there (pinned: {expected})"
    )]
    OtherKey { host: String, expected: TlsPin, presented: TlsPin },
    #[error(
        "what answers at {host} speaks no TLS: [engine] api names the engine's HTTPS port (https.port), not its HTTP port"
    )]
    NoTls { host: String },
    #[error("the engine answers {path} with HTTP status {status}{}", hint(.path, .status))]
    Status { path: &'static str, status: u16 },
    #[error("the engine ends a new session at once")]
    NoSession,
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("reading the engine's answers ended before its end")]
    Reading(#[from] JoinError),
}

impl AskError {
    /// Whether trying again changes nothing, and may lock the user out.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Password(_) | Self::NoPassword => true,
            Self::Unreachable { .. }
            | Self::OtherKey { .. }
            | Self::NoTls { .. }
            | Self::Status { .. }
            | Self::NoSession
            | Self::Answer(_)
            | Self::Reading(_) => false,
        }
    }

    /// What it says of the engine.
    pub(super) fn state(&self) -> EngineState {
        match self {
            Self::Refused { .. } | Self::Password(_) | Self::NoPassword => EngineState::LoginRefused,
            Self::Unreachable { .. } => EngineState::Down,
            // An engine that starts answers, but is not there yet.
            Self::Status { status: 503, .. } => EngineState::Down,
            Self::OtherKey { .. }
            | Self::NoTls { .. }
            | Self::Status { .. }
            | Self::NoSession
            | Self::Answer(_)
            | Self::Reading(_) => EngineState::NotUnderstood,
        }
    }
}

/// What is wrong where the first request of all finds nothing.
fn hint(path: &str, status: &u16) -> &'static str {
    if path == VERSION && *status == 404 {
        "; [engine] api is the engine's address without the /api of its paths, and with http.contextpath if it has one"
    } else {
        ""
    }
}

/// A session, logged in or not yet.
#[derive(Debug)]
pub(super) struct Session {
    client: reqwest::Client,
    base: String,
    host: String,
    login: EngineLogin,
    cookie: Option<Cookie>,
    version: Option<String>,
    /// Of the password that was used last.
    password_digest: Option<[u8; 32]>,
}

/// `JSESSIONID=…`; masked.
struct Cookie(Zeroizing<String>);

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookie(masked)")
    }
}

impl Session {
    pub(super) fn new(config: &EngineConfig, login: EngineLogin) -> Result<Self, HttpSetupError> {
        let client = http::engine_client(config.tls_pin)?;
        let (host, port) = config.host_and_port();
        let (base, host) = (format!("{}/api", config.url()), format!("{host}:{port}"));
        Ok(Self { client, base, host, login, cookie: None, version: None, password_digest: None })
    }

    /// The engine's version, once asked for.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub(super) fn forget_version(&mut self) {
        self.version = None;
    }

    /// Asks for the version, which needs no login: is it an engine at all?
    pub(super) async fn ask_version(&mut self) -> Result<(), AskError> {
        let path = VERSION;
        // Plain text: JSON would be refused (406).
        let response = self.send(Method::GET, path, &[], "*/*", None, None).await?;
        let text = self.body(path, response).await?;
        self.version = Some(clean(String::from_utf8_lossy(&text).trim()));
        Ok(())
    }

    /// Reads an answer in JSON; logs in first where that is needed, once.
    pub(super) async fn get(&mut self, path: &'static str, channels: &[String]) -> Result<Vec<u8>, AskError> {
        let is_fresh = self.cookie.is_none();
        if is_fresh {
            self.log_in().await?;
        }
        let response = self.read(path, channels).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.body(path, response).await;
        }
        // The session ended: the engine was restarted, or it was too long ago.
        self.cookie = None;
        if is_fresh {
            return Err(AskError::NoSession);
        }
        self.log_in().await?;
        let response = self.read(path, channels).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.cookie = None;
            return Err(AskError::NoSession);
        }
        self.body(path, response).await
    }

    /// Whether the password file holds another password than the one that was used last.
    pub(super) fn has_another_password(&self) -> bool {
        self.password().is_ok_and(|password| Some(digest(&password)) != self.password_digest)
    }

    /// Ends the session at the engine.
    pub(super) async fn logout(&mut self) {
        if let Some(cookie) = self.cookie.take() {
            // Nothing depends on it: the engine forgets a session by itself.
            let _ = self.send(Method::POST, "/users/_logout", &[], "*/*", Some(&cookie), None).await;
        }
    }

    async fn read(&self, path: &'static str, channels: &[String]) -> Result<Response, AskError> {
        self.send(Method::GET, path, channels, "application/json", self.cookie.as_ref(), None).await
    }

    async fn log_in(&mut self) -> Result<(), AskError> {
        // A file that cannot be read now is another one when it can, with the same password too.
        self.password_digest = None;
        let password = self.password()?;
        self.password_digest = Some(digest(&password));
        let form = Zeroizing::new(
            form_urlencoded::Serializer::new(String::new())
                .append_pair("username", &self.login.user)
                .append_pair("password", &password)
                .finish(),
        );
        let path = "/users/_login";
        let response = self.send(Method::POST, path, &[], "application/json", None, Some(&form)).await?;
        let (status, cookie) = (response.status(), session_cookie(&response));
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = why_refused(&self.read_body(path, response).await?);
                return Err(AskError::Refused { user: self.login.user.clone(), why });
            }
            _ => return Err(AskError::Status { path, status: status.as_u16() }),
        }
        self.cookie = Some(cookie.ok_or(AskError::NoSession)?);
        Ok(())
    }

    fn password(&self) -> Result<Zeroizing<String>, AskError> {
        let bytes = secret_file::read(&self.login.password_file)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| AskError::NoPassword)?;
        // An editor ends a file with a line end; a password has none.
        let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if password.is_empty() { Err(AskError::NoPassword) } else { Ok(password) }
    }

    async fn send(
        &self,
        method: Method,
        path: &'static str,
        channels: &[String],
        accept: &'static str,
        cookie: Option<&Cookie>,
        form: Option<&str>,
    ) -> Result<Response, AskError> {
        let url = format!("{}{path}", self.base);
        let ids: Vec<_> = channels.iter().map(|id| ("channelId", id)).collect();
        let mut request = self.client.request(method, url).query(&ids).timeout(REQUEST_TIMEOUT);
        request = request.header(REQUESTED_WITH.0, REQUESTED_WITH.1).header(header::ACCEPT, accept);
        if let Some(Cookie(cookie)) = cookie {
            request = request.header(header::COOKIE, cookie.as_str());
        }
        if let Some(form) = form {
            let kind = "application/x-www-form-urlencoded";
            request = request.header(header::CONTENT_TYPE, kind).body(form.to_owned());
        }
        request.send().await.map_err(|source| self.unreachable(source))
    }

    async fn body(&self, path: &'static str, response: Response) -> Result<Vec<u8>, AskError> {
        if !response.status().is_success() {
            return Err(AskError::Status { path, status: response.status().as_u16() });
        }
        self.read_body(path, response).await
    }

    /// Reads a body up to the limit, whatever length it claims.
    async fn read_body(&self, path: &'static str, mut response: Response) -> Result<Vec<u8>, AskError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| self.unreachable(source))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(AnswerError::TooLarge { request: path }.into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, source: reqwest::Error) -> AskError {
        let host = self.host.clone();
        if let Some(PinMismatch { expected, presented }) = PinMismatch::find_in(&source).copied() {
            return AskError::OtherKey { host, expected, presented };
        }
        if speaks_no_tls(&source) {
            return AskError::NoTls { host };
        }
        AskError::Unreachable { host, source: source.without_url() }
    }
}

/// The cookie of a new session, if it is one that may be sent back.
fn session_cookie(response: &Response) -> Option<Cookie> {
    let cookies = response.headers().get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let id = cookies.filter_map(|cookie| cookie.split(';').next()?.trim().strip_prefix("JSESSIONID=")).next_back()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-!~".contains(&byte);
    let fits = !id.is_empty() && id.len() <= MAX_SESSION_ID && id.bytes().all(is_plain);
    fits.then(|| Cookie(Zeroizing::new(format!("JSESSIONID={id}"))))
}

/// The engine's word for the refusal, in ours: its own text is not repeated.
fn why_refused(body: &[u8]) -> &'static str {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "com.mirth.connect.model.LoginStatus")]
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        status: String,
    }
    match serde_json::from_slice::<Answer>(body).as_ref().map(|answer| answer.status.status.as_str()) {
        Ok("FAIL_LOCKED_OUT") => "the user is locked out; an administrator of the engine must unlock it",
        Ok("FAIL_EXPIRED") => "the password has expired; set a new one in the engine and in the password file",
        Ok("FAIL_VERSION_MISMATCH") => "the engine asks for another client version",
        _ => "user or password is wrong; correct the password file, which is then tried again by itself",
    }
}

fn digest(password: &str) -> [u8; 32] {
    Sha256::digest(password.as_bytes()).into()
}

#[cfg(test)]
mod tests;
