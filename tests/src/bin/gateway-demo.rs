//! The program behind `deploy/demo`; see [`gateway_tests::demo`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let exit = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--exit" => true,
        _ => return gateway_tests::demo::usage(),
    };
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(gateway_tests::demo::run(exit)),
        Err(error) => gateway_tests::demo::failed("start", &error.into()),
    }
}
