//! `[engine]`: the integration engine beside us; `[admin]`: local ports for administrators.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use gateway_net::{document::Section, tls::TlsPin};
use url::{Host, Url};

const API_ACCEPTED: &str = "\"https://host:port\", with the engine's http.contextpath behind it if it has one, for example \"https://127.0.0.1:8443\"";
/// A hold of this length is as good as a refusal.
const MAX_ADMIN_HOLD: Duration = Duration::from_secs(300);

/// Between two looks at the engine.
const INTERVAL: Duration = Duration::from_secs(10);

/// The engine's own API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    api: Url,
    /// SHA-256 of the engine's TLS public key; none: any key is accepted.
    pub tls_pin: Option<TlsPin>,
    /// Who asks for the channels; none: nobody does.
    pub login: Option<EngineLogin>,
    /// Between two looks at the engine.
    pub interval: Duration,
}

/// A user of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineLogin {
    /// Name.
    pub user: String,
    /// File with its password, readable by its owner only.
    pub password_file: PathBuf,
}

/// Local ports for administrators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address the local ports are opened on.
    pub bind: IpAddr,
    /// How long a connection is held while there is no tunnel.
    pub hold: Duration,
}

impl EngineConfig {
    /// For the API at this URL; none: it is no address of an engine.
    pub fn new(api: &str, tls_pin: Option<TlsPin>) -> Option<Self> {
        let api = Url::parse(api).ok()?;
        let plain =
            api.username().is_empty() && api.password().is_none() && api.query().is_none() && api.fragment().is_none();
        (api.scheme() == "https" && api.has_host() && plain).then_some(Self {
            api,
            tls_pin,
            login: None,
            interval: INTERVAL,
        })
    }

    /// Host and port to dial.
    pub fn host_and_port(&self) -> (&str, u16) {
        let host = self.api.host_str().unwrap_or_default();
        (host.trim_start_matches('[').trim_end_matches(']'), self.api.port_or_known_default().unwrap_or(443))
    }

    /// The prefix of its paths, empty for none.
    pub fn context_path(&self) -> &str {
        self.api.path().trim_end_matches('/')
    }

    /// Where its ports are reached: its address, or this machine where it has a name.
    pub fn ip(&self) -> IpAddr {
        match self.api.host() {
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            Some(Host::Domain(_)) | None => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Whether it is on this machine.
    fn is_here(&self) -> bool {
        match self.api.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(_) | Host::Ipv6(_)) => self.ip().is_loopback(),
            None => false,
        }
    }

    /// The URL, for people.
    pub fn url(&self) -> &str {
        self.api.as_str().trim_end_matches('/')
    }

    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let api = section.value("api", API_ACCEPTED, None, |value| Self::new(value.text()?, None).map(Some));
        let tls_pin = section.value(
            "tls_pin",
            "64 lower-case hex digits, the SHA-256 of the engine's TLS public key",
            None,
            |value| value.text()?.parse().ok().map(Some),
        );
        if api.is_none() && tls_pin.is_some() {
            section.mistake("tls_pin", "set", "a pin only together with engine.api");
        }
        let user = section.value("user", "the name of a user of the engine", None, |value| {
            value.text().filter(|text| !text.is_empty()).map(|text| Some(text.to_owned()))
        });
        let password_file = section.value("password_file", "an absolute path", None, |value| {
            value.text().map(PathBuf::from).filter(|path| path.is_absolute()).map(Some)
        });
        let interval = section.duration("interval", INTERVAL, Duration::from_secs(1)..=Duration::from_secs(300));
        if let Some(user) = &user {
            if password_file.is_none() {
                section.mistake("user", user, "a user only together with password_file");
            }
            match &api {
                None => section.mistake("user", user, "a user only together with engine.api"),
                Some(api) if tls_pin.is_none() && !api.is_here() => section.mistake(
                    "user",
                    user,
                    "a user only with an api on loopback or with tls_pin: the engine's certificate proves nothing by \
                     itself, and the password goes there",
                ),
                Some(_) => {}
            }
        } else if let Some(file) = &password_file {
            section.mistake("password_file", &file.display().to_string(), "a password only together with user");
        }
        section.finish();
        let login = user.zip(password_file).map(|(user, password_file)| EngineLogin { user, password_file });
        api.map(|engine| Self { tls_pin, login, interval, ..engine })
    }
}

impl AdminConfig {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let bind = section.value(
            "bind",
            "an IP address of this machine, for example \"127.0.0.1\"",
            Ipv4Addr::LOCALHOST.into(),
            |value| value.text()?.parse().ok(),
        );
        let hold = section.duration("hold", Duration::from_secs(30), Duration::ZERO..=MAX_ADMIN_HOLD);
        section.finish();
        Self { bind, hold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_known_by_its_url() {
        let engine = EngineConfig::new("https://127.0.0.1:8443", None).unwrap();
        assert_eq!((engine.host_and_port(), engine.context_path()), (("127.0.0.1", 8443), ""));
        let engine = EngineConfig::new("https://[::1]/mirth/", None).unwrap();
        assert_eq!((engine.host_and_port(), engine.context_path()), (("::1", 443), "/mirth"));
        for wrong in ["http://127.0.0.1:8080", "127.0.0.1:8443", "https://user:x@engine", "https://engine?x=1", ""] {
            assert_eq!(EngineConfig::new(wrong, None), None, "{wrong}");
        }
    }
}
