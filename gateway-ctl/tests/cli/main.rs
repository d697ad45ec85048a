//! The program as a shell sees it: run in a fresh directory against stand-ins for the control plane (HTTPS) and gatewayd (Unix
//! socket). What counts: exit codes, what reaches the servers, the form of the answers, and that no secret is ever shown.

#![expect(clippy::unwrap_used, reason = "tests")]

mod apply;
mod channels;
mod control;
mod daemon;
mod platform;
mod session;
mod stand_in;
mod usage;
mod world;
