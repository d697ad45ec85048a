//! Admin connections: a partner's administrator at the engine's API, through the guard.
//!
//! At the user's gateway ([`user`]) a local HTTPS port carries each connection's bytes over one admin stream; an opening frame
//! says who acts ([`acting`]). At the owner's gateway ([`owner`]) the HTTP ends: each request is judged by
//! [`gateway_proto::admin::guard`], written anew to the engine ([`engine`]), its answer masked where needed ([`exchange`]), and
//! recorded in the audit log ([`crate::audit`]).

pub mod acting;
pub mod engine;
mod exchange;
pub mod owner;
mod sessions;
pub mod user;
mod wire;
