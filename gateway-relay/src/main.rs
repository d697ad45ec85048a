//! The relay's program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway_relay::cli::main()
}
