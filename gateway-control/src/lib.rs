//! gateway-control: the control plane. Organizations meet here, agree, and grant each other channels; what follows from
//! that is compiled into one signed policy per gateway, which the gateways watch.
//!
//! `http → service → storage`, one way only:
//!
//! | module | what it holds |
//! |---|---|
//! | [`http`] | the API: a file per group of endpoints, the policy watch, OpenAPI, limits, problem answers |
//! | [`service`] | the rules and transactions, ignorant of HTTP and SQL; the policy compiler |
//! | [`storage`] | rows and transactions behind traits; the only SQL |
//! | [`watchers`] | the gateways that watch now |
//! | [`reconcile`] | what time alone demands |
//! | [`replica`] | being one of several processes on one database |
//! | [`app`] | start, order of the end |
//! | [`bootstrap`], [`config`], [`cli`] | data directory, configuration, command line |
//! | [`backup`] | backup and restore |
//! | [`oidc`] | providers of OpenID Connect: what is asked of them, and which of their answers are believed |
//! | [`vault`] | seals what must not be readable in the database |
//! | [`turns`] | how much of one organization is at work at once |
//! | [`limits`], [`clock`], [`metrics`] | rates and nonces, time, instruments |

pub mod app;
pub mod backup;
pub mod bootstrap;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod oidc;
pub mod reconcile;
pub mod replica;
mod seldom;
pub mod service;
pub mod storage;
#[cfg(test)]
mod test_world;
pub mod turns;
pub mod vault;
pub mod watchers;
