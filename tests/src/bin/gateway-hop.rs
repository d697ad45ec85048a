//! `gateway-hop LEFT RIGHT [SETTING…]`: a bad wire between two interfaces of this network namespace; see
//! [`gateway_tests::hop`]. Settings, also line by line on standard input: `delay=20ms jitter=5ms loss=1.5
//! rate=10000000 largest=1280 queue=1000`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use gateway_tests::hop::{Shape, run};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even this cannot be written.
            let _ = writeln!(io::stderr(), "gateway-hop: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn start() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (left, right) = args.next().zip(args.next()).context("usage: gateway-hop LEFT RIGHT [SETTING…]")?;
    let settings: Vec<_> = args.collect();
    let shape: Shape = settings.join(" ").parse()?;
    run(&left, &right, shape, 1, || {
        // A reader that went away is not our failure.
        let _ = writeln!(io::stdout(), "{{\"event\":\"ready\"}}").and_then(|()| io::stdout().flush());
    })
}
