//! The relay: where gateways meet, and the way of their data until they have a direct path.
//!
//! It forwards sealed bytes between gateways that proved themselves and answers STUN. It keeps nothing, knows no payload, no
//! candidate address and no secret of anybody, and needs no connection to the control plane: a token signed by the control plane
//! plus proof of the gateway's key is verified offline.
//!
//! One task per attached gateway (`client`) owns its socket; the registry (`clients`) holds the front of each. Beside the links, datagrams may
//! come and go over UDP (`udp`). All
//! queues, tables and rates are bounded by the configuration, and what exceeds a bound is dropped and counted.
//!
//! Life: [`Relay::start`] binds everything and tells where ([`Ready`]), [`Relay::run`] serves until asked to end, then
//! tells the gateways to move, waits for them and closes.

mod accept;
mod acme;
mod admission;
mod app;
mod budget;
mod certificate;
pub mod cli;
mod client;
mod clients;
pub mod config;
mod forward;
mod http;
mod metrics;
mod outbound;
mod passing;
mod policy_keys;
mod prompt;
mod ready;
mod seats;
mod stun;
mod udp;

pub use app::{Relay, RunError, StartError};
pub use ready::Ready;
