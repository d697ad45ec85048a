//! The `gateway-ctl` program: hands its arguments to the library and leaves with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway_ctl::run(std::env::args_os())
}
