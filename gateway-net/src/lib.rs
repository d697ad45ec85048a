//! The IO edge shared by the four programs: TLS with pins, the HTTP and WebSocket clients, secret files, files that people
//! write, logging, shutdown, the wall clock and random bytes.
//!
//! Why it is a crate of its own: these are the places where a difference between two programs would be a security hole
//! (a pin checked in one and not in the other, a key file readable by all, a request without a limit). There is exactly one of each,
//! and everything else stays either pure (`gateway-proto`) or in the program that needs it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tls`] | the crypto provider, server identities, public-key pins, TLS 1.3 configurations |
//! | [`http`] | HTTP clients: to a control plane, and over a Unix socket |
//! | [`https`] | one HTTPS request, over the same ways as relay links |
//! | [`ws`] | the WebSocket client for relay links |
//! | [`inspect`] | a look at a TLS server, for diagnosis |
//! | [`proxy`] | the HTTP proxy on the way out of both |
//! | [`mss`] | the largest TCP segment, for paths that swallow large packets |
//! | [`nat64`] | the NAT64 of the network this machine is in |
//! | [`secret_file`] | files written atomically and readable by their owner only |
//! | [`log`] | log set-up |
//! | [`document`] | files that people write, read with all their mistakes |
//! | [`shutdown`] | the first signal asks, the second insists |
//! | [`time`] | the wall clock, read nowhere else |
//! | [`udp`] | the UDP socket under tunnels and relays |
//! | [`entropy`] | random bytes |
//! | [`causes`] | an error with its causes in one line |

pub mod causes;
mod dial;
pub mod document;
pub mod entropy;
pub mod http;
pub mod https;
pub mod inspect;
pub mod log;
pub mod mss;
pub mod nat64;
pub mod proxy;
pub mod secret_file;
pub mod shutdown;
pub mod time;
pub mod tls;
pub mod udp;
pub mod ws;

pub use entropy::{random, random_u32};
