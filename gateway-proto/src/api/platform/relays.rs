//! The relay map.

use serde::{Deserialize, Serialize};

use crate::id::RelayId;

api_types! {
    /// A relay of the relay map.
    Relay {
        /// Id.
        id: RelayId,
        /// Name.
        name: String,
        /// `wss://host:port/relay`.
        url: String,
        /// SHA-256 of its TLS public key, hex.
        tls_pin: Option<String>,
        /// STUN listeners, `host:port`.
        stun: Vec<String>,
        /// Where it stands, in the operator's words; relays of one region may fail together.
        #[serde(default)]
        region: Option<String>,
    }
    /// A new relay of the map.
    #[serde(deny_unknown_fields)]
    CreateRelay {
        /// The id the relay printed at its start.
        id: RelayId,
        /// Name.
        name: String,
        /// `wss://host:port/relay`.
        url: String,
        /// SHA-256 of its TLS public key, hex; left out: the web PKI vouches for it.
        #[serde(default)]
        tls_pin: Option<String>,
        /// STUN listeners, `host:port`, up to 4.
        #[serde(default)]
        stun: Vec<String>,
        /// Where it stands: 1–40 of a-z, 0-9 and '-'.
        #[serde(default)]
        region: Option<String>,
    }
    /// A change of a relay of the map; what is left out stays.
    #[serde(deny_unknown_fields)]
    UpdateRelay {
        /// Name.
        #[serde(default)]
        name: Option<String>,
        /// `wss://host:port/relay`; gateways that are attached stay until they are admitted there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// SHA-256 of its TLS public key, hex; empty: the web PKI vouches for it. Connections that stand go on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls_pin: Option<String>,
        /// STUN listeners, `host:port`, up to 4: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stun: Option<Vec<String>>,
        /// Where it stands; empty: not said.
        #[serde(default)]
        region: Option<String>,
    }
}
