//! The control plane over real HTTP and WebSockets on loopback, on SQLite, or on PostgreSQL: see [`database`].
#![expect(clippy::unwrap_used, reason = "tests")]

mod admin;
mod audit;
mod backup;
mod credentials;
mod crowd;
mod database;
mod delivery;
mod devices;
mod engines;
mod enrollment;
mod five_steps;
mod fuzz;
mod gateway_audits;
mod harness;
mod hygiene;
mod keys;
mod kin;
mod links;
mod list_costs;
mod lists;
mod model;
mod oidc;
mod permissions;
mod process;
mod random;
mod replicas;
mod requests;
mod restarts;
mod roles;
mod states;
mod tenants;
mod totp;
mod upgrade;
mod visibility;
mod watch;
