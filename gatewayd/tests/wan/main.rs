//! Tunnels over wide-area paths, simulated on virtual time: what a change of path costs, and how congestion control shares
//! a path with messages and with others. Prints the figures of docs/adr and docs/paths.md.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests that print their figures")]

mod congestion;
mod narrow;
mod pair;
mod switch;
mod ways;
