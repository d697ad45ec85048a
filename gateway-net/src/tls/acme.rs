//! The server's side of ACME: a certificate that can be replaced, the challenges of TLS-ALPN-01 (RFC 8737) beside it, and
//! requests for certificates. The key stays the same over renewals, so pins of it stay valid.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{ALPN_HTTP1, IdentityError, ServerIdentity, identity::key_in, provider};

/// ALPN of TLS-ALPN-01.
const ALPN_ACME: &[u8] = b"acme-tls/1";

/// What a server shows: its identity, and to a certificate authority that asks for it, a challenge.
#[derive(Debug)]
pub struct AcmeCertificates {
    shown: Mutex<Arc<CertifiedKey>>,
    challenges: Mutex<BTreeMap<String, Arc<CertifiedKey>>>,
}

/// A challenge certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// The certificate.
    #[error("cannot make the challenge certificate")]
    Certificate(#[from] rcgen::Error),
    /// Its key.
    #[error("cannot use the key of the challenge certificate")]
    Key(#[from] rustls::Error),
}

impl AcmeCertificates {
    /// Shows this identity.
    pub fn new(identity: &ServerIdentity) -> Arc<Self> {
        Arc::new(Self { shown: Mutex::new(identity.certified_key()), challenges: Mutex::default() })
    }

    /// Shows another identity from now on; connections that are there notice nothing.
    pub fn replace(&self, identity: &ServerIdentity) {
        *lock(&self.shown) = identity.certified_key();
    }

    /// Answers the challenge for a domain: 32 bytes, the digest of its key authorization.
    pub fn answer(&self, domain: &str, digest: &[u8; 32]) -> Result<(), ChallengeError> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new([domain.to_owned()])?;
        parameters.custom_extensions.push(rcgen::CustomExtension::new_acme_identifier(digest));
        let certificate = parameters.self_signed(&key)?;
        let private =
            PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| rustls::Error::General(error.into()))?;
        // Not from_der: it reads the certificate, and knows nothing of the critical extension that makes it a challenge.
        let key = provider().key_provider.load_private_key(private)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
        lock(&self.challenges).insert(domain.to_ascii_lowercase(), Arc::new(certified));
        Ok(())
    }

    /// Answers no challenge any more.
    pub fn forget_challenges(&self) {
        lock(&self.challenges).clear();
    }
}

impl ResolvesServerCert for AcmeCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        if protocols.any(|protocol| protocol == ALPN_ACME) {
            let name = hello.server_name()?.to_ascii_lowercase();
            return lock(&self.challenges).get(&name).cloned();
        }
        Some(lock(&self.shown).clone())
    }
}

/// TLS 1.3 with what is shown at the moment; HTTP/1.1, and the challenges.
pub fn acme_server_config(certificates: Arc<AcmeCertificates>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("invariant: aws-lc-rs has the cipher suites of TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec(), ALPN_ACME.to_vec()];
    config
}

/// A request (PKCS #10, DER) for a certificate of these domains with the key that is kept in `data_dir`.
pub fn certificate_request(data_dir: &Path, domains: &[String]) -> Result<Vec<u8>, IdentityError> {
    let key = key_in(data_dir)?;
    let mut parameters = rcgen::CertificateParams::new(domains).map_err(IdentityError::Generate)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let request = parameters.serialize_request(&key).map_err(IdentityError::Generate)?;
    Ok(request.der().to_vec())
}

/// From when to when a certificate is valid; none: it cannot be read.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let at = |secs: i64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(secs).ok()?));
    let validity = parsed.validity();
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

/// Whether a certificate is for all these DNS names.
pub fn is_for(certificate: &CertificateDer<'_>, domains: &[String]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    let has = |domain: &String| {
        names
            .value
            .general_names
            .iter()
            .any(|name| matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(domain)))
    };
    domains.iter().all(has)
}

/// What names a certificate to the authority that issued it (RFC 9773 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateName {
    /// The key identifier of the authority.
    pub authority_key: Vec<u8>,
    /// The content of the serial number's DER, with the zero byte that keeps it positive.
    pub serial: Vec<u8>,
}

/// The name of a certificate; none: it does not say which key signed it, or cannot be read.
pub fn certificate_name(certificate: &CertificateDer<'_>) -> Option<CertificateName> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let authority_key = parsed.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(authority) = extension.parsed_extension() else { return None };
        Some(authority.key_identifier.as_ref()?.0.to_vec())
    })?;
    Some(CertificateName { authority_key, serial: parsed.tbs_certificate.raw_serial().to_vec() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_by_its_authoritys_key_and_its_serial_number() {
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![0xc0, 0xff, 0xee]);
        let authority = rcgen::Issuer::new(authority, rcgen::KeyPair::generate().unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["relay.example".to_owned()]).unwrap();
        parameters.serial_number = Some(rcgen::SerialNumber::from_slice(&[0xca, 0xfe]));
        let silent = parameters.signed_by(&key, &authority).unwrap();
        assert_eq!(certificate_name(silent.der()), None, "it does not say who signed it");
        parameters.use_authority_key_identifier_extension = true;
        let issued = parameters.signed_by(&key, &authority).unwrap();
        let expected = CertificateName { authority_key: vec![0xc0, 0xff, 0xee], serial: vec![0, 0xca, 0xfe] };
        assert_eq!(certificate_name(issued.der()), Some(expected));
    }
}
