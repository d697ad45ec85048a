//! End-to-end harness: the real programs as processes, and everything around them that misbehaves on purpose.
//!
//! | module | what it holds |
//! |---|---|
//! | [`process`] | one program as a child process: ready line, logs, SIGTERM, SIGKILL, gone on drop |
//! | [`ctl`] | `gateway-ctl`, run like a person runs it |
//! | [`platform`] | control plane, relay and gateways put together over the five steps of the mission |
//! | [`scene`] | two organizations with a connection, ready for a scenario |
//! | [`stranger`] | someone with keys of its own who knocks at relay and control plane |
//! | [`mllp`] | the engine's two MLLP ends as measured on a running one, polite and hostile |
//! | [`engine`] | the engine as a whole: channels, queues, REST API; also as a process |
//! | [`corpus`] | deterministic synthetic HL7 v2 messages |
//! | [`held_port`] | a port that stays ours while nobody listens on it |
//! | [`hop`] | a bad wire: delay, jitter, loss, rate, a largest packet; the program `gateway-hop` |
//! | [`natlab`] | sites behind every kind of router, two relays, and the matrix of all pairs |
//! | [`netns`] | two sites behind a NAT each and a public segment, in network namespaces |
//! | [`demo`] | the program behind `deploy/demo` |
//! | [`wait`] | waiting for a condition with a limit; nothing here sleeps to synchronise |
//!
//! Only public interfaces are used: ready lines, `gateway-ctl`, the HTTP API and the sockets. No test looks inside a
//! program, so a program can be rewritten under them.

use std::{fs::OpenOptions, io::Write};

pub mod corpus;
pub mod ctl;
pub mod demo;
pub mod engine;
pub mod held_port;
pub mod hop;
pub mod mllp;
pub mod natlab;
pub mod netns;
pub mod platform;
pub mod process;
pub mod scene;
pub mod stranger;
pub mod wait;

/// Notes what a scenario measured: to standard output, and to the file named by `GATEWAY_TEST_MEASURES`, whose lines
/// `tests/run` shows at the end.
#[macro_export]
macro_rules! measured {
    ($($text:tt)*) => { $crate::note_measure(&format!($($text)*)) };
}

/// See [`measured!`].
pub fn note_measure(text: &str) {
    writeln!(std::io::stdout(), "measured: {text}").ok();
    let Some(path) = std::env::var_os("GATEWAY_TEST_MEASURES") else { return };
    // One write call for the line, so that lines of parallel tests do not mix.
    let line = format!("  {text}\n");
    OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes())).ok();
}
