//! The TLS servers that a gateway needs, and what came of a connection to each.

use serde::{Deserialize, Serialize};

/// A TLS server that the gateway needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostCheck {
    /// What it is for.
    pub role: HostRole,
    /// `host:port`.
    pub host: String,
    /// Whether the way there is through the HTTP proxy, which then resolves the name.
    #[serde(default)]
    pub proxied: bool,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: HostOutcome,
}

/// What a TLS server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostRole {
    /// The control plane.
    Control,
    /// A relay.
    Relay,
}

/// What came of a connection to a TLS server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum HostOutcome {
    /// It answered and proved its key.
    Reached {
        /// From the TCP connect to the answer, milliseconds.
        connect_ms: f64,
    },
    /// It answered, and nothing says whether it is the one to expect: its key is not known, and its certificate is neither
    /// from a public authority nor one that our programs make.
    Unproven {
        /// From the TCP connect to the answer, milliseconds.
        connect_ms: f64,
        /// Who issued the certificate; none: it says nothing readable.
        issuer: Option<String>,
        /// Fingerprint of the key that was shown.
        shown: String,
    },
    /// Somebody else answered: the key is not the pinned one.
    Intercepted {
        /// Who issued the certificate that was shown; none: it says nothing readable.
        issuer: Option<String>,
        /// Fingerprint of the key that was shown.
        shown: String,
        /// Fingerprint that was expected.
        pinned: String,
    },
    /// Something answered that does not speak the protocol: a captive portal, or a device that takes TLS apart.
    Foreign {
        /// What happened.
        problem: String,
    },
    /// The HTTP proxy did not let us through.
    Proxy {
        /// What it said.
        problem: String,
        /// What that means.
        #[serde(default)]
        refusal: ProxyRefusal,
    },
    /// The HTTP proxy does not accept our user and password.
    ProxyLogin {
        /// What it said.
        problem: String,
    },
    /// The HTTP proxy is not reached, or does not answer.
    ProxySilent {
        /// What happened.
        problem: String,
    },
    /// A TCP connection was made, and nothing came of TLS over it.
    TlsSilent {
        /// What happened.
        problem: String,
    },
    /// A TCP connection was made, and cut off as soon as TLS began.
    TlsCutOff {
        /// What happened.
        problem: String,
    },
    /// The name does not resolve, or no name server answers.
    Unresolved {
        /// What the resolver said.
        problem: String,
    },
    /// No connection.
    Unreachable {
        /// What happened.
        problem: String,
    },
}

impl HostOutcome {
    /// Whether the gateway gets to the server.
    pub fn is_reached(&self) -> bool {
        self.connect_ms().is_some()
    }

    /// How long that took, milliseconds; none: it does not get there.
    pub fn connect_ms(&self) -> Option<f64> {
        if let Self::Reached { connect_ms } | Self::Unproven { connect_ms, .. } = self {
            Some(*connect_ms)
        } else {
            None
        }
    }
}

/// Why an HTTP proxy does not let us through to a server: each asks for another sentence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyRefusal {
    /// The server is not allowed; also what gives no other reason.
    #[default]
    NotAllowed,
    /// It was asked too often.
    TooOften,
    /// It does not reach the server itself.
    NotReached,
    /// It leads to a login page.
    LoginPage,
    /// None of the ways to log in that it offers is ours.
    LoginScheme,
    /// It breaks the connection off instead of answering.
    BrokenOff,
    /// What answers is not an HTTP proxy.
    NotAProxy,
}

impl ProxyRefusal {
    /// What a status other than 2xx, 401 and 407 means.
    pub fn of_status(status: u16) -> Self {
        match status {
            429 => Self::TooOften,
            500 | 502..=504 => Self::NotReached,
            300..=399 => Self::LoginPage,
            _ => Self::NotAllowed,
        }
    }
}
