//! `[network]`: the proxy between this machine and the control plane and relays.
//!
//! The file of the configuration is often readable by many, so a user and password are accepted only in a file of their
//! own, which must have mode 0600, or in the environment.

use std::{fmt, path::PathBuf};

use gateway_net::{
    document::Section,
    proxy::{Exemptions, Proxy, ProxyEnvironmentError, ProxyFormatError},
    secret_file::{self, SecretFileError},
};

const PROXY_ACCEPTED: &str = "\"http://host:port\", \"environment\" (HTTPS_PROXY and NO_PROXY) or \"none\"; a user and password belong \
                              in a file named by proxy_file";

/// `[network]`: connections to the control plane and to relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The proxy.
    pub proxy: ProxyChoice,
    /// Hosts reached without it; none: as `NO_PROXY` of the environment says.
    pub no_proxy: Option<Exemptions>,
}

/// Where the proxy is named. `Display` says that much and no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyChoice {
    /// `HTTPS_PROXY` of the environment, if it is set.
    Environment,
    /// No proxy, whatever the environment says.
    Direct,
    /// This one.
    Address(Proxy),
    /// The one in this file, which may hold a user and password.
    File(PathBuf),
}

/// Why there is no usable proxy.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The environment.
    #[error("cannot use the proxy of the environment; mend it or set [network] proxy")]
    Environment(#[from] ProxyEnvironmentError),
    /// The file could not be read.
    #[error("cannot read the proxy ([network] proxy_file)")]
    Read(#[from] SecretFileError),
    /// The file says something else.
    #[error("{} ([network] proxy_file) names no usable proxy", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: ProxyFormatError,
    },
}

impl NetworkConfig {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let written = section.value("proxy", PROXY_ACCEPTED, None, |value| value.text().map(Some));
        let mut proxy = match written {
            None | Some("environment") => ProxyChoice::Environment,
            Some("none") => ProxyChoice::Direct,
            Some(text) => match text.parse::<Proxy>() {
                Ok(proxy) if !proxy.has_credentials() => ProxyChoice::Address(proxy),
                Ok(_) | Err(_) => {
                    section.mistake("proxy", &masked(text), PROXY_ACCEPTED);
                    ProxyChoice::Environment
                }
            },
        };
        let accepted = "an absolute path of a file with mode 0600 that holds http://user:password@host:port";
        let file = section.value("proxy_file", accepted, None, |value| {
            value.text().map(PathBuf::from).filter(|path| path.is_absolute()).map(Some)
        });
        if let Some(file) = file {
            if written.is_some() {
                section.mistake("proxy_file", &file.display().to_string(), "one of proxy and proxy_file, not both");
            }
            proxy = ProxyChoice::File(file);
        }
        let accepted = "host names, addresses and networks, for example \"clinic.example, 10.0.0.0/8\"";
        let no_proxy =
            section.value("no_proxy", accepted, None, |value| value.text().map(|text| Some(Exemptions::parse(text))));
        section.finish();
        Self { proxy, no_proxy }
    }

    /// The proxy to use, read from where it is named. Blocking.
    pub fn proxy(&self) -> Result<Option<Proxy>, NetworkError> {
        let proxy = match &self.proxy {
            ProxyChoice::Direct => None,
            ProxyChoice::Environment => Proxy::from_environment()?,
            ProxyChoice::Address(proxy) => Some(proxy.clone()),
            ProxyChoice::File(file) => {
                let content = secret_file::read(file)?;
                let text = std::str::from_utf8(&content).map_err(|_| ProxyFormatError::Address);
                let proxy = text.and_then(str::parse);
                Some(proxy.map_err(|source| NetworkError::Format { file: file.clone(), source })?)
            }
        };
        let exemptions = || self.no_proxy.clone().unwrap_or_else(Exemptions::from_environment);
        Ok(proxy.map(|proxy| proxy.exempting(exemptions())))
    }
}

impl fmt::Display for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "the environment",
            Self::Direct => "none",
            Self::Address(_) => "the configuration",
            Self::File(_) => "proxy_file",
        })
    }
}

/// A value that is refused, for a message: what may be a user and password is left out.
fn masked(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, address)) => format!("…@{address}"),
        None => text.to_owned(),
    }
}
