//! `[network]` of a configuration: where the proxy is named, for every program that connects out through one.
//!
//! The file of a configuration is often readable by many, so a user and password are accepted only in a file of their own,
//! which must have mode 0600, or in the environment.

use std::{fmt, path::PathBuf};

use super::{Exemptions, Proxy, ProxyEnvironmentError, ProxyFormatError};
use crate::secret_file::{self, SecretFileError};

/// What `proxy` may be, for messages.
pub const PROXY_ACCEPTED: &str = "\"http://host:port\", \"environment\" (HTTPS_PROXY and NO_PROXY) or \"none\"; a user and password belong \
                                  in a file named by proxy_file";
/// What `proxy_file` may be, for messages.
pub const PROXY_FILE_ACCEPTED: &str =
    "an absolute path of a file with mode 0600 that holds http://user:password@host:port";

/// `[network]`: the proxy of the connections that a program makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
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
pub enum ProxyConfigError {
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

impl ProxyConfig {
    /// The proxy to use, read from where it is named. Blocking.
    pub fn proxy(&self) -> Result<Option<Proxy>, ProxyConfigError> {
        let proxy = match &self.proxy {
            ProxyChoice::Direct => None,
            ProxyChoice::Environment => Proxy::from_environment()?,
            ProxyChoice::Address(proxy) => Some(proxy.clone()),
            ProxyChoice::File(file) => {
                let content = secret_file::read(file)?;
                let text = std::str::from_utf8(&content).map_err(|_| ProxyFormatError::Address);
                let proxy = text.and_then(str::parse);
                Some(proxy.map_err(|source| ProxyConfigError::Format { file: file.clone(), source })?)
            }
        };
        let exemptions = || self.no_proxy.clone().unwrap_or_else(Exemptions::from_environment);
        Ok(proxy.map(|proxy| proxy.exempting(exemptions())))
    }
}

impl ProxyChoice {
    /// What the text of `proxy` means. Refused is what names no usable proxy, or a user and password: the error is the text as
    /// a message may show it.
    pub fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "environment" => Ok(Self::Environment),
            "none" => Ok(Self::Direct),
            text => match text.parse::<Proxy>() {
                Ok(proxy) if !proxy.has_credentials() => Ok(Self::Address(proxy)),
                Ok(_) | Err(_) => Err(masked(text)),
            },
        }
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
