//! The control plane over real HTTP and WebSockets on loopback.
#![expect(clippy::unwrap_used, reason = "tests")]

mod audit;
mod enrollment;
mod five_steps;
mod harness;
mod hygiene;
mod process;
mod roles;
mod states;
mod visibility;
mod watch;
