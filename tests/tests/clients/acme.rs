//! Certificates by ACME, from pebble: ordered, renewed under an open connection, refused; over both kinds of challenges;
//! for bound accounts, through a proxy, renewed when the authority suggests it.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, ensure};
use data_encoding::BASE64URL_NOPAD;
use gateway_net::{
    http::{client_builder, foreign_client},
    secret_file,
    tls::{ServerIdentity, ServerTrust, TlsPin, certificate_name, engine_client_config, spki_pin},
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

use crate::{
    acme_front::Front,
    programs::{LIMIT, Server, command, serve},
};

/// How long pebble's certificates are valid: renewed after two thirds of it.
const LIFE_SECS: u64 = 24;
/// The HMAC key of the external account `key-1`.
const EAB_KEY: &str = "c2VzYW1lIHNlc2FtZSBzZXNhbWUgc2VzYW1lIHNlc2FtZQ";

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

/// `more` ends `[acme]`, and may begin sections of its own.
async fn relay(dir: &Path, name: &str, directory: &str, more: &str) -> anyhow::Result<Relay> {
    let home = dir.join(name);
    fs::create_dir_all(&home)?;
    let config = home.join("relay.toml");
    let key = GatewayKey::from_seed(&[1; 32]).public();
    fs::write(
        &config,
        format!(
            "listen = \"127.0.0.1:0\"\nstun_listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nmetrics_listen = \"127.0.0.1:0\"\n\
             data_dir = {:?}\ncontrol_keys = [\"{key}\"]\n[acme]\ndomains = [\"{name}.example.test\"]\nterms_agreed = true\n\
             contact = [\"mailto:ops@example.test\"]\ndirectory = \"{directory}\"\nroot = {:?}\n{more}\
             [limits]\naccept_per_second = 10000\naccept_per_second_per_source = 10000\n\
             [timing]\nadmission = \"60s\"\n",
            home.join("state"),
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

/// Takes only bound accounts, if told so.
async fn authority(
    dir: &Path,
    api: SocketAddr,
    tls_port: u16,
    http_port: u16,
    bound: bool,
) -> anyhow::Result<Authority> {
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
        "externalAccountBindingRequired": bound,
        "externalAccountMACKeys": { "key-1": EAB_KEY },
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
    let directory = format!("https://localhost:{}/dir", api.port());
    let first = relay(dir, "relay", &directory, "").await?;
    wait::until_true(LIMIT, "the relay says why it has no certificate", async || {
        Ok(first.process.log().contains("no certificate was issued") && failed_orders(&first).await?)
    })
    .await?;
    let (mut open, own) = shown(&first).await?;
    ensure!(own.len() == 1 && spki_pin(&own[0])? == first.pin);
    ensure!(foreign_client(None, None)?.get(format!("https://{}", first.address)).send().await.is_err());

    let _authority = authority(dir, api, first.address.port(), http.port(), false).await?;
    let chain = issued(&first, &own).await?;
    ensure!(spki_pin(&chain[0])? == first.pin, "pins in the relay map stay valid");
    let renewed = issued(&first, &chain).await?;
    ensure!(spki_pin(&renewed[0])? == first.pin, "over renewals too");
    open.write_all(b"GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n").await?;
    let mut answer = [0; 8];
    open.read_exact(&mut answer).await?;
    ensure!(&answer == b"HTTP/1.1", "the connection from before both is still served");

    // Its name leads to the other relay, which does not answer for it.
    let other = relay(dir, "other", &directory, "").await?;
    let refused = wait::until_true(LIMIT, "the challenge is refused", async || {
        Ok(other.process.log().contains("did not accept the challenge"))
    });
    refused.await.with_context(|| other.process.log_tail(20))?;
    ensure!(shown(&other).await?.1.len() == 1 && other.process.log().contains("must lead to this relay"));

    // By HTTP-01, where the port leads.
    let by_http = relay(dir, "plain", &directory, &format!("http_listen = \"{http}\"\n")).await?;
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

/// How a certificate is named in questions about its renewal (RFC 9773 §4.1).
fn renewal_name(certificate: &CertificateDer<'_>) -> anyhow::Result<String> {
    let name = certificate_name(certificate).context("a certificate that names its authority")?;
    Ok(format!("{}.{}", BASE64URL_NOPAD.encode(&name.authority_key), BASE64URL_NOPAD.encode(&name.serial)))
}

#[tokio::test]
async fn a_private_authority_behind_a_proxy_binds_the_account_and_is_asked_when_to_renew() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let files = dir.join("authority");
    fs::create_dir(&files)?;
    ServerIdentity::load_or_generate(&files, &["localhost".to_owned(), "acme.example.test".to_owned()])?;
    let held = [HeldPort::loopback(0)?, HeldPort::loopback(0)?];
    let [api, http] = [held[0].address(), held[1].address()];
    let front = Front::start(&files, api).await?;
    let name = format!("acme.example.test:{}", front.address.port());
    // Only the proxy knows where the name leads.
    let (directory, network) =
        (format!("https://{name}/dir"), format!("[network]\nno_proxy = \"\"\nproxy = \"http://{}\"\n", front.proxy));

    let free = relay(dir, "free", &directory, &network).await?;
    let _authority = authority(dir, api, free.address.port(), http.port(), true).await?;
    wait::until_true(LIMIT, "the relay is told that its account is not bound", async || {
        Ok(free.process.log().contains("set acme.eab_key_id and acme.eab_key_file"))
    })
    .await
    .with_context(|| free.process.log_tail(20))?;

    let key_file = dir.join("eab.key");
    secret_file::write(&key_file, EAB_KEY.as_bytes())?;
    let more = format!("eab_key_id = \"key-1\"\neab_key_file = {key_file:?}\nhttp_listen = \"{http}\"\n{network}");
    let bound = relay(dir, "bound", &directory, &more).await?;
    let own = shown(&bound).await?.1;
    let chain = issued(&bound, &own).await?;
    let renewed = issued(&bound, &chain).await?;
    ensure!(spki_pin(&renewed[0])? == bound.pin, "pins in the relay map stay valid");

    let (asked, first) = (front.asked(), renewal_name(&chain[0])?);
    ensure!(asked.renewals.contains(&first), "{asked:?} {first}");
    ensure!(asked.orders.first() == Some(&None) && asked.orders.contains(&Some(first)), "{asked:?}");
    ensure!(!asked.targets.is_empty() && asked.targets.iter().all(|target| *target == name), "{asked:?}");
    ensure!(bound.process.log().contains("says when it wants the certificate to be renewed"));
    ensure!(!bound.process.log().contains(EAB_KEY) && !free.process.log().contains(EAB_KEY));
    Ok(())
}
