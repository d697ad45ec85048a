//! What the relay tells about itself: to whoever started it, and to the operator who enters it into the relay map.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use gateway_net::{
    secret_file::{self, SecretFileError},
    time,
    tls::{IdentityError, ServerIdentity, TlsPin},
};
use gateway_proto::id::RelayId;
use serde::Serialize;

use crate::{
    acme,
    config::{Config, TlsSource},
};

/// The relay is up; one line of JSON on standard output and in `ready.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    event: &'static str,
    /// Where the relay listens for TLS.
    pub listen: SocketAddr,
    /// Where STUN is answered.
    pub stun: [SocketAddr; 2],
    /// Where datagrams are relayed over UDP, if they are.
    pub udp: Option<SocketAddr>,
    /// Where metrics and health are served.
    pub metrics: SocketAddr,
    /// Fingerprint of the relay's TLS key.
    #[serde(serialize_with = "as_text")]
    pub tls_pin: TlsPin,
    /// The relay's id.
    pub relay_id: RelayId,
}

impl Ready {
    pub(crate) fn new(
        listen: SocketAddr,
        stun: [SocketAddr; 2],
        udp: Option<SocketAddr>,
        metrics: SocketAddr,
        identity: &Identity,
    ) -> Self {
        let (tls_pin, relay_id) = (identity.tls.pin(), identity.relay_id);
        Self { event: "ready", listen, stun, udp, metrics, tls_pin, relay_id }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("invariant: addresses and texts have a JSON form")
    }

    pub(crate) fn write(&self, data_dir: &Path) -> Result<(), SecretFileError> {
        secret_file::write_public(&data_dir.join("ready.json"), format!("{}\n", self.to_json()).as_bytes())
    }
}

/// Who this relay is: its id and its TLS key, made on first use.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) relay_id: RelayId,
    pub(crate) tls: ServerIdentity,
}

/// Why the relay has no identity.
#[derive(Debug, thiserror::Error)]
pub enum RelayIdentityError {
    /// The data directory cannot be made.
    #[error("cannot make the data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS key or certificate.
    #[error(transparent)]
    Tls(#[from] IdentityError),
    /// The file with the id.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file with the id holds something else.
    #[error("{} does not hold a relay id: restore it, or remove it and enter the new id into the relay map", path.display())]
    Id {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    pub(crate) fn load_or_create(config: &Config) -> Result<Self, RelayIdentityError> {
        let path = &config.data_dir;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| RelayIdentityError::DataDir { path: path.clone(), source })?;
        let tls = match &config.tls {
            TlsSource::Files { certificate, key } => ServerIdentity::load(certificate, key)?,
            TlsSource::Generated { names } => ServerIdentity::load_or_generate(path, names)?,
            TlsSource::Acme(acme) => acme::identity(path, &acme.domains)?,
        };
        let relay_id = match config.relay_id {
            Some(id) => id,
            None => kept_id(&path.join("relay-id"))?,
        };
        Ok(Self { relay_id, tls })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::json!({ "relay_id": self.relay_id, "tls_pin": self.tls.pin().to_string() }).to_string()
    }
}

fn kept_id(path: &Path) -> Result<RelayId, RelayIdentityError> {
    match secret_file::read(path) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            text.trim().parse().map_err(|_| RelayIdentityError::Id { path: path.to_owned() })
        }
        Err(SecretFileError::Missing { .. }) => {
            let id = RelayId::new(time::unix_ms(), gateway_net::random());
            secret_file::write(path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error.into()),
    }
}

fn as_text<S: serde::Serializer>(value: &TlsPin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
