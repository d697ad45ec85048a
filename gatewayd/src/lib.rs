//! gatewayd: the daemon beside the integration engine.
//!
//! It pulls signed policy from the control plane ([`authority`]), keeps a tunnel to the gateway of every partner
//! ([`mesh`], [`keeper`], [`peer`]), opens local ports for the engine's senders ([`sender`]), dials the engine for
//! streams of partners ([`listener`]), asks the engine for its channels ([`engine`]) and asks the policy for every stream ([`gate`]).
//!
//! Administrators of partners reach the engine's API through [`admin`]. Every stream, refusal and admin call is in [`audit`].
//!
//! One UDP socket ([`socket`]) carries everything between gateways: QUIC on direct and relayed paths, probes, STUN.

pub mod admin;
pub mod app;
pub mod audit;
pub mod authority;
pub mod candidates;
pub mod cli;
pub mod config;
pub mod congestion;
pub mod control_client;
pub mod credentials;
pub mod engine;
pub mod engine_socket;
pub mod gate;
pub mod generations;
pub mod guesses;
mod ipv6_state;
pub mod keeper;
pub mod listener;
pub mod local_api;
pub mod mesh;
pub mod metrics;
pub mod nat64;
pub mod net_watch;
pub mod netcheck;
pub mod observer;
pub mod path_actor;
pub mod peer;
pub mod places;
pub mod port_mapping;
pub mod ports;
pub mod proof;
pub mod registry;
pub mod relay_inbound;
pub mod relay_link;
pub mod relay_probe;
pub mod relay_udp;
pub mod resolver;
pub mod routes;
pub mod schedules;
pub mod send_half;
pub mod sender;
pub mod side_socket;
pub mod socket;
pub mod splice;
pub mod status;
pub mod store;
mod stun_socket;
#[cfg(test)]
mod testing;
pub mod timer;
pub mod traffic;
mod trains;
pub mod tunnel;
