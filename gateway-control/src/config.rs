//! The configuration file: a serde form that mirrors it, and the validated form everything else works with. All
//! mistakes are reported together, each with its key, its value and what is accepted; nothing is opened before.

mod oidc;

use std::{
    fmt, io,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use url::Url;

pub use self::oidc::{AddressClaim, OidcConfig, RequiredGroup};
use crate::{service::Registration, storage::Location};

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API listens; port 0: the system picks one.
    pub listen: SocketAddr,
    /// Base URL others reach it at; none: made from the bound address.
    pub public_url: Option<String>,
    /// Where the keys, the operator token and, by default, the database are.
    pub data_dir: PathBuf,
    /// The key that signs policies, where it is not in the data directory: a credential of systemd, a mounted secret.
    pub policy_key_file: Option<PathBuf>,
    /// The database.
    pub storage: StorageConfig,
    /// Who may create an organization.
    pub registration: Registration,
    /// The operator's certificate and key; none: a self-signed pair in the data directory.
    pub tls: Option<TlsFiles>,
    /// Validity of relay tokens, seconds.
    pub relay_token_secs: u64,
    /// Seconds between two comparisons of what the ends of connections counted.
    pub delivery_interval_secs: u64,
    /// For how many days entries of the audit log are kept; none: for ever.
    pub audit_retention_days: Option<u64>,
    /// Where the metrics are served, over plain HTTP; none: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Providers of OpenID Connect that people may sign in through.
    pub oidc: Vec<OidcConfig>,
    /// Limits.
    pub limits: Limits,
}

/// The database.
#[derive(Debug, Clone, Default)]
pub struct StorageConfig {
    /// Where it is; none: a file of SQLite in the data directory.
    pub location: Option<Location>,
    /// File with the password for PostgreSQL, mode 0600.
    pub password_file: Option<PathBuf>,
}

/// The operator's TLS files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM certificate chain.
    pub certificate: PathBuf,
    /// PEM private key, mode 0600.
    pub key: PathBuf,
    /// Gateways pin this key instead of trusting the web PKI.
    pub pin: bool,
}

/// Limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time.
    pub max_connections: usize,
    /// Requests per second of one user, and of one address.
    pub requests_per_second: NonZeroU32,
    /// Sign-in attempts per minute for one account from one address.
    pub logins_per_minute: NonZeroU32,
}

/// A relay token is valid as long as a gateway may go on without us: with it, a gateway that restarts while we are away
/// finds its peers again. Gateways get a fresh one at half of that time.
const RELAY_TOKEN_SECS: u64 = gateway_proto::policy::DEFAULT_STALENESS_SECS;
/// A minute of silence costs a hospital nothing, and a round costs what was reported since the last one.
const DELIVERY_INTERVAL_SECS: u64 = 60;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what is expected; every mistake with its place.
    #[error("the configuration {} is not usable:{}", path.display(), List(.mistakes))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All mistakes.
        mistakes: Vec<String>,
    },
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: String,
    public_url: Option<String>,
    data_dir: PathBuf,
    policy_key_file: Option<PathBuf>,
    registration: Option<String>,
    relay_token_secs: Option<u64>,
    delivery_interval_secs: Option<u64>,
    audit_retention_days: Option<u64>,
    metrics_listen: Option<String>,
    #[serde(default)]
    storage: StorageSection,
    tls: Option<TlsSection>,
    #[serde(default)]
    oidc: Vec<oidc::Section>,
    #[serde(default)]
    limits: LimitsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageSection {
    url: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    pin: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    max_connections: Option<u32>,
    requests_per_second: Option<u32>,
    logins_per_minute: Option<u32>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })
    }

    /// Checks the text of a file; every mistake, not only the first.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let file: File = toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
        let mut mistakes = Mistakes::default();
        let listen = mistakes.address("listen", &file.listen);
        let metrics_listen = file.metrics_listen.as_deref().and_then(|text| mistakes.address("metrics_listen", text));
        let public_url = file.public_url.as_deref().and_then(|text| mistakes.public_url(text));
        if file.public_url.is_none() && listen.is_some_and(|listen| listen.ip().is_unspecified()) {
            mistakes.add("public_url", "", "https://host:port, because `listen` is not one address");
        }
        if file.data_dir.as_os_str().is_empty() {
            mistakes.add("data_dir", "", "a directory");
        }
        let storage = mistakes.storage(file.storage);
        let registration = match file.registration.as_deref().unwrap_or("token") {
            "token" => Registration::Token,
            "open" => Registration::Open,
            "closed" => Registration::Closed,
            other => {
                mistakes.add("registration", other, "`token`, `open` or `closed`");
                Registration::Closed
            }
        };
        let relay_token_secs =
            mistakes.range("relay_token_secs", file.relay_token_secs.unwrap_or(RELAY_TOKEN_SECS), 60, 2_592_000);
        let delivery_interval_secs = mistakes.range(
            "delivery_interval_secs",
            file.delivery_interval_secs.unwrap_or(DELIVERY_INTERVAL_SECS),
            2,
            3600,
        );
        let audit_retention_days =
            file.audit_retention_days.map(|days| mistakes.range("audit_retention_days", days, 1, 36_500));
        let oidc = mistakes.oidc(file.oidc);
        let limits = Limits {
            max_connections: {
                let wanted = u64::from(file.limits.max_connections.unwrap_or(20_000));
                usize::try_from(mistakes.range("limits.max_connections", wanted, 10, 1_000_000)).unwrap_or(10)
            },
            requests_per_second: mistakes.rate("limits.requests_per_second", file.limits.requests_per_second, 100),
            logins_per_minute: mistakes.rate("limits.logins_per_minute", file.limits.logins_per_minute, 10),
        };
        let Some(listen) = listen.filter(|_| mistakes.0.is_empty()) else { return Err(mistakes.0) };
        Ok(Self {
            listen,
            public_url,
            data_dir: file.data_dir,
            policy_key_file: file.policy_key_file,
            storage,
            registration,
            tls: file.tls.map(|tls| TlsFiles { certificate: tls.certificate, key: tls.key, pin: tls.pin }),
            relay_token_secs,
            delivery_interval_secs,
            audit_retention_days,
            metrics_listen,
            oidc,
            limits,
        })
    }
}

#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn add(&mut self, key: &str, value: impl fmt::Display, accepted: &str) {
        self.0.push(format!("{key} = \"{value}\": expected {accepted}"));
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.add(key, text, "address and port, like 127.0.0.1:8443 or [::]:8443");
        }
        address
    }

    fn public_url(&mut self, text: &str) -> Option<String> {
        let url = Url::parse(text).ok().filter(|url| {
            url.scheme() == "https"
                && url.has_host()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
        if url.is_none() {
            self.add("public_url", text, "https://host or https://host:port, without a path");
        }
        url.map(|url| url.as_str().trim_end_matches('/').to_owned())
    }

    fn storage(&mut self, section: StorageSection) -> StorageConfig {
        let location = section.url.as_deref().and_then(|text| {
            let location = text.parse::<Location>();
            if let Err(error) = &location {
                // The whole value may hold a password.
                let scheme = text.split_once(':').map_or(text, |(scheme, _)| scheme);
                self.add("storage.url", scheme, &error.to_string());
            }
            location.ok()
        });
        if let (Some(file), None | Some(Location::Sqlite(_))) = (&section.password_file, &location)
            && section.url.as_deref().is_none_or(|url| url.starts_with("sqlite:"))
        {
            self.add("storage.password_file", file.display(), "nothing: SQLite has no password");
        }
        StorageConfig { location, password_file: section.password_file }
    }

    fn range(&mut self, key: &str, value: u64, min: u64, max: u64) -> u64 {
        if value < min || value > max {
            self.add(key, value, &format!("{min} to {max}"));
        }
        value
    }

    fn rate(&mut self, key: &str, value: Option<u32>, default: u32) -> NonZeroU32 {
        let value = value.unwrap_or(default);
        self.range(key, value.into(), 1, 1_000_000);
        NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
    }
}
