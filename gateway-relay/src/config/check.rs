//! From the form of the file to a [`Config`], collecting every mistake on the way.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU64,
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use gateway_proto::{identity::GatewayPublicKey, relay::MAX_FRAME};
use serde::Deserialize;

use super::{Acme, Config, ControlPlane, Limits, Log, Timing, TlsSource, UdpListen, file};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: Box<toml::de::Error>,
    },
    /// Keys and values that are not accepted, all of them.
    #[error("{} has {} mistake(s):{}", path.display(), mistakes.len(), lines(mistakes))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// The mistakes.
        mistakes: Vec<Mistake>,
    },
}

/// One value that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key with its section.
    pub key: String,
    /// What stands there; `None` if nothing does.
    pub value: Option<String>,
    /// What is accepted.
    pub accepted: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.key, self.accepted),
            None => write!(f, "{} is missing: {}", self.key, self.accepted),
        }
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect()
}

const ADDRESS: &str =
    "an IP address and a port is accepted, such as \"0.0.0.0:443\" or \"[::]:443\"; port 0 takes a free one";
/// Let's Encrypt.
const DEFAULT_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
const UNSPECIFIED: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
/// Upper end of counts, sizes and rates: large enough for any machine, small enough to multiply.
const MANY: u64 = 1 << 40;

/// Checks the keys, then the values of the keys that fit the form.
pub(super) fn check(table: toml::Table) -> Result<Config, Vec<Mistake>> {
    let (file, mistakes) = fit(table);
    let mut checker = Checker { mistakes };
    let config = Config {
        relay_id: file.relay_id.as_deref().and_then(|text| {
            checker.parse("relay_id", text, "\"rly_\" and 32 hex digits is accepted, as `gateway-relay id` prints them")
        }),
        listen: checker.required("listen", file.listen.as_deref(), ADDRESS).unwrap_or(UNSPECIFIED),
        stun_listen: checker.stun_listen(file.stun_listen),
        udp_listen: checker.udp_listen(file.udp_listen.as_deref()),
        metrics_listen: checker.metrics_listen(file.metrics_listen.as_deref()),
        data_dir: checker.data_dir(file.data_dir),
        control_keys: checker.control_keys(file.control_keys),
        control: checker.control(file.control),
        tls: checker.tls_source(file.tls, file.acme),
        limits: checker.limits(&file.limits),
        timing: checker.timing(&file.timing),
        log: checker.log(file.log),
    };
    if checker.mistakes.is_empty() { Ok(config) } else { Err(checker.mistakes) }
}

/// Fits each key to the form on its own, so that one unknown key or wrong type does not hide the next.
fn fit(table: toml::Table) -> (file::File, Vec<Mistake>) {
    let mut fitting = toml::Table::new();
    let mut mistakes = Vec::new();
    for (section, value) in table {
        let toml::Value::Table(entries) = value else {
            fit_one(None, section, value, &mut fitting, &mut mistakes);
            continue;
        };
        if entries.is_empty() {
            fit_one(None, section, toml::Value::Table(entries), &mut fitting, &mut mistakes);
            continue;
        }
        let mut fitting_entries = toml::Table::new();
        for (key, value) in entries {
            fit_one(Some(&section), key, value, &mut fitting_entries, &mut mistakes);
        }
        if !fitting_entries.is_empty() {
            fitting.insert(section, toml::Value::Table(fitting_entries));
        }
    }
    let file = file::File::deserialize(fitting).expect("invariant: each key was fitted to the form above");
    (file, mistakes)
}

fn fit_one(
    section: Option<&str>,
    key: String,
    value: toml::Value,
    fitting: &mut toml::Table,
    mistakes: &mut Vec<Mistake>,
) {
    let entry = toml::Table::from_iter([(key.clone(), value.clone())]);
    let alone = match section {
        Some(section) => toml::Table::from_iter([(section.to_owned(), toml::Value::Table(entry))]),
        None => entry,
    };
    match file::File::deserialize(alone) {
        Ok(_) => {
            fitting.insert(key, value);
        }
        Err(error) => {
            let key = section.map(|section| format!("{section}.{key}")).unwrap_or(key);
            mistakes.push(Mistake { key, value: Some(value.to_string()), accepted: error.message().to_owned() });
        }
    }
}

fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}

struct Checker {
    mistakes: Vec<Mistake>,
}

impl Checker {
    fn mistake(&mut self, key: &'static str, value: Option<String>, accepted: impl Into<String>) {
        // A key that did not fit the form is not missing: its mistake is told already.
        if value.is_some() || !self.mistakes.iter().any(|mistake| mistake.key == key) {
            self.mistakes.push(Mistake { key: key.to_owned(), value, accepted: accepted.into() });
        }
    }

    fn parse<T: FromStr>(&mut self, key: &'static str, text: &str, accepted: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.mistake(key, Some(format!("{text:?}")), accepted);
        }
        parsed
    }

    fn required<T: FromStr>(&mut self, key: &'static str, text: Option<&str>, accepted: &str) -> Option<T> {
        if text.is_none() {
            self.mistake(key, None, accepted);
        }
        self.parse(key, text?, accepted)
    }

    fn stun_listen(&mut self, texts: Option<Vec<String>>) -> [SocketAddr; 2] {
        const KEY: &str = "stun_listen";
        const ACCEPTED: &str = "two UDP addresses of one family with different ports are accepted, such as [\"0.0.0.0:3478\", \"0.0.0.0:3479\"]; \
             gateways compare the answers of the two to learn what their NAT does";
        let value = texts.as_ref().map(|texts| format!("{texts:?}"));
        let Some([first, second]) = texts.as_deref() else {
            self.mistake(KEY, value, ACCEPTED);
            return [UNSPECIFIED; 2];
        };
        let (Some(first), Some(second)) = (self.parse(KEY, first, ADDRESS), self.parse(KEY, second, ADDRESS)) else {
            return [UNSPECIFIED; 2];
        };
        let addresses: [SocketAddr; 2] = [first, second];
        let same_port = addresses[0].port() == addresses[1].port() && addresses[0].port() != 0;
        if same_port || addresses[0].is_ipv4() != addresses[1].is_ipv4() {
            self.mistake(KEY, value, ACCEPTED);
        }
        addresses
    }

    fn udp_listen(&mut self, text: Option<&str>) -> UdpListen {
        const ACCEPTED: &str = "\"stun\" (the STUN ports), \"off\", or an IP address and a port of its own is accepted, such as \"0.0.0.0:443\"";
        match text {
            None | Some("stun") => UdpListen::Stun,
            Some("off") => UdpListen::Off,
            Some(text) => self.parse("udp_listen", text, ACCEPTED).map_or(UdpListen::Off, UdpListen::Own),
        }
    }

    fn metrics_listen(&mut self, text: Option<&str>) -> SocketAddr {
        const ACCEPTED: &str =
            "a loopback address and a port is accepted, such as \"127.0.0.1:9464\": metrics are served without TLS";
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
        let Some(text) = text else {
            return default;
        };
        let address: SocketAddr = self.parse("metrics_listen", text, ACCEPTED).unwrap_or(default);
        if !address.ip().is_loopback() {
            self.mistake("metrics_listen", Some(format!("{text:?}")), ACCEPTED);
        }
        address
    }

    fn data_dir(&mut self, path: Option<PathBuf>) -> PathBuf {
        match path {
            Some(path) if !path.as_os_str().is_empty() => path,
            path => {
                let value = path.map(|path| format!("{path:?}"));
                self.mistake(
                    "data_dir",
                    value,
                    "the directory for the relay's key is accepted, such as \"/var/lib/gateway-relay\"",
                );
                PathBuf::new()
            }
        }
    }

    fn control_keys(&mut self, texts: Option<Vec<String>>) -> Vec<GatewayPublicKey> {
        const KEY: &str = "control_keys";
        const ACCEPTED: &str =
            "a list of at least one control plane's policy key is accepted, each as 64 lower-case hex digits";
        let texts = texts.unwrap_or_default();
        if texts.is_empty() {
            self.mistake(KEY, None, ACCEPTED);
        }
        texts.iter().filter_map(|text| self.parse(KEY, text, ACCEPTED)).collect()
    }

    /// None: nothing of the section is there.
    fn control(&mut self, control: file::Control) -> Option<ControlPlane> {
        const URL: &str =
            "the https:// base URL of the control plane is accepted, such as \"https://control.example.org:8443\"";
        const PIN: &str = "the fingerprint of the control plane's TLS key is accepted, 64 lower-case hex digits";
        let file::Control { url, tls_pin, interval } = control;
        if url.is_none() && tls_pin.is_none() && interval.is_none() {
            return None;
        }
        let pin = tls_pin.and_then(|text| self.parse("control.tls_pin", &text, PIN));
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
        let interval =
            self.duration("control.interval", interval.as_deref(), 15 * minute, Duration::from_secs(5)..=day);
        let Some(url) = url else {
            self.mistake("control.url", None, URL);
            return None;
        };
        let is_base = url.strip_prefix("https://").is_some_and(|rest| {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' '])
        });
        if !is_base {
            self.mistake("control.url", Some(format!("{url:?}")), URL);
        }
        Some(ControlPlane { url: url.trim_end_matches('/').to_owned(), pin, interval })
    }

    fn tls_source(&mut self, tls: file::Tls, acme: file::Acme) -> TlsSource {
        let ordered = self.acme(acme);
        let own = tls.certificate.is_some() || tls.key.is_some() || tls.names.is_some();
        if ordered.is_some() && own {
            let accepted = "certificates come from [acme] or from [tls], not from both: leave one section out";
            self.mistake("acme", Some("[…]".to_owned()), accepted);
        }
        let given = self.tls(tls);
        ordered.map_or(given, TlsSource::Acme)
    }

    /// None: nothing of the section is there.
    fn acme(&mut self, acme: file::Acme) -> Option<Acme> {
        const DOMAINS: &str = "a list of 1 to 100 DNS names without `*` is accepted, all of which lead to this relay, such as [\"relay.example.org\"]";
        const DIRECTORY: &str =
            "an https:// URL is accepted, such as \"https://acme-v02.api.letsencrypt.org/directory\"";
        let file::Acme { domains, contact, directory, terms_agreed, root, http_listen } = acme;
        let is_absent = domains.is_none() && contact.is_none() && directory.is_none() && terms_agreed.is_none();
        if is_absent && root.is_none() && http_listen.is_none() {
            return None;
        }
        let domains = domains.unwrap_or_default();
        if domains.is_empty() {
            self.mistake("acme.domains", None, DOMAINS);
        } else if domains.len() > 100 || !domains.iter().all(|domain| is_domain(domain)) {
            self.mistake("acme.domains", Some(format!("{domains:?}")), DOMAINS);
        }
        let contact = contact.unwrap_or_default();
        if contact.len() > 10 || !contact.iter().all(|address| address.starts_with("mailto:") && address.contains('@'))
        {
            let accepted = "a list of at most 10 addresses is accepted, such as [\"mailto:ops@example.org\"]";
            self.mistake("acme.contact", Some(format!("{contact:?}")), accepted);
        }
        if terms_agreed != Some(true) {
            let accepted = "true is accepted, once you have read the terms of service of the certificate authority and agree to them";
            self.mistake("acme.terms_agreed", terms_agreed.map(|agreed| agreed.to_string()), accepted);
        }
        let directory = directory.unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned());
        if directory.strip_prefix("https://").is_none_or(|rest| rest.len() <= 1) {
            self.mistake("acme.directory", Some(format!("{directory:?}")), DIRECTORY);
        }
        if let Some(root) = root.as_ref().filter(|root| root.as_os_str().is_empty()) {
            self.mistake("acme.root", Some(format!("{root:?}")), "a PEM file is accepted");
        }
        let http_listen = http_listen.and_then(|text| self.parse("acme.http_listen", &text, ADDRESS));
        Some(Acme { domains, contact, directory, root, http_listen })
    }

    fn tls(&mut self, tls: file::Tls) -> TlsSource {
        const PAIR: &str =
            "certificate and key are given together, or neither: then a self-signed pair is kept in data_dir";
        match (tls.certificate, tls.key) {
            (Some(certificate), Some(key)) => {
                if let Some(names) = tls.names {
                    const ACCEPTED: &str =
                        "names are for the self-signed certificate: they are not accepted beside certificate and key";
                    self.mistake("tls.names", Some(format!("{names:?}")), ACCEPTED);
                }
                return TlsSource::Files { certificate, key };
            }
            (Some(_), None) => self.mistake("tls.key", None, PAIR),
            (None, Some(_)) => self.mistake("tls.certificate", None, PAIR),
            (None, None) => {}
        }
        let names = tls.names.unwrap_or_default();
        if let Some(name) = names.iter().find(|name| name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic())) {
            self.mistake("tls.names", Some(format!("{name:?}")), "DNS names and IP addresses are accepted");
        }
        TlsSource::Generated { names }
    }

    fn number(&mut self, key: &'static str, value: Option<i64>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(value) = value else {
            return default;
        };
        match u64::try_from(value).ok().filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let accepted = format!("a whole number from {} to {} is accepted", range.start(), range.end());
                self.mistake(key, Some(value.to_string()), accepted);
                default
            }
        }
    }

    fn rate(&mut self, key: &'static str, value: Option<i64>, default: u64, least: NonZeroU64) -> NonZeroU64 {
        NonZeroU64::new(self.number(key, value, default, least.get()..=MANY)).unwrap_or(least)
    }

    fn size(&mut self, key: &'static str, value: Option<i64>, default: u64, range: RangeInclusive<u64>) -> usize {
        usize::try_from(self.number(key, value, default, range)).unwrap_or(usize::MAX)
    }

    fn limits(&mut self, limits: &file::Limits) -> Limits {
        let one = NonZeroU64::MIN;
        let frame = NonZeroU64::MIN.saturating_add(MAX_FRAME as u64 - 1);
        let rate = self.number("limits.client_bytes_per_second", limits.client_bytes_per_second, 12_500_000, 0..=MANY);
        let max_clients = self.size("limits.max_clients", limits.max_clients, 10_000, 1..=1_000_000);
        let organization =
            self.number("limits.organization_bytes_per_second", limits.organization_bytes_per_second, 0, 0..=MANY);
        Limits {
            max_clients,
            organization_bytes_per_second: NonZeroU64::new(organization),
            organization_burst_bytes: self.rate(
                "limits.organization_burst_bytes",
                limits.organization_burst_bytes,
                16 << 20,
                frame,
            ),
            organization_clients: self.size(
                "limits.organization_clients",
                limits.organization_clients,
                max_clients as u64,
                1..=1_000_000,
            ),
            client_bytes_per_second: NonZeroU64::new(rate),
            // A frame larger than the burst could never be sent.
            client_burst_bytes: self.rate("limits.client_burst_bytes", limits.client_burst_bytes, 4 << 20, frame),
            queue_datagrams: self.size("limits.queue_datagrams", limits.queue_datagrams, 256, 1..=65_536),
            queue_bytes: self.size("limits.queue_bytes", limits.queue_bytes, 1 << 20, frame.get()..=1 << 30),
            signals_per_second: self.rate("limits.signals_per_second", limits.signals_per_second, 20, one),
            accept_per_second: self.rate("limits.accept_per_second", limits.accept_per_second, 200, one),
            accept_per_second_per_source: self.rate(
                "limits.accept_per_second_per_source",
                limits.accept_per_second_per_source,
                50,
                one,
            ),
            connections_per_source: self.size(
                "limits.connections_per_source",
                limits.connections_per_source,
                1_000,
                1..=1_000_000,
            ),
            stun_per_second_per_source: self.rate(
                "limits.stun_per_second_per_source",
                limits.stun_per_second_per_source,
                50,
                one,
            ),
        }
    }

    fn duration(
        &mut self,
        key: &'static str,
        text: Option<&str>,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(text) = text else {
            return default;
        };
        match humantime::parse_duration(text).ok().filter(|duration| range.contains(duration)) {
            Some(duration) => duration,
            None => {
                let (least, most) =
                    (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
                self.mistake(
                    key,
                    Some(format!("{text:?}")),
                    format!("a duration from \"{least}\" to \"{most}\" is accepted"),
                );
                default
            }
        }
    }

    fn timing(&mut self, timing: &file::Timing) -> Timing {
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        let hour = secs(3600);
        Timing {
            admission: self.duration("timing.admission", timing.admission.as_deref(), secs(10), ms(100)..=secs(60)),
            heartbeat: self.duration("timing.heartbeat", timing.heartbeat.as_deref(), secs(15), ms(100)..=secs(120)),
            drain_grace: self.duration("timing.drain_grace", timing.drain_grace.as_deref(), secs(5), ms(0)..=secs(300)),
            expired_link_grace: self.duration(
                "timing.expired_link_grace",
                timing.expired_link_grace.as_deref(),
                24 * hour,
                ms(0)..=30 * 24 * hour,
            ),
        }
    }

    fn log(&mut self, log: file::Log) -> Log {
        let format = log.format.and_then(|text| self.parse("log.format", &text, "\"text\" and \"json\" are accepted"));
        Log { format: format.unwrap_or_default(), filter: log.filter.unwrap_or_else(|| "info".to_owned()) }
    }
}
