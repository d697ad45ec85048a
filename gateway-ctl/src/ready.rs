//! The ready files that gateway-control and gateway-relay write when they serve: one JSON object with what a client has to know.
//! Fields we do not need are ignored: those files belong to the servers.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use gateway_net::tls::TlsPin;
use gateway_proto::id::RelayId;
use serde::{Deserialize, de::DeserializeOwned};

use crate::profile::{Target, TargetError};

/// Ready files are a few hundred bytes.
const MAX_LEN: u64 = 64 << 10;

/// Why a ready file does not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadyError {
    /// It could not be read.
    #[error("cannot read the ready file {}: is the server up?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is none.
    #[error("{} is not a ready file of {program}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Whose it should be.
        program: &'static str,
        /// Where it departs from the form.
        source: serde_json::Error,
    },
    /// The server is not ready.
    #[error("{} does not say that the server is ready", path.display())]
    NotReady {
        /// The file.
        path: PathBuf,
    },
    /// The URL in it.
    #[error("{} holds an unusable URL", path.display())]
    Url {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TargetError,
    },
}

#[derive(Debug, Deserialize)]
struct ControlReady {
    event: String,
    url: String,
    tls_pin: Option<String>,
}

/// What a relay tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RelayReady {
    event: String,
    /// Its WebSocket listener.
    pub(crate) listen: SocketAddr,
    /// Its STUN listeners.
    pub(crate) stun: Vec<SocketAddr>,
    /// SHA-256 of its TLS public key.
    pub(crate) tls_pin: Option<String>,
    /// The id it made for itself.
    pub(crate) relay_id: RelayId,
}

/// The control plane a ready file of gateway-control speaks of.
pub(crate) fn control(path: &Path) -> Result<Target, ReadyError> {
    let ready: ControlReady = read(path, "gateway-control")?;
    check(path, &ready.event)?;
    let pin = ready.tls_pin.as_deref().map(str::parse::<TlsPin>).transpose();
    let pin = pin.map_err(|error| ReadyError::Content {
        path: path.to_owned(),
        program: "gateway-control",
        source: serde::de::Error::custom(error),
    })?;
    let target = ready.url.parse().map_err(|_| TargetError).and_then(|url| Target::new(url, pin));
    target.map_err(|source| ReadyError::Url { path: path.to_owned(), source })
}

/// The relay a ready file of gateway-relay speaks of.
pub(crate) fn relay(path: &Path) -> Result<RelayReady, ReadyError> {
    let ready: RelayReady = read(path, "gateway-relay")?;
    check(path, &ready.event)?;
    Ok(ready)
}

fn check(path: &Path, event: &str) -> Result<(), ReadyError> {
    if event == "ready" { Ok(()) } else { Err(ReadyError::NotReady { path: path.to_owned() }) }
}

fn read<T: DeserializeOwned>(path: &Path, program: &'static str) -> Result<T, ReadyError> {
    use std::io::Read;
    let mut content = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_LEN).read_to_end(&mut content))
        .map_err(|source| ReadyError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&content).map_err(|source| ReadyError::Content { path: path.to_owned(), program, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        std::fs::write(&path, content).unwrap();
        (directory, path)
    }

    #[test]
    fn a_control_plane_is_known_from_its_ready_file() {
        let pin = "cd".repeat(32);
        let (_directory, path) =
            file(&format!(r#"{{"event":"ready","url":"https://127.0.0.1:7001","tls_pin":"{pin}","more":1}}"#));
        let target = control(&path).unwrap();
        assert_eq!(target.url.as_str(), "https://127.0.0.1:7001/");
        assert_eq!(target.pin.unwrap().to_string(), pin);
    }

    #[test]
    fn a_file_that_is_not_ready_or_not_a_ready_file_is_refused_by_name() {
        for content in [
            r#"{"event":"stopping","url":"https://a.example","tls_pin":null}"#,
            "{}",
            "nonsense",
            r#"{"event":"ready","url":"http://a.example","tls_pin":null}"#,
            r#"{"event":"ready","url":"https://a.example","tls_pin":"xy"}"#,
        ] {
            let (_directory, path) = file(content);
            let error = control(&path).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        assert!(matches!(relay(Path::new("/nonexistent/ready.json")), Err(ReadyError::Read { .. })));
    }
}
