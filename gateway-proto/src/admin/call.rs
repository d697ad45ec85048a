//! The record of one admin call in the gateway's audit log ([`crate::audit::record`]): no body, no query, no value of a path.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{opening::KnownBy, operation::Class};
use crate::id::ConnectionId;

/// One call of a partner's administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminCall {
    /// The admin connection.
    pub connection: ConnectionId,
    /// The stream that it came on, as `stream.open` and `stream.end` have it: 16 hex digits, the same at both gateways; empty in
    /// records of earlier builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// The organization of the user's gateway, as our policy names it.
    pub organization: String,
    /// The server of the user's gateway, as our policy names it.
    pub server: String,
    /// The acting user, as that gateway vouches.
    pub user: String,
    /// How that gateway knows.
    pub known_by: KnownBy,
    /// The person behind the acting user, as the platform says; none: nobody named himself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The account at the engine, once somebody has signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The method.
    pub method: Cow<'static, str>,
    /// The path with parameters in braces.
    pub path: Cow<'static, str>,
    /// What it does; none: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The status of the answer; 0: the caller or the permission went before there was one.
    pub status: u16,
    /// The answer began, and ended before it was whole: the caller, the permission or the engine went.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Why the gateway refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}
