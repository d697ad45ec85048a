//! The guard: what passes from a partner's administrator to the engine's admin API, decided from the head alone.
//!
//! The engine has no roles: whoever may sign in may do everything. So read-only is enforced here, at the owner's gateway:
//! reads, sessions and audit events pass, secrets are masked or withheld, patient data passes if the connection's options
//! say so, and everything else, above all the unknown, is refused with 403 and a reason that the Administrator shows.

mod content;
mod pages;

use data_encoding::BASE64;

pub use self::content::may_search_events;
use self::{
    content::{EVENT_SEARCH, asks_about_content, has_events, names_a_secret, redaction},
    pages::{is_api_page, judge_page, read_only_page},
};
use super::{
    form::{is_form, is_in_utf8, percent_decoded},
    head::{HeadError, RequestHead},
    operation::{Class, Method, Operation, find},
    phrase::action,
    redact::Redaction,
    target::{Target, TargetError},
};
use crate::policy::{AdminScope, ConnectionKind};

/// The engine's account for local programs; behind a gateway every partner would be local.
const BYPASS_USER: &str = "bypass";
/// The largest sign-in form, in bytes.
pub const MAX_LOGIN_LEN: u64 = 4096;
/// The largest body of a read, in bytes: a search filter, or the revisions of every known channel.
pub const MAX_QUERY_LEN: u64 = 4 << 20;
/// The largest filter that is looked at before it passes, in bytes.
pub const MAX_FILTER_LEN: u64 = 64 << 10;
/// The largest body of a change, in bytes: an import of channels.
pub const MAX_CHANGE_LEN: u64 = 64 << 20;
/// The largest extension, in bytes.
pub const MAX_EXTENSION_LEN: u64 = 256 << 20;

const EXTENSION_UPLOAD: &str = "/extensions/_install";
const LOGIN: &str = "/users/_login";

/// Decides for one admin connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    read_write: bool,
    scope: AdminScope,
    prefix: Vec<String>,
}

/// What may have a body, and what must be true before it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// No body.
    None,
    /// A sign-in form of at most [`MAX_LOGIN_LEN`] bytes.
    Login,
    /// A body of at most so many bytes, once the engine has accepted the session: before the sign-in the engine would
    /// deserialize what anybody sends (CVE-2023-43208).
    SignedIn(u64),
    /// The same, for a filter of at most [`MAX_FILTER_LEN`] bytes for which [`may_search_events`] says no.
    Filter,
}

/// A call that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// What it does.
    pub class: Class,
    /// The path below `/api` with parameters in braces, or the kind of page; never what a caller wrote.
    pub template: &'static str,
    /// The body it may have.
    pub body: BodyRule,
    /// What is masked in the answer.
    pub redaction: Option<Redaction>,
    /// The answer is a start file of the Administrator, and must lead back to the gateway.
    pub start_file: bool,
    /// The path of the API it is below, as sent: sessions are per such path.
    pub api: Option<String>,
}

/// A call that does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// The reason, for people; the Administrator shows it.
    pub reason: String,
    /// As in [`Pass`], `unknown` for what the table does not have.
    pub template: &'static str,
    /// What it would have done, if known.
    pub class: Option<Class>,
}

impl Refusal {
    fn unknown(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), template: "unknown", class: None }
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        Self::unknown(error.status(), format!("refused by the gateway: {error}"))
    }
}

impl From<TargetError> for Refusal {
    fn from(error: TargetError) -> Self {
        Self::unknown(403, format!("refused by the gateway: the path has {error}"))
    }
}

impl Guard {
    /// The guard of a connection. `context_path` is the prefix the engine is configured with (`http.contextpath`), such as
    /// `/mirth`, or nothing.
    pub fn new(kind: ConnectionKind, scope: AdminScope, context_path: &str) -> Self {
        let prefix = context_path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        Self { read_write: kind == ConnectionKind::AdminReadWrite, scope, prefix }
    }

    /// Decides about a request.
    pub fn judge(&self, head: &RequestHead) -> Result<Pass, Refusal> {
        let target = Target::parse(&head.target)?;
        let Some((raw, decoded)) = target.below(&self.prefix) else { return Err(self.unknown()) };
        let pass = match raw.split_first() {
            Some((&"api", _)) => self.judge_api(head.method, &target, raw, decoded)?,
            Some((first, rest)) => judge_page(head.method, first, rest).ok_or_else(|| self.unknown())?,
            None => judge_page(head.method, "index.html", &[]).ok_or_else(|| self.unknown())?,
        };
        // The web dashboard takes a sign-in from a query as well, with any method: uncounted, and by any account.
        let signs_in = pass.body == BodyRule::Login || raw.first() == Some(&"webadmin");
        if signs_in && names_an_account(target.query) {
            let reason = "refused by the gateway: a sign-in is a form".to_owned();
            return Err(Refusal { status: 403, reason, template: pass.template, class: Some(pass.class) });
        }
        check_body(head, &pass)?;
        check_credentials(head, &pass)?;
        Ok(pass)
    }

    fn judge_api(
        &self,
        method: Method,
        target: &Target<'_>,
        raw: &[&str],
        decoded: &[String],
    ) -> Result<Pass, Refusal> {
        // No operation begins with a digit, so a version is never taken for one.
        let skip = 1 + usize::from(raw.get(1).is_some_and(|segment| is_version(segment)));
        let below = &raw[skip..];
        if is_api_page(below) {
            return read_only_page(method, "api page").ok_or_else(|| self.unknown());
        }
        let operation = find(method, below, &decoded[skip..]).ok_or_else(|| self.unknown())?;
        self.allow(operation, target.query).map_err(|reason| Refusal {
            status: 403,
            reason,
            template: operation.template,
            class: Some(operation.class),
        })?;
        let api = self.prefix.iter().map(String::as_str).chain(raw[..skip].iter().copied());
        Ok(Pass {
            class: operation.class,
            template: operation.template,
            body: self.body_rule(operation),
            redaction: self.redaction(operation),
            start_file: false,
            api: Some(api.map(|segment| format!("/{segment}")).collect()),
        })
    }

    /// Whether an operation passes; the error is the reason for people.
    fn allow(&self, operation: &Operation, query: Option<&str>) -> Result<(), String> {
        let refused = |needs: &str| Err(format!("not part of this admin connection: {} {needs}", action(operation)));
        match operation.class {
            Class::Read if !self.scope.patient_data && asks_about_content(operation, query) => {
                refused("needs the option patient data")
            }
            Class::Read if self.read_write || !names_a_secret(operation, query) => Ok(()),
            Class::Session | Class::Audit => Ok(()),
            Class::ReadPatients if self.scope.patient_data => Ok(()),
            Class::ReadPatients => refused("needs the option patient data"),
            Class::ReadSecrets if self.read_write || redaction(operation).is_some() => Ok(()),
            Class::Probe if self.read_write && self.scope.probes => Ok(()),
            Class::Probe if self.read_write => refused("needs the option probes"),
            Class::Write if self.read_write && operation.template != EXTENSION_UPLOAD => Ok(()),
            Class::Write if self.read_write && self.scope.extension_upload => Ok(()),
            Class::Write if self.read_write => refused("needs the option extension upload"),
            Class::Read | Class::ReadSecrets | Class::Probe | Class::Write => {
                Err(format!("read-only through gateway: {} is not permitted", action(operation)))
            }
        }
    }

    fn redaction(&self, operation: &Operation) -> Option<Redaction> {
        if !self.scope.patient_data && has_events(operation) {
            return Some(Redaction::Events);
        }
        // What a writer reads must come back whole: a masked password would be saved. Nobody writes events.
        if self.read_write { None } else { redaction(operation) }
    }

    fn body_rule(&self, operation: &Operation) -> BodyRule {
        match operation.class {
            Class::Read if operation.template == EVENT_SEARCH && !self.scope.patient_data => BodyRule::Filter,
            Class::Session if operation.template == LOGIN => BodyRule::Login,
            Class::Session => BodyRule::None,
            _ if !operation.method.has_body() => BodyRule::None,
            Class::Write if operation.template == EXTENSION_UPLOAD => BodyRule::SignedIn(MAX_EXTENSION_LEN),
            Class::Write | Class::Probe => BodyRule::SignedIn(MAX_CHANGE_LEN),
            Class::Read | Class::ReadSecrets | Class::ReadPatients | Class::Audit => BodyRule::SignedIn(MAX_QUERY_LEN),
        }
    }

    fn unknown(&self) -> Refusal {
        let mode = if self.read_write { "refused by the gateway" } else { "read-only through gateway" };
        Refusal::unknown(403, format!("{mode}: this path and method are not known to be safe"))
    }
}

/// Whether a query holds what a sign-in form holds.
fn names_an_account(query: Option<&str>) -> bool {
    let names = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        name.contains("username") || name.contains("password")
    };
    match query.map(percent_decoded) {
        None => false,
        Some(Some(query)) if !query.contains('%') => query.split(['&', ';']).any(names),
        Some(_) => true,
    }
}

fn is_version(segment: &str) -> bool {
    segment.len() <= 20
        && segment.starts_with(|c: char| c.is_ascii_digit())
        && segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
}

fn check_body(head: &RequestHead, pass: &Pass) -> Result<(), Refusal> {
    let refuse = |status, reason: &str| {
        let reason = format!("refused by the gateway: {reason}");
        Err(Refusal { status, reason, template: pass.template, class: Some(pass.class) })
    };
    let limit = match pass.body {
        BodyRule::None if head.has_body() => return refuse(403, "this call has no body"),
        BodyRule::None => return Ok(()),
        BodyRule::Login => MAX_LOGIN_LEN,
        BodyRule::SignedIn(limit) => limit,
        BodyRule::Filter => MAX_FILTER_LEN,
    };
    if matches!(head.framing, super::head::Framing::Length(length) if length > limit) {
        return refuse(413, "the body is too large");
    }
    // The limits count what travels, and the engine would unpack it; no client of the engine compresses.
    if head.has_body() && head.fields.iter().any(|field| field.name == "content-encoding") {
        return refuse(415, "the body is compressed");
    }
    if pass.body == BodyRule::Login {
        // Anything else than the form would be deserialized by the engine before it knows who sends it.
        if !is_form(head.single("content-type")?.unwrap_or_default()) {
            return refuse(403, "a sign-in is a form in UTF-8");
        }
    }
    if pass.body == BodyRule::Filter && !is_in_utf8(head.single("content-type")?.unwrap_or_default()) {
        return refuse(403, "a filter of events is in UTF-8");
    }
    Ok(())
}

fn check_credentials(head: &RequestHead, pass: &Pass) -> Result<(), Refusal> {
    for name in ["cookie", "content-type", "x-requested-with", "accept"] {
        head.single(name)?;
    }
    let Some(value) = head.single("authorization")? else { return Ok(()) };
    let refuse = |reason: &str| {
        let reason = format!("refused by the gateway: {reason}");
        Err(Refusal { status: 403, reason, template: pass.template, class: Some(pass.class) })
    };
    match basic_user(value) {
        Some(user) if is_bypass(&user) => refuse("the bypass account is for local programs"),
        Some(_) => Ok(()),
        None => refuse("the Authorization header is not readable"),
    }
}

/// The user of Basic credentials in their one canonical form.
fn basic_user(value: &str) -> Option<String> {
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64.decode(encoded.as_bytes()).ok())??;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, _)| user.to_owned())
}

/// Whether a name is that of the engine's account for local programs.
pub fn is_bypass(user: &str) -> bool {
    let trimmed = user.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    trimmed.eq_ignore_ascii_case(BYPASS_USER)
}

#[cfg(test)]
mod tests;
