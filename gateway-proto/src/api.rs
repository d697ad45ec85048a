//! Types of the HTTP API of the control plane and of the daemon's local API: one vocabulary for the programs that
//! answer and the programs that ask.
//!
//! | module | who speaks it |
//! |---|---|
//! | [`platform`] | people and automation with the control plane |
//! | [`engine`] | the same, about the engines beside servers |
//! | [`invitation`] | the link that an invited person gives to gateway-ctl |
//! | [`gateway`], [`refusal`] | gatewayd with the control plane |
//! | [`local`] | gateway-ctl with gatewayd, over its Unix socket |
//!
//! What a value has to look like, and in which form it is kept, is in [`values`].

pub mod engine;
pub mod gateway;
pub mod invitation;
pub mod local;
pub mod platform;
pub mod refusal;
pub mod values;

use serde::{Deserialize, Serialize};

/// An error answer (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Stable code, for programs; `docs/errors.md` has them all, with cause and remedy.
    pub code: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do, for people.
    pub detail: String,
    /// The request, for the log of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Ask again with `?cursor=` this for the next page; none: this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
