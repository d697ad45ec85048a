//! Servers of others: web PKI, or the authorities of the operator's own network.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{
    CertificateDer,
    pem::{self, PemObject},
};

use super::{ALPN_HTTP1, client, provider, web_pki};

/// Why a file of authorities is not usable.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It could not be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no certificates.
    #[error("{} holds no usable PEM certificate", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: pem::Error,
    },
    /// A certificate in it is none of an authority.
    #[error("{} holds a certificate that cannot be an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

/// TLS 1.3 or 1.2 to a server that is not ours, known by name: to the public web PKI, or only to the authorities in a PEM file.
pub fn foreign_client_config(authorities: Option<&Path>) -> Result<ClientConfig, AuthoritiesError> {
    let verifier = match authorities {
        None => web_pki(),
        Some(path) => WebPkiServerVerifier::builder_with_provider(Arc::new(read(path)?), provider())
            .build()
            .expect("invariant: there are roots, and no revocation list that could be malformed"),
    };
    Ok(client(verifier, &[&TLS13, &TLS12], &[ALPN_HTTP1]))
}

fn read(path: &Path) -> Result<RootCertStore, AuthoritiesError> {
    let text = std::fs::read(path).map_err(|source| AuthoritiesError::Read { path: path.to_owned(), source })?;
    let pem = |source| AuthoritiesError::Pem { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = roots.add(certificate.map_err(pem)?);
        added.map_err(|source| AuthoritiesError::Authority { path: path.to_owned(), source })?;
    }
    if roots.is_empty() { Err(pem(pem::Error::NoItemsFound)) } else { Ok(roots) }
}
