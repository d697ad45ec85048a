//! The relay on real sockets: admission, forwarding, limits, drain, STUN.
#![expect(clippy::unwrap_used, reason = "tests")]

mod admission;
mod certificate;
mod forwarding;
mod harness;
mod life;
mod stun;
mod udp;
