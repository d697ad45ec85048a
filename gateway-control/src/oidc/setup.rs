//! Setting providers up: secrets, authorities, the proxy. Nothing is asked of them yet.

use std::sync::Mutex;

use gateway_net::{
    http::{ForeignSetupError, foreign_client},
    proxy::{Proxy, ProxyEnvironmentError},
    secret_file::{self, SecretFileError},
};
use gateway_proto::api::platform::Hidden;

use super::{PLACES, Provider, fetch::Fetcher};
use crate::config::OidcConfig;

/// Why the providers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OidcSetupError {
    /// The file with our secret.
    #[error("the client secret for the provider '{provider}' cannot be read")]
    Secret {
        /// The provider.
        provider: String,
        /// Why.
        source: SecretFileError,
    },
    /// The file holds no secret.
    #[error("the file with the client secret for the provider '{0}' holds no line of text")]
    Content(String),
    /// The HTTP client.
    #[error("the provider '{provider}' cannot be asked")]
    Client {
        /// The provider.
        provider: String,
        /// Why.
        source: ForeignSetupError,
    },
    /// The proxy of the environment.
    #[error(transparent)]
    Proxy(#[from] ProxyEnvironmentError),
}

/// All providers of a platform, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Providers {
    all: Vec<Provider>,
}

impl Providers {
    /// Reads secrets and authorities; nothing is asked yet.
    pub fn open(configs: &[OidcConfig]) -> Result<Self, OidcSetupError> {
        let proxy = if configs.is_empty() { None } else { Proxy::from_environment()? };
        let all = configs.iter().map(|config| Provider::open(config, proxy.as_ref()));
        Ok(Self { all: all.collect::<Result<_, _>>()? })
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.all.iter()
    }

    /// The one with this name.
    pub fn named(&self, name: &str) -> Option<&Provider> {
        self.all.iter().find(|provider| provider.config.name == name)
    }

    /// The one with this issuer.
    pub fn issuing(&self, issuer: &str) -> Option<&Provider> {
        self.all.iter().find(|provider| provider.config.issuer == issuer)
    }
}

impl Provider {
    fn open(config: &OidcConfig, proxy: Option<&Proxy>) -> Result<Self, OidcSetupError> {
        let provider = || config.name.clone();
        let secret = match &config.client_secret_file {
            None => None,
            Some(path) => {
                let text = secret_file::read(path)
                    .map_err(|source| OidcSetupError::Secret { provider: provider(), source })?;
                let text = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
                if text.is_empty() || text.contains('\n') {
                    return Err(OidcSetupError::Content(provider()));
                }
                Some(Hidden(text.to_owned()))
            }
        };
        let http = foreign_client(config.ca_file.as_deref(), proxy)
            .map_err(|source| OidcSetupError::Client { provider: provider(), source })?;
        Ok(Self { config: config.clone(), secret, fetcher: Fetcher::new(http, PLACES), known: Mutex::default() })
    }
}
