//! The pure heart of the gateway: identities, wire formats, signed policy and state machines.
//!
//! Nothing here touches a socket, a clock or a global random number generator: time and randomness come in as
//! arguments, so every rule is tested with virtual time. The wire formats are described in `docs/protocol.md`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`admin`] | admin connections: the acting user, the guard of the engine's admin API |
//! | [`id`] | typed ids (`con_…`) |
//! | [`identity`] | gateway keys, Noise keys and their binding |
//! | [`signed`] | signed objects and tokens, one signature context each |
//! | [`jws`] | compact JSON web signatures with Ed25519, and nothing else |
//! | [`device_token`] | tokens of devices, and the proof of a bound one |
//! | [`succession`] | how trust passes from one policy key to the next |
//! | [`policy`] | the signed policy one gateway runs from, and its rules of acceptance |
//! | [`peering`] | the state machines of the platform as one transition table |
//! | [`relay`] | frames between a gateway and a relay |
//! | [`stun`] | the two STUN messages in use (RFC 8489) |
//! | [`signal`] | Noise-sealed offers and answers |
//! | [`path`] | the path agent: candidates, probes, selection |
//! | [`congestion`] | what losses and round trips say about a path |
//! | [`host_cache`] | what the name servers said of hosts that are asked for again and again |
//! | [`limits`] | how fast payload may pass on a connection, and how long a stream may be silent |
//! | [`names`] | which characters names may hold, and which two are the same |
//! | [`nat64`] | how IPv4 is reached from a machine that has IPv6 only |
//! | [`netcheck`] | what the network around a gateway lets through, in words |
//! | [`engine`] | the engine beside a gateway: its channels as its own API describes them |
//! | [`mllp`] | reads MLLP frames, so that an end with an unacknowledged message is never a clean one |
//! | [`observe`] | what is known of an exchange without keeping a byte of it |
//! | [`places`] | the places of an engine's listener, and who waits for one |
//! | [`balance`] | compares what the two ends of a connection counted |
//! | [`pulse`] | whether the other end of a tunnel is there, and when to ask it |
//! | [`stream`] | stream header, answers, control frames and application codes of a tunnel |
//! | [`api`] | types of the HTTP API and of the daemon's local API |
//! | [`audit`] | the hash chains of audit logs, and what a gateway's log holds |
//! | [`backoff`] | jittered retry delays |
//! | [`turns`] | which of a tunnel's streams sends next |
//! | [`twice`] | which of two processes with one key is the gateway |

pub mod admin;
pub mod api;
pub mod audit;
pub mod backoff;
pub mod balance;
pub mod congestion;
pub mod device_token;
pub mod engine;
pub mod host_cache;
pub mod id;
pub mod identity;
pub mod jws;
pub mod limits;
pub mod mllp;
pub mod names;
pub mod nat64;
pub mod netcheck;
pub mod observe;
pub mod path;
pub mod peering;
pub mod places;
pub mod policy;
pub mod pulse;
pub mod relay;
pub mod signal;
pub mod signed;
pub mod stream;
pub mod stun;
pub mod succession;
pub mod turns;
pub mod twice;
