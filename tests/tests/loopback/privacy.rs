//! No byte of a message where it does not belong.

use std::path::Path;

use anyhow::ensure;
use gateway_tests::{
    corpus::{Corpus, MARKER},
    mllp::{Ending, Manners, Sender},
    platform::{Placement, PlatformOptions},
    scene::play_with,
};

#[tokio::test]
async fn no_payload_byte_is_in_any_log_file_or_state_file_even_at_the_finest_log_level() -> anyhow::Result<()> {
    let trace = "debug,gatewayd=trace,gateway_proto=trace,gateway_net=trace,gateway_relay=trace,gateway_control=trace";
    let options = PlatformOptions { log_filter: trace.into(), ..PlatformOptions::default() };
    play_with(options, [Placement::loopback(), Placement::loopback()], async |scene| {
        let mut corpus = Corpus::new("PRIV", 9);
        let mut sender = Sender::new(scene.link.sender, true);
        for message in corpus.daily(2) {
            scene.deliver(&mut sender, &message).await?;
        }
        let rude = [
            Manners::EndAfterReading(Ending::Reset),
            Manners::HalfAnswer(Ending::Fin),
            Manners::Refuse,
            Manners::Garbage,
        ];
        for manners in rude {
            scene.engine.behave(manners);
            let message = scene.message();
            scene.sender().with_response_timeout(std::time::Duration::from_secs(1)).send(&message.bytes).await;
        }
        for process in scene.processes() {
            ensure!(!process.log().is_empty(), "{} logs nothing: the test would prove nothing", process.name());
        }
        for path in files(scene.platform.dir())? {
            let bytes = std::fs::read(&path)?;
            for word in [MARKER.as_bytes(), b"MSH|^~", b"PID|1|", b"SOMEBODY-ELSE"] {
                let found = bytes.windows(word.len()).any(|window| window == word);
                ensure!(!found, "{} holds {:?}", path.display(), String::from_utf8_lossy(word));
            }
        }
        Ok(())
    })
    .await
}

fn files(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
