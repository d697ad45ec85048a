//! No byte of a message where it does not belong.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use gateway_tests::{
    corpus::{Corpus, MARKER},
    mllp::{Connection, Ending, Manners, Sender},
    platform::{Placement, PlatformOptions},
    scene::{Scene, play_with},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const LIMIT: Duration = Duration::from_secs(20);

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
            scene.sender().with_response_timeout(Duration::from_secs(1)).send(&message.bytes).await;
        }
        for process in scene.processes() {
            ensure!(!process.log().is_empty(), "{} logs nothing: the test would prove nothing", process.name());
        }
        // Where a type and a control id stand, there may stand anything else.
        let hostile = format!("MSH|^~\\&|{MARKER}|A|B|C|1||{MARKER}^A01|{MARKER}|P|2.5\rPID|1||{MARKER}\r");
        scene.engine.behave(Manners::Polite);
        for _ in 0..2 {
            scene.sender().send(hostile.as_bytes()).await;
        }
        scene.engine.behave(Manners::Slow(Duration::from_millis(400)));
        for _ in 0..2 {
            scene.sender().with_response_timeout(Duration::from_millis(200)).send(hostile.as_bytes()).await;
        }
        let mut raw = Connection::open(scene.link.sender).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let junk = format!("{MARKER}\x0b{MARKER}\x0b\x1c\r\x0b\x1c\r{MARKER}");
        raw.write(junk.as_bytes()).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        raw.reset();
        content_in_every_place(scene).await?;
        for site in [&scene.north, &scene.south] {
            let status = serde_json::to_string(&site.status(&scene.platform.ctl).await?)?;
            let shown = scene.platform.ctl.run(&["status", "--socket", site.socket()]).await?;
            let metrics = scene.metrics_of(site).await?;
            for (observed, counted) in [("\"mllp\"", "messages"), ("\"http\"", "requests"), ("\"dicom\"", "units")] {
                let is_seen = status.contains(observed) && metrics.contains(&format!("gatewayd_{counted}_total{{"));
                ensure!(is_seen, "no {observed} was observed: {status}");
            }
            for (place, text) in [("status", status), ("status for people", format!("{shown:?}")), ("metrics", metrics)]
            {
                clean(place, text.as_bytes())?;
            }
        }
        clean(
            "control plane",
            scene.platform.connection("north", &scene.link.connection).await?.to_string().as_bytes(),
        )?;
        for path in files(scene.platform.dir())? {
            // The programs go on: a file that was being written may have got its name since.
            if let Some(bytes) = there(std::fs::read(&path))? {
                clean(&path.display().to_string(), &bytes)?;
            }
        }
        Ok(())
    })
    .await
}

/// Connections over HTTP and DICOM, with something secret in every place where content can stand, and some that are neither.
async fn content_in_every_place(scene: &Scene) -> anyhow::Result<()> {
    let request = format!(
        "POST /{MARKER}/Patient?name={MARKER} HTTP/1.1\r\nHost: {MARKER}\r\nCookie: {MARKER}\r\n{MARKER}: 1\r\n\
         Content-Length: {}\r\n\r\n{MARKER}",
        MARKER.len()
    );
    let answer = format!(
        "HTTP/1.1 200 {MARKER}\r\nSet-Cookie: {MARKER}\r\nTransfer-Encoding: chunked\r\n\r\n{:x};{MARKER}\r\n{MARKER}\r\n\
         0\r\n{MARKER}: {MARKER}\r\n\r\n",
        MARKER.len()
    );
    let bent = format!("{MARKER} /{MARKER} HTTP/1.1\r\n{MARKER}\r\n\r\n{MARKER}");
    // The two titles are what is kept of an association, for the owner's eyes. Behind them, and in its items, may stand anything.
    let items = format!("{MARKER:\0<32}\x10\0\0\x15{MARKER}");
    let association = [&b"\0\x01\0\0OIE             MODALITY        "[..], items.as_bytes()].concat();
    let data = [&b"\0\0\0\x15\x01\x03"[..], MARKER.as_bytes()].concat();
    let rejection = [&b"\0\x01\x01\x07"[..], MARKER.as_bytes()].concat();
    let asked = [unit(1, &association), unit(4, &data), unit(4, MARKER.as_bytes())].concat();
    let answered = [unit(2, MARKER.as_bytes()), unit(4, &data), unit(3, &rejection)].concat();
    let said = [
        ("http", request.as_bytes(), answer.as_bytes()),
        ("http", bent.as_bytes(), MARKER.as_bytes()),
        ("dicom", asked.as_slice(), answered.as_slice()),
        ("dicom", MARKER.as_bytes(), MARKER.as_bytes()),
    ];
    for (behavior, asked, answered) in said {
        let engine = TcpListener::bind("127.0.0.1:0").await?;
        let (agreement, address) = (&scene.link.agreement, engine.local_addr()?);
        let link = scene.platform.link_as(agreement, &scene.south, &scene.north, address, behavior).await?;
        let talk = async {
            let mut client = TcpStream::connect(link.sender).await?;
            client.write_all(asked).await?;
            let (mut server, _) = engine.accept().await?;
            server.read_exact(&mut vec![0; asked.len()]).await?;
            server.write_all(answered).await?;
            let mut arrived = vec![0; answered.len()];
            client.read_exact(&mut arrived).await?;
            ensure!(arrived == answered, "{behavior}: what arrives is what was sent");
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, talk).await.with_context(|| format!("{behavior}: nothing passes"))??;
    }
    Ok(())
}

/// A unit of DICOM's upper layer.
fn unit(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    [&[kind, 0][..], &length, body].concat()
}

fn clean(place: &str, bytes: &[u8]) -> anyhow::Result<()> {
    for word in [MARKER.as_bytes(), b"MSH|^~", b"PID|1|", b"SOMEBODY-ELSE"] {
        let found = bytes.windows(word.len()).any(|window| window == word);
        ensure!(!found, "{place} holds {:?}", String::from_utf8_lossy(word));
    }
    Ok(())
}

/// None for what is gone.
fn there<T>(found: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn files(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in there(std::fs::read_dir(dir))?.into_iter().flatten() {
        let entry = entry?;
        let Some(kind) = there(entry.file_type())? else { continue };
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
