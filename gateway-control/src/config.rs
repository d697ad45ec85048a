//! The configuration file, and the validated form everything else works with. All mistakes are reported together, unknown keys
//! among them, each with its line, its key, the value found and what is accepted; nothing is opened before.

mod oidc;

use std::{
    fmt, io,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use gateway_net::document::{Document, Mistake, Section, Value};
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
const RELAY_TOKEN_SECS: u32 = gateway_proto::policy::DEFAULT_STALENESS_SECS as u32;
/// A minute of silence costs a hospital nothing, and a round costs what was reported since the last one.
const DELIVERY_INTERVAL_SECS: u32 = 60;

const ADDRESS: &str = "address and port, like \"127.0.0.1:8443\" or \"[::]:8443\"";
const FILE: &str = "the path of a file";
const URL: &str = "\"https://host\" or \"https://host:port\", without a path";
const DATABASE: &str = "\"sqlite:/path/to/file\" or \"postgres://user@host:port/database\"";

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
        /// All mistakes, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}

struct List<'a>(&'a [Mistake]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })
    }

    /// Checks the text of a file; every mistake, not only the first.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let document = Document::parse(text);
        let config = Self::read(&document);
        let mistakes = document.into_mistakes();
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            Some(_) | None => Err(mistakes),
        }
    }

    /// Reads every section even after a mistake, so that all are found; `None`: a required key is missing or wrong.
    fn read(document: &Document<'_>) -> Option<Self> {
        let mut root = document.root();
        let listen = root.required("listen", ADDRESS, address);
        let public_url = root.optional("public_url", URL, |value| public_url(value.text()?));
        if !root.has("public_url") && listen.is_some_and(|listen| listen.ip().is_unspecified()) {
            root.missing("public_url", "\"https://host:port\", because `listen` is not one address");
        }
        let data_dir = root.required("data_dir", "a directory, for example \"/var/lib/gateway-control\"", path);
        let policy_key_file = root.optional("policy_key_file", FILE, path);
        let registration =
            root.value("registration", "\"token\", \"open\" or \"closed\"", Registration::Token, |value| {
                match value.text()? {
                    "token" => Some(Registration::Token),
                    "open" => Some(Registration::Open),
                    "closed" => Some(Registration::Closed),
                    _ => None,
                }
            });
        let relay_token_secs = root.number("relay_token_secs", RELAY_TOKEN_SECS, 60..=2_592_000);
        let delivery_interval_secs = root.number("delivery_interval_secs", DELIVERY_INTERVAL_SECS, 2..=3600);
        let audit_retention_days = root.optional("audit_retention_days", "a whole number from 1 to 36500", |value| {
            u64::try_from(value.integer()?).ok().filter(|days| (1..=36_500).contains(days))
        });
        let metrics_listen = root.optional("metrics_listen", ADDRESS, address);
        let storage = StorageConfig::read(root.section("storage"));
        let tls = TlsFiles::read(root.section("tls"));
        let oidc = oidc::read(&mut root);
        let limits = Limits::read(root.section("limits"));
        root.finish();
        Some(Self {
            listen: listen?,
            public_url,
            data_dir: data_dir?,
            policy_key_file,
            storage,
            registration,
            tls,
            relay_token_secs: relay_token_secs.into(),
            delivery_interval_secs: delivery_interval_secs.into(),
            audit_retention_days,
            metrics_listen,
            oidc,
            limits,
        })
    }
}

impl StorageConfig {
    fn read(mut section: Section<'_, '_>) -> Self {
        let url = section.optional("url", DATABASE, Value::text);
        let location = url.map(str::parse::<Location>);
        if let Some(Err(error)) = &location {
            section.reject("url", &error.to_string());
        }
        let password_file = section.optional("password_file", FILE, path);
        if let Some(file) = &password_file
            && url.map_or(!section.has("url"), |url| url.starts_with("sqlite:"))
        {
            let nothing = "nothing: SQLite has no password";
            section.mistake("password_file", &file.display().to_string(), nothing);
        }
        section.finish();
        Self { location: location.and_then(Result::ok), password_file }
    }
}

impl TlsFiles {
    fn read(mut section: Section<'_, '_>) -> Option<Self> {
        if !section.is_there() {
            return None;
        }
        let certificate = section.required("certificate", FILE, path);
        let key = section.required("key", FILE, path);
        let pin = section.flag("pin", false);
        section.finish();
        Some(Self { certificate: certificate?, key: key?, pin })
    }
}

impl Limits {
    fn read(mut section: Section<'_, '_>) -> Self {
        let max_connections = section.number("max_connections", 20_000, 10..=1_000_000);
        let mut rate =
            |key, default| NonZeroU32::new(section.number(key, default, 1..=1_000_000)).unwrap_or(NonZeroU32::MIN);
        let (requests_per_second, logins_per_minute) =
            (rate("requests_per_second", 100), rate("logins_per_minute", 10));
        section.finish();
        Self {
            max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
            requests_per_second,
            logins_per_minute,
        }
    }
}

fn address(value: Value<'_, '_>) -> Option<SocketAddr> {
    value.text()?.parse().ok()
}

fn path(value: Value<'_, '_>) -> Option<PathBuf> {
    value.text().filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn public_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(|url| {
        url.scheme() == "https"
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    url.map(|url| url.as_str().trim_end_matches('/').to_owned())
}
