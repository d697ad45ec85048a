//! From the text of the file to a [`Config`]: every section is read even after a mistake, so that all are found.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use gateway_net::{
    causes::with_causes,
    document::{Document, Section, Value},
    log::LogFormat,
    secret_file,
    tls::ServerIdentity,
};
use gateway_proto::identity::GatewayPublicKey;

use super::{Acme, Config, ControlPlane, Limits, Log, Timing, TlsSource, UdpListen, network};

pub(super) const ADDRESS: &str =
    "an IP address and a port, such as \"0.0.0.0:443\" or \"[::]:443\"; port 0 takes a free one";

/// `None`: something required is missing or wrong, and the document knows what.
pub(super) fn read(document: &Document<'_>) -> Option<Config> {
    const DATA_DIR: &str = "the directory for the relay's key, such as \"/var/lib/gateway-relay\"";
    const RELAY_ID: &str = "\"rly_\" and 32 hex digits, as `gateway-relay id` prints them";
    let mut root = document.root();
    let relay_id = root.optional("relay_id", RELAY_ID, parsed);
    let listen = root.required("listen", ADDRESS, parsed::<SocketAddr>);
    let stun_listen = stun_listen(&mut root);
    let udp_listen = udp_listen(&mut root);
    let metrics_listen = metrics_listen(&mut root);
    let data_dir = root.required("data_dir", DATA_DIR, path);
    let control_keys = control_keys(&mut root);
    let control = control(root.section("control"));
    let network = network::read(root.section("network"));
    ports_are_used_once(&root, listen, stun_listen, udp_listen, metrics_listen);
    let taken: Vec<_> = listen.into_iter().chain([metrics_listen]).collect();
    let tls = tls_source(&mut root, &taken);
    let limits = Limits::read(root.section("limits"));
    let timing = Timing::read(root.section("timing"));
    let log = log(root.section("log"));
    root.finish();
    Some(Config {
        relay_id,
        listen: listen?,
        stun_listen: stun_listen?,
        udp_listen,
        metrics_listen,
        data_dir: data_dir?,
        control_keys,
        control,
        network,
        tls,
        limits,
        timing,
        log,
    })
}

fn parsed<T: FromStr>(value: Value<'_, '_>) -> Option<T> {
    value.text()?.parse().ok()
}

pub(super) fn path(value: Value<'_, '_>) -> Option<PathBuf> {
    value.text().filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn stun_listen(root: &mut Section<'_, '_>) -> Option<[SocketAddr; 2]> {
    const ACCEPTED: &str = "two UDP addresses of one family with different ports, such as [\"0.0.0.0:3478\", \"0.0.0.0:3479\"]; \
         gateways compare the answers of the two to learn what their NAT does";
    root.required("stun_listen", ACCEPTED, |value| {
        let addresses = value.texts()?.iter().map(|text| text.parse().ok()).collect::<Option<Vec<SocketAddr>>>()?;
        let addresses: [SocketAddr; 2] = addresses.try_into().ok()?;
        let [first, second] = addresses;
        let same_port = first.port() == second.port() && first.port() != 0;
        (!same_port && first.is_ipv4() == second.is_ipv4()).then_some(addresses)
    })
}

fn udp_listen(root: &mut Section<'_, '_>) -> UdpListen {
    const ACCEPTED: &str =
        "\"stun\" (the STUN ports), \"off\", or an IP address and a port of its own, such as \"0.0.0.0:443\"";
    root.value("udp_listen", ACCEPTED, UdpListen::Stun, |value| match value.text()? {
        "stun" => Some(UdpListen::Stun),
        "off" => Some(UdpListen::Off),
        text => text.parse().ok().map(UdpListen::Own),
    })
}

fn metrics_listen(root: &mut Section<'_, '_>) -> SocketAddr {
    const ACCEPTED: &str = "a loopback address and a port, such as \"127.0.0.1:9464\": metrics are served without TLS";
    root.value("metrics_listen", ACCEPTED, SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)), |value| {
        parsed(value).filter(|address: &SocketAddr| address.ip().is_loopback())
    })
}

fn control_keys(root: &mut Section<'_, '_>) -> Vec<GatewayPublicKey> {
    const KEYS: &str = "a list of at least one control plane's policy key, each as 64 lower-case hex digits";
    const KEY: &str = "the policy key of a control plane: 64 lower-case hex digits that are an Ed25519 public key";
    let texts = root.required("control_keys", KEYS, |value| value.texts().filter(|texts| !texts.is_empty()));
    let mut keys = Vec::new();
    for text in texts.unwrap_or_default() {
        match text.parse() {
            Ok(key) => keys.push(key),
            Err(_) => root.mistake("control_keys", &text, KEY),
        }
    }
    keys
}

/// The second of two that want one port would not start. On UDP the two of STUN have different ports already.
fn ports_are_used_once(
    root: &Section<'_, '_>,
    listen: Option<SocketAddr>,
    stun: Option<[SocketAddr; 2]>,
    udp: UdpListen,
    metrics: SocketAddr,
) {
    if let UdpListen::Own(own) = udp
        && stun.is_some_and(|stun| stun.iter().any(|taken| collide(own, *taken)))
    {
        let accepted = "\"stun\" to relay on the STUN ports, or an address that is not one of stun_listen";
        root.reject("udp_listen", accepted);
    }
    if listen.is_some_and(|listen| collide(listen, metrics)) {
        let key = if root.has("metrics_listen") { "metrics_listen" } else { "listen" };
        let accepted = format!("another port: listen and metrics_listen ({metrics}) cannot share one");
        root.reject(key, &accepted);
    }
}

/// Whether two sockets of one protocol would want the same port of the same address.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |one: SocketAddr, other: SocketAddr| {
        one.ip() == other.ip() || (one.ip().is_unspecified() && one.is_ipv4() == other.is_ipv4())
    };
    one.port() != 0 && one.port() == other.port() && (covers(one, other) || covers(other, one))
}

/// None: the section is not there.
fn control(mut section: Section<'_, '_>) -> Option<ControlPlane> {
    const URL: &str = "the https:// base URL of the control plane, such as \"https://control.example.org:8443\"";
    const PIN: &str = "the fingerprint of the control plane's TLS key, 64 lower-case hex digits";
    if !section.is_there() {
        return None;
    }
    let url = section.required("url", URL, |value| value.text().and_then(base_url));
    let pin = section.optional("tls_pin", PIN, parsed);
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
    let interval = section.duration("interval", 15 * minute, Duration::from_secs(5)..=day);
    section.finish();
    Some(ControlPlane { url: url?, pin, interval })
}

fn base_url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let is_base = !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']);
    is_base.then(|| text.trim_end_matches('/').to_owned())
}

fn tls_source(root: &mut Section<'_, '_>, taken: &[SocketAddr]) -> TlsSource {
    let mut section = root.section("tls");
    let own = ["certificate", "key", "names"].iter().any(|key| section.has(key));
    let given = tls(&mut section);
    section.finish();
    let ordered = Acme::read(root.section("acme"), taken);
    if own && root.has("acme") {
        root.reject("acme", "certificates from [acme] or from [tls], not from both: leave one section out");
    }
    ordered.map_or(given, TlsSource::Acme)
}

fn tls(section: &mut Section<'_, '_>) -> TlsSource {
    const FILE: &str = "the path of a PEM file";
    const PAIR: &str = "certificate and key together, or neither: then a self-signed pair is kept in data_dir";
    const NAMES: &str = "a list of DNS names and IP addresses";
    let certificate = section.optional("certificate", FILE, path);
    let key = section.optional("key", FILE, path);
    let names = section.optional("names", NAMES, |value| {
        value.texts().filter(|names| names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_graphic())))
    });
    match (section.has("certificate"), section.has("key")) {
        (true, false) => section.missing("key", PAIR),
        (false, true) => section.missing("certificate", PAIR),
        (true, true) if names.is_some() => {
            section.reject("names", "names for the self-signed certificate, not beside certificate and key");
        }
        (true, true) | (false, false) => {}
    }
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return TlsSource::Generated { names: names.unwrap_or_default() };
    };
    look_into(section, &certificate, &key);
    TlsSource::Files { certificate, key }
}

/// What cannot be used is found by `check`, and not by the start.
fn look_into(section: &Section<'_, '_>, certificate: &Path, key: &Path) {
    let no_certificate = fs::metadata(certificate).err();
    if let Some(error) = &no_certificate {
        section.reject("certificate", &format!("a PEM file with the certificate chain; this one: {error}"));
    }
    let no_key = secret_file::read(key).err();
    if let Some(error) = &no_key {
        let accepted = format!("a PEM file with the key, mode 0600; {}", with_causes(error));
        section.reject("key", &accepted);
    }
    if no_certificate.is_none()
        && no_key.is_none()
        && let Err(error) = ServerIdentity::load(certificate, key)
    {
        section.reject("certificate", &format!("PEM files of a certificate and its key; {}", with_causes(&error)));
    }
}

fn log(mut section: Section<'_, '_>) -> Log {
    let format = section.value("format", "\"text\" or \"json\"", LogFormat::default(), parsed);
    let filter = section.value("filter", "a filter as of RUST_LOG, such as \"info\"", "info".to_owned(), |value| {
        value.text().map(str::to_owned)
    });
    section.finish();
    Log { format, filter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_collide_where_one_address_is_the_other_or_covers_it() {
        let collide = |one: &str, other: &str| collide(one.parse().unwrap(), other.parse().unwrap());
        assert!(collide("127.0.0.1:443", "127.0.0.1:443") && collide("0.0.0.0:443", "127.0.0.1:443"));
        assert!(collide("[::1]:443", "[::]:443"));
        assert!(!collide("0.0.0.0:0", "0.0.0.0:0"), "the system picks two");
        assert!(!collide("0.0.0.0:443", "0.0.0.0:444") && !collide("[::]:443", "0.0.0.0:443"));
    }
}
