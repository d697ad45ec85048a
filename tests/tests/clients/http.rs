//! curl with nginx: FHIR resources stored and read back, with every way of sending a body.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, ensure};
use gateway_proto::api::local::{ExchangeStatus, HttpStatus};
use gateway_tests::{corpus::MARKER, platform::Link, scene::play, wait};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::programs::{LIMIT, Server, command, finish, serve};

#[tokio::test]
async fn curl_stores_and_reads_fhir_resources_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let dir = tempfile::tempdir()?;
        let server = nginx(dir.path()).await?;
        let agreement = scene.link.agreement.clone();
        let link = scene.platform.link_as(&agreement, &scene.south, &scene.north, server.address, "http").await?;
        let url = |name: &str| format!("http://127.0.0.1:{}/fhir/{name}", link.sender.port());
        let (small, large) = (dir.path().join("small.json"), dir.path().join("large.json"));
        fs::write(&small, bundle(3))?;
        fs::write(&large, bundle(10_000))?;
        ensure!(fs::metadata(&large)?.len() > 6_500_000, "{}", fs::metadata(&large)?.len());

        // One after the other on one connection; the large one waits for 100 Continue.
        finish(curl().arg("-T").arg(&small).arg(url("Bundle/small"))).await?;
        finish(curl().args(["-H", "Expect: 100-continue", "-T"]).arg(&large).arg(url("Bundle/large"))).await?;
        // In chunks, from a pipe that does not know its length.
        let mut piped = curl().args(["-T", "-", &url("Bundle/chunked")]).stdin(Stdio::piped()).spawn()?;
        let mut stdin = piped.stdin.take().context("stdin")?;
        stdin.write_all(&fs::read(&large)?).await?;
        drop(stdin);
        ensure!(tokio::time::timeout(LIMIT, piped.wait()).await??.success(), "curl with chunks");
        for (name, file) in [("small", &small), ("large", &large), ("chunked", &large)] {
            let expected = fs::read(file)?;
            ensure!(fs::read(dir.path().join("www/fhir/Bundle").join(name))? == expected, "{name} was stored changed");
            let back = dir.path().join("back");
            finish(curl().arg("-o").arg(&back).arg(url(&format!("Bundle/{name}")))).await?;
            ensure!(fs::read(&back)? == expected, "{name} was read back changed");
        }
        // Many on one connection, one that is not there, and one without a body.
        let many: Vec<_> = (0..20).map(|_| url("Bundle/small")).collect();
        let answers = finish(curl().args(&many)).await?;
        ensure!(answers.len() == 20 * fs::read(&small)?.len(), "twenty answers");
        finish(curl().args(["-I", &url("Bundle/large")])).await?;
        let mut missing = command("curl");
        missing.args(["-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"]).arg(url("none"));
        ensure!(finish(&mut missing).await? == "404");

        // nginx writes the line after the answer.
        let log = wait::until(LIMIT, "28 requests are in nginx's log", async || {
            let log = fs::read_to_string(dir.path().join("access.log"))?;
            Ok(Some(log).filter(|log| log.ends_with('\n') && log.lines().count() >= 28))
        })
        .await?;
        let counts = |word: &str| log.lines().filter(|line| line.contains(word)).count() as u64;
        ensure!((counts("\"PUT "), counts("\"GET "), counts("\"HEAD ")) == (3, 24, 1), "{log}");
        let seen = [&scene.north, &scene.south];
        for site in seen {
            let http = http_at(site, &link, |http| http.reads == 25).await?;
            ensure!(http.writes == 3 && http.unanswered == 0 && http.unreadable == 0, "{}: {http:?}", site.name);
            ensure!(http.statuses[1] == 27 && http.statuses[3] == 1, "{}: {http:?}", site.name);
        }
        Ok(())
    })
    .await
}

fn curl() -> Command {
    let mut curl = command("curl");
    curl.args(["-sS", "--fail", "--max-time", "50", "--noproxy", "*"]);
    curl
}

async fn http_at(
    site: &gateway_tests::platform::Site,
    link: &Link,
    is: impl Fn(&HttpStatus) -> bool,
) -> anyhow::Result<HttpStatus> {
    let mut last = None;
    let found = wait::until(LIMIT, format!("{} counts the requests", site.name), async || {
        last = site.seen(&link.connection).await?.and_then(|entry| entry.exchange);
        let Some(ExchangeStatus::Http(http)) = &last else { return Ok(None) };
        Ok(Some(http.clone()).filter(|http| is(http)))
    });
    found.await.with_context(|| format!("last: {last:?}"))
}

/// A transaction bundle of so many observations.
fn bundle(observations: usize) -> Vec<u8> {
    let entry = |n: usize| {
        serde_json::json!({
            "fullUrl": format!("urn:uuid:00000000-0000-4000-8000-{n:012}"),
            "resource": {
                "resourceType": "Observation", "status": "final",
                "code": { "coding": [{ "system": "http://loinc.org", "code": "718-7", "display": "Hemoglobin" }] },
                "subject": { "display": format!("Próbka Zoë {MARKER}") },
                "effectiveDateTime": "2025-03-01T08:00:00Z",
                "valueQuantity": { "value": 120 + n % 50, "unit": "g/L", "system": "http://unitsofmeasure.org", "code": "g/L" },
                "note": [{ "text": "synthetic, for a test of a tunnel; no person is meant and nothing was measured on anybody anywhere; \
                    the text is only here to make the observation as long as observations are in real bundles, some seven hundred bytes" }]
            },
            "request": { "method": "POST", "url": "Observation" }
        })
    };
    let entries: Vec<_> = (0..observations).map(entry).collect();
    serde_json::json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries }).to_string().into_bytes()
}

/// nginx with WebDAV: what is put is a file, and what is got is that file.
async fn nginx(dir: &Path) -> anyhow::Result<Server> {
    fs::create_dir_all(dir.join("www/fhir/Bundle"))?;
    let at = |name: &str| dir.join(name).display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
        .concat();
    // As root it would give up its rights, and with them this directory.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    serve(&dir.join("nginx.log"), |port| {
        let text = format!(
            "daemon off;\nworker_processes 1;\n{user}\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\n{temporary}\
             access_log {};\nclient_max_body_size 100m;\nserver {{\nlisten 127.0.0.1:{port};\nroot {};\n\
             location /fhir/ {{ dav_methods PUT DELETE; create_full_put_path on; }}\n}}\n}}\n",
            at("pid"),
            at("access.log"),
            at("www"),
        );
        fs::write(dir.join("nginx.conf"), text)?;
        let mut nginx = command("/usr/sbin/nginx");
        nginx.args(["-c", &at("nginx.conf"), "-p", &at("")]);
        Ok(nginx)
    })
    .await
}
