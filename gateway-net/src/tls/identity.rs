//! The certificate and key a server shows: the operator's files, or a self-signed pair kept in the data directory.
//!
//! The key is what clients pin, so it is kept for as long as its file exists: if only the certificate is lost, a new one
//! is made from the same key and every pin stays valid.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::{PinError, TlsPin, provider, spki_pin};
use crate::secret_file::{self, SecretFileError};

/// A server's certificate chain and private key, checked to fit together.
#[derive(Clone)]
pub struct ServerIdentity {
    certified: Arc<CertifiedKey>,
    pin: TlsPin,
}

/// Why a server identity is not usable.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file.
    #[error(transparent)]
    KeyFile(#[from] SecretFileError),
    /// The certificate file could not be read.
    #[error("cannot read the certificate {}", path.display())]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM of the kind expected.
    #[error("{} holds no usable PEM {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What the parser said.
        source: pem::Error,
    },
    /// The certificate is unusable.
    #[error("{} holds no usable certificate", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PinError,
    },
    /// The key cannot be used, or is not the one of the certificate.
    #[error("the key {} and the certificate {} do not make a usable pair", key.display(), certificate.display())]
    Pair {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What TLS said.
        source: rustls::Error,
    },
    /// A self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate")]
    Generate(#[source] rcgen::Error),
}

/// File name of a generated certificate in the data directory.
const CERTIFICATE_FILE: &str = "tls-certificate.pem";
/// File name of a generated key in the data directory.
const KEY_FILE: &str = "tls-key.pem";

impl ServerIdentity {
    /// Loads the operator's files (PEM; the chain starts with the server's own certificate).
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let text = std::fs::read(certificate)
            .map_err(|source| IdentityError::CertificateFile { path: certificate.to_owned(), source })?;
        let pem_error = |path: &Path, what| {
            let path = path.to_owned();
            move |source| IdentityError::Pem { path, what, source }
        };
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(pem_error(certificate, "certificate"))?;
        let Some(leaf) = chain.first() else {
            return Err(pem_error(certificate, "certificate")(pem::Error::NoItemsFound));
        };
        let pin =
            spki_pin(leaf).map_err(|source| IdentityError::Certificate { path: certificate.to_owned(), source })?;
        let secret = secret_file::read(key)?;
        let private = PrivateKeyDer::from_pem_slice(&secret).map_err(pem_error(key, "private key"))?;
        let certified = CertifiedKey::from_der(chain, private, &provider()).map_err(|source| IdentityError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
        Ok(Self { certified: Arc::new(certified), pin })
    }

    /// Loads the pair kept in `data_dir`, or makes it. `names` are the DNS names and IP addresses in a new certificate.
    pub fn load_or_generate(data_dir: &Path, names: &[String]) -> Result<Self, IdentityError> {
        let certificate_path = data_dir.join(CERTIFICATE_FILE);
        let key_path = data_dir.join(KEY_FILE);
        let key = match secret_file::read(&key_path) {
            Ok(text) => {
                if certificate_path.exists() {
                    return Self::load(&certificate_path, &key_path);
                }
                let text = String::from_utf8_lossy(&text);
                rcgen::KeyPair::from_pem(&text).map_err(IdentityError::Generate)?
            }
            Err(SecretFileError::Missing { .. }) => {
                let key = rcgen::KeyPair::generate().map_err(IdentityError::Generate)?;
                secret_file::write(&key_path, zeroize::Zeroizing::new(key.serialize_pem()).as_bytes())?;
                key
            }
            Err(error) => return Err(error.into()),
        };
        let mut parameters = rcgen::CertificateParams::new(names).map_err(IdentityError::Generate)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "gateway");
        let certificate = parameters.self_signed(&key).map_err(IdentityError::Generate)?;
        secret_file::write_public(&certificate_path, certificate.pem().as_bytes())?;
        Self::load(&certificate_path, &key_path)
    }

    /// Loads a certificate for the key that is kept in `data_dir`.
    pub fn load_for_key_in(data_dir: &Path, certificate: &Path) -> Result<Self, IdentityError> {
        Self::load(certificate, &data_dir.join(KEY_FILE))
    }

    /// The fingerprint clients pin.
    pub fn pin(&self) -> TlsPin {
        self.pin
    }

    /// The certificates shown, the server's own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// The key kept in `data_dir`.
pub(super) fn key_in(data_dir: &Path) -> Result<rcgen::KeyPair, IdentityError> {
    let text = secret_file::read(&data_dir.join(KEY_FILE))?;
    rcgen::KeyPair::from_pem(&String::from_utf8_lossy(&text)).map_err(IdentityError::Generate)
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_pin_stays_as_long_as_the_key_does() {
        let directory = tempfile::tempdir().unwrap();
        let first = ServerIdentity::load_or_generate(directory.path(), &["localhost".to_owned()]).unwrap();
        let second = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        assert_eq!(first.chain(), second.chain(), "the certificate is kept too");
        fs::remove_file(directory.path().join(CERTIFICATE_FILE)).unwrap();
        let third = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        assert_eq!(first.pin(), third.pin());
        let mode = fs::metadata(directory.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_name() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        ServerIdentity::load_or_generate(one.path(), &[]).unwrap();
        ServerIdentity::load_or_generate(two.path(), &[]).unwrap();
        let error = ServerIdentity::load(&one.path().join(CERTIFICATE_FILE), &two.path().join(KEY_FILE)).unwrap_err();
        assert!(matches!(error, IdentityError::Pair { .. }), "{error}");
    }

    #[test]
    fn a_readable_key_and_an_empty_certificate_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        let (certificate, key) = (directory.path().join(CERTIFICATE_FILE), directory.path().join(KEY_FILE));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ServerIdentity::load(&certificate, &key), Err(IdentityError::KeyFile(_))));
        fs::write(&certificate, "").unwrap();
        assert!(matches!(ServerIdentity::load(&certificate, &key), Err(IdentityError::Pem { .. })));
    }
}
