//! A stand-in engine as a process: `gateway-test-engine DEFINITION KEPT`. It starts from the file it keeps; where there is
//! none, from the definition. See [`gateway_tests::engine`].

use std::{io::Write, path::Path};

use anyhow::Context;
use gateway_tests::engine::StandIn;
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [definition, kept] = arguments.as_slice() else { anyhow::bail!("usage: gateway-test-engine DEFINITION KEPT") };
    let definition = serde_json::from_slice(&std::fs::read(definition)?).context("not an engine")?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut engine = StandIn::open(Path::new(kept), definition).await?;
        let ready = json!({
            "event": "ready", "https": engine.https, "http": engine.http, "back_door": engine.back_door,
        });
        writeln!(std::io::stdout(), "{ready}")?;
        engine.run().await;
        Ok(())
    })
}
