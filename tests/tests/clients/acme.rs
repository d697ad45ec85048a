//! Certificates by ACME, from pebble: ordered, renewed under an open connection, refused; over both kinds of challenges.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, ensure};
use gateway_net::{
    http::{client_builder, foreign_client},
    tls::{ServerIdentity, ServerTrust, TlsPin, engine_client_config, spki_pin},
};
use gateway_proto::identity::GatewayKey;
use gateway_tests::{
    held_port::HeldPort,
    process::{Launch, Process, Program},
    wait,
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Child,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::programs::{LIMIT, Server, command, serve};

/// How long pebble's certificates are valid: renewed after two thirds of it.
const LIFE_SECS: u64 = 24;

/// A relay that orders certificates.
struct Relay {
    process: Process,
    address: SocketAddr,
    pin: TlsPin,
}

/// Pebble, and the DNS server it asks: every name leads to this machine.
struct Authority {
    _pebble: Child,
    _dns: Server,
    _management: [HeldPort; 2],
}

async fn relay(dir: &Path, name: &str, directory: SocketAddr, more: &str) -> anyhow::Result<Relay> {
    let home = dir.join(name);
    fs::create_dir_all(&home)?;
    let config = home.join("relay.toml");
    let key = GatewayKey::from_seed(&[1; 32]).public();
    fs::write(
        &config,
        format!(
            "listen = \"127.0.0.1:0\"\nstun_listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nmetrics_listen = \"127.0.0.1:0\"\n\
             data_dir = {:?}\ncontrol_keys = [\"{key}\"]\n[acme]\ndomains = [\"{name}.example.test\"]\nterms_agreed = true\n\
             contact = [\"mailto:ops@example.test\"]\ndirectory = \"https://localhost:{}/dir\"\nroot = {:?}\n{more}\
             [limits]\naccept_per_second = 10000\naccept_per_second_per_source = 10000\n\
             [timing]\nadmission = \"60s\"\n",
            home.join("state"),
            directory.port(),
            dir.join("authority/tls-certificate.pem"),
        ),
    )?;
    let args = ["--config", config.to_str().context("a path")?].map(str::to_owned).to_vec();
    let launch = Launch {
        program: Program::Relay,
        name: name.to_owned(),
        args,
        log_dir: dir.join("logs"),
        namespace: None,
        log_filter: "info".to_owned(),
        wrapper: Vec::new(),
    };
    let process = Process::start(launch, LIMIT).await?;
    let (address, pin) = (process.ready("listen")?.parse()?, process.ready("tls_pin")?.parse()?);
    Ok(Relay { process, address, pin })
}

async fn authority(dir: &Path, api: SocketAddr, tls_port: u16, http_port: u16) -> anyhow::Result<Authority> {
    let management = [HeldPort::loopback(0)?, HeldPort::loopback(0)?];
    let dns = serve(&dir.join("dns.log"), |port| {
        let mut dns = command("pebble-challtestsrv");
        dns.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-dns01"]);
        dns.arg(format!("127.0.0.1:{port}")).arg("-management").arg(management[0].address().to_string());
        Ok(dns)
    })
    .await?;
    let files = dir.join("authority");
    let config = dir.join("pebble.json");
    let text = serde_json::json!({ "pebble": {
        "listenAddress": api.to_string(),
        "managementListenAddress": management[1].address().to_string(),
        "certificate": files.join("tls-certificate.pem"),
        "privateKey": files.join("tls-key.pem"),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": false,
        "certificateValidityPeriod": LIFE_SECS,
    }});
    fs::write(&config, text.to_string())?;
    let output = fs::File::create(dir.join("pebble.log"))?;
    let pebble = command("pebble")
        .args(["-dnsserver", &dns.address.to_string(), "-config"])
        .arg(config)
        .env("PEBBLE_VA_NOSLEEP", "1")
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    Ok(Authority { _pebble: pebble, _dns: dns, _management: management })
}

/// A connection and what the relay showed on it, its own certificate first.
async fn shown(relay: &Relay) -> anyhow::Result<(TlsStream<TcpStream>, Vec<CertificateDer<'static>>)> {
    let connector = TlsConnector::from(Arc::new(engine_client_config(None)));
    let socket = TcpStream::connect(relay.address).await?;
    let stream = connector.connect(ServerName::try_from("relay.example.test")?, socket).await?;
    let chain = stream.get_ref().1.peer_certificates().context("a certificate")?;
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    Ok((stream, chain))
}

async fn issued(relay: &Relay, before: &[CertificateDer<'static>]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    wait::until(LIMIT, "another certificate is shown", async || {
        let (_, chain) = shown(relay).await?;
        Ok((chain.len() > 1 && chain[0] != before[0]).then_some(chain))
    })
    .await
    .with_context(|| relay.process.log_tail(20))
}

async fn failed_orders(relay: &Relay) -> anyhow::Result<bool> {
    let client = client_builder(ServerTrust::WebPki, None).https_only(false).build()?;
    let metrics =
        client.get(format!("http://{}/metrics", relay.process.ready("metrics")?)).send().await?.text().await?;
    Ok(metrics.lines().any(|line| line.starts_with("gateway_relay_certificate_orders_total{outcome=\"Failed\"}")))
}

#[tokio::test]
async fn certificates_are_ordered_once_the_authority_is_there_and_renewed_under_open_connections() -> anyhow::Result<()>
{
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let files = dir.join("authority");
    fs::create_dir(&files)?;
    ServerIdentity::load_or_generate(&files, &["localhost".to_owned()])?;
    let held = [HeldPort::loopback(0)?, HeldPort::loopback(0)?];
    let [api, http] = [held[0].address(), held[1].address()];

    // The authority is not there yet: the relay says so, and shows its own key to those who pin it.
    let first = relay(dir, "relay", api, "").await?;
    wait::until_true(LIMIT, "the relay says why it has no certificate", async || {
        Ok(first.process.log().contains("no certificate was issued") && failed_orders(&first).await?)
    })
    .await?;
    let (mut open, own) = shown(&first).await?;
    ensure!(own.len() == 1 && spki_pin(&own[0])? == first.pin);
    ensure!(foreign_client(None, None)?.get(format!("https://{}", first.address)).send().await.is_err());

    let _authority = authority(dir, api, first.address.port(), http.port()).await?;
    let chain = issued(&first, &own).await?;
    ensure!(spki_pin(&chain[0])? == first.pin, "pins in the relay map stay valid");
    let renewed = issued(&first, &chain).await?;
    ensure!(spki_pin(&renewed[0])? == first.pin, "over renewals too");
    open.write_all(b"GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n").await?;
    let mut answer = [0; 8];
    open.read_exact(&mut answer).await?;
    ensure!(&answer == b"HTTP/1.1", "the connection from before both is still served");

    // Its name leads to the other relay, which does not answer for it.
    let other = relay(dir, "other", api, "").await?;
    let refused = wait::until_true(LIMIT, "the challenge is refused", async || {
        Ok(other.process.log().contains("did not accept the challenge"))
    });
    refused.await.with_context(|| other.process.log_tail(20))?;
    ensure!(shown(&other).await?.1.len() == 1 && other.process.log().contains("must lead to this relay"));

    // By HTTP-01, where the port leads.
    let by_http = relay(dir, "plain", api, &format!("http_listen = \"{http}\"\n")).await?;
    let own = shown(&by_http).await?.1;
    issued(&by_http, &own).await?;

    for (relay, name) in [(&first, "relay"), (&by_http, "plain")] {
        let state = dir.join(name).join("state");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(state.join("acme-account.json"))?.permissions());
        ensure!(mode & 0o777 == 0o600, "{name}: {mode:o}");
        ensure!(!relay.process.log().contains("PRIVATE KEY"));
    }
    Ok(())
}
