//! The HTTP proxy on the way out: where it is, who we are to it, and which hosts it is not asked for.
//!
//! Connections go through it with `CONNECT`, so it sees a host name and a port, and TLS runs inside, end to end. Nothing here is
//! picked up behind the caller's back: whoever connects hands in the [`Proxy`] or none. Loopback never goes through one.
//!
//! Invariants: the user and password are kept only in the form that is sent, are wiped from memory when the last copy goes, and
//! appear in no text of this module: `Display` is the host and port, `Debug` says "masked".

mod choice;
mod connect;
mod exempt;

use std::{fmt, str::FromStr};

pub use choice::{PROXY_ACCEPTED, PROXY_FILE_ACCEPTED, ProxyChoice, ProxyConfig, ProxyConfigError};
pub use connect::ProxyError;
use data_encoding::BASE64;
pub use exempt::Exemptions;
use reqwest::header::HeaderValue;
use url::{Host, Url};
use zeroize::Zeroizing;

/// An HTTP proxy that understands `CONNECT`. Text form: `http://[user:password@]host:port`, special characters of user and password
/// percent-encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: Host,
    port: u16,
    /// What `Proxy-Authorization` says.
    authorization: Option<Zeroizing<String>>,
    exemptions: Exemptions,
}

/// Why a text names no usable proxy. Never repeats the text: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFormatError {
    /// SOCKS, or TLS to the proxy itself.
    #[error("only HTTP proxies are supported: write http://host:port")]
    Scheme,
    /// Not a host, or more than a host and a port.
    #[error("the address of a proxy is http://host:port, with nothing behind it")]
    Address,
    /// The customs differ (80, 1080, 3128, 8080), so it must be said.
    #[error("the port of the proxy is missing: write http://host:port")]
    Port,
    /// User or password cannot be sent.
    #[error(
        "the user and password of the proxy are not usable: write user:password, special characters as % and two hex \
         digits (%40 for @), no colon in the user, no control characters"
    )]
    Credentials,
}

/// A variable of the environment names no usable proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {variable} names no usable proxy")]
pub struct ProxyEnvironmentError {
    /// The variable.
    pub variable: &'static str,
    /// Why not.
    pub source: ProxyFormatError,
}

impl Proxy {
    /// The proxy that `HTTPS_PROXY` or `https_proxy` names, with the exemptions of `NO_PROXY` or `no_proxy`.
    pub fn from_environment() -> Result<Option<Self>, ProxyEnvironmentError> {
        Self::from_variables(environment)
    }

    fn from_variables(lookup: impl Fn(&'static str) -> Option<String>) -> Result<Option<Self>, ProxyEnvironmentError> {
        let set = |variable| lookup(variable).filter(|value| !value.trim().is_empty()).map(|value| (variable, value));
        let Some((variable, value)) = set("HTTPS_PROXY").or_else(|| set("https_proxy")) else { return Ok(None) };
        let value = Zeroizing::new(value);
        // Other programs accept a bare host:port in these variables.
        let parsed = match value.contains("://") {
            true => value.parse::<Self>(),
            false => Zeroizing::new(format!("http://{}", value.trim())).parse(),
        };
        let proxy = parsed.map_err(|source| ProxyEnvironmentError { variable, source })?;
        Ok(Some(proxy.exempting(Exemptions::from_variables(lookup))))
    }

    /// The same proxy, not asked for these hosts.
    #[must_use]
    pub fn exempting(self, exemptions: Exemptions) -> Self {
        Self { exemptions, ..self }
    }

    /// Whether a connection to `target` goes through the proxy: not to loopback, and not where exempted.
    pub fn covers(&self, target: &Host<&str>) -> bool {
        !exempt::is_loopback(target) && !self.exemptions.contain(target)
    }

    /// The same for the host of a URL; one without a host goes nowhere.
    pub fn covers_url(&self, url: &Url) -> bool {
        url.host().is_some_and(|host| self.covers(&host))
    }

    /// Whether a user and password are sent.
    pub fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    /// The same proxy for reqwest, with our rule of which hosts go through it.
    pub(crate) fn for_reqwest(&self) -> reqwest::Proxy {
        let (exempt, address) = (self.clone(), format!("http://{self}"));
        let proxy = reqwest::Proxy::custom(move |url| exempt.covers_url(url).then(|| address.clone()));
        let Some(authorization) = &self.authorization else { return proxy };
        let mut value = HeaderValue::from_str(authorization).expect("invariant: base64 is a header value");
        value.set_sensitive(true);
        proxy.custom_http_auth(value)
    }
}

impl FromStr for Proxy {
    type Err = ProxyFormatError;

    fn from_str(text: &str) -> Result<Self, ProxyFormatError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(ProxyFormatError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(ProxyFormatError::Scheme);
        }
        // By hand up to the host, so that no copy of the password stays behind in a parser.
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, rest),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let url = Url::parse(&format!("http://{address}/")).map_err(|_| ProxyFormatError::Address)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyFormatError::Address);
        }
        let host = url.host().ok_or(ProxyFormatError::Address)?.to_owned();
        // The parser drops a port that is the default of the scheme.
        let port = url.port().or_else(|| address.ends_with(":80").then_some(80)).ok_or(ProxyFormatError::Port)?;
        if port == 0 {
            return Err(ProxyFormatError::Port);
        }
        let authorization = credentials.map(authorization).transpose()?;
        Ok(Self { host, port, authorization, exemptions: Exemptions::default() })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &format_args!("{self}"))
            .field("credentials", &self.authorization.as_ref().map(|_| format_args!("masked")))
            .field("exemptions", &self.exemptions)
            .finish()
    }
}

/// A variable of the environment; text that is not Unicode becomes one that no parser accepts.
fn environment(variable: &'static str) -> Option<String> {
    std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
}

/// The value of `Proxy-Authorization` for `user:password` as written in a URL (RFC 7617).
fn authorization(credentials: &str) -> Result<Zeroizing<String>, ProxyFormatError> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (user, password) = (percent_decode(user)?, percent_decode(password)?);
    if user.is_empty() || user.contains(&b':') {
        return Err(ProxyFormatError::Credentials);
    }
    let pair = Zeroizing::new([&user[..], b":", &password[..]].concat());
    let encoded = Zeroizing::new(BASE64.encode(&pair));
    Ok(Zeroizing::new(format!("Basic {}", *encoded)))
}

fn percent_decode(text: &str) -> Result<Zeroizing<Vec<u8>>, ProxyFormatError> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    // Enough room from the start: a growing buffer would leave copies behind.
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return Err(ProxyFormatError::Credentials),
            },
            byte => byte,
        };
        if byte.is_ascii_control() {
            return Err(ProxyFormatError::Credentials);
        }
        decoded.push(byte);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
