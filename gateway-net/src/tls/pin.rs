//! Public-key pins: SHA-256 of the SubjectPublicKeyInfo, checked in place of a certificate chain.

use std::{error::Error as StdError, fmt, io, str::FromStr, sync::Arc};

use data_encoding::HEXLOWER;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, InvalidMessage, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of a server's SubjectPublicKeyInfo; text form 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsPin([u8; 32]);

/// Why a text is no pin, or a certificate has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not 64 lower-case hex digits.
    #[error("a TLS pin is 64 lower-case hex digits: the SHA-256 of the server's public key")]
    Format,
    /// The bytes are no X.509 certificate.
    #[error("the certificate does not parse as X.509 version 3")]
    Certificate,
}

/// The server showed another key than the pinned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's TLS key is not the pinned one: TLS interception or a changed key (pinned {expected}, presented \
     {presented}). If a proxy inspects TLS on the way, exempt this host from it; if the server got a new key, enrol \
     again or update the pin"
)]
pub struct PinMismatch {
    /// The fingerprint we hold.
    pub expected: TlsPin,
    /// The fingerprint of the key shown.
    pub presented: TlsPin,
}

impl TlsPin {
    /// From the 32 bytes of the digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsPin({self})")
    }
}

impl FromStr for TlsPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| PinError::Format)?;
        bytes.try_into().map(Self).map_err(|_| PinError::Format)
    }
}

/// The pin of a certificate.
pub fn spki_pin(certificate: &CertificateDer<'_>) -> Result<TlsPin, PinError> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|_| PinError::Certificate)?;
    Ok(TlsPin(Sha256::digest(parsed.subject_public_key_info()).into()))
}

/// The pin of whatever certificate a server shows, also of version 1, which some devices that take TLS apart make: to name it. No
/// handshake succeeds with such a one, because no signature under it is accepted.
pub(crate) fn shown_pin(certificate: &CertificateDer<'_>) -> Result<TlsPin, PinError> {
    spki_pin(certificate).or_else(|_| {
        let (_, old) = X509Certificate::from_der(certificate).map_err(|_| PinError::Certificate)?;
        Ok(TlsPin(Sha256::digest(old.tbs_certificate.subject_pki.raw).into()))
    })
}

impl PinMismatch {
    /// Looks for a mismatch in an error and its sources, as it comes out of rustls, tokio, reqwest or this crate.
    pub fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        for error in causes(error) {
            if let Some(mismatch) = error.downcast_ref::<Self>() {
                return Some(mismatch);
            }
            if let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) = error.downcast_ref()
                && let Some(mismatch) = inner.downcast_ref::<Self>()
            {
                return Some(mismatch);
            }
        }
        None
    }
}

/// Whether the handshake ended because nobody vouches for the server's certificate. Such a server is known by its pin, or not
/// at all.
pub fn is_unknown_certificate(error: &(dyn StdError + 'static)) -> bool {
    let refused = |error: &(dyn StdError + 'static)| matches!(error.downcast_ref(), Some(Error::InvalidCertificate(_)));
    PinMismatch::find_in(error).is_none() && causes(error).any(refused)
}

/// Whether what answered speaks no TLS, for example plain HTTP on the port that an `https` URL names.
pub fn speaks_no_tls(error: &(dyn StdError + 'static)) -> bool {
    let is_other = |error: &(dyn StdError + 'static)| {
        matches!(error.downcast_ref(), Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)))
    };
    causes(error).any(is_other)
}

/// An error and what is behind it, as it comes out of rustls, tokio, reqwest or this crate.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        // The source of an io::Error is the source of its content: the content itself must be asked for.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
        Some(error)
    })
}

/// Accepts the one server key with the pin, if it signs the handshake; without a pin, any key that does.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pin: Option<TlsPin>,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    pub(crate) fn new(pin: Option<TlsPin>, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(pin) = self.pin else { return Ok(ServerCertVerified::assertion()) };
        let presented = shown_pin(end_entity).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if presented.0.ct_eq(&pin.0).into() {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = PinMismatch { expected: pin, presented };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_round_trips_through_its_text_and_nothing_else_parses() {
        let pin = TlsPin::from_bytes([0xab; 32]);
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for text in ["", "ab", &"AB".repeat(32), &"ab".repeat(33), &"zz".repeat(32)] {
            assert_eq!(text.parse::<TlsPin>(), Err(PinError::Format), "{text}");
        }
    }

    #[test]
    fn a_mismatch_is_found_through_io_errors() {
        let mismatch = PinMismatch { expected: TlsPin([1; 32]), presented: TlsPin([2; 32]) };
        let tls = Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))));
        let nested = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert_eq!(PinMismatch::find_in(&nested), Some(&mismatch));
        assert_eq!(PinMismatch::find_in(&io::Error::other("else")), None);
    }

    #[test]
    fn a_certificate_that_nobody_vouches_for_is_told_from_another_pin() {
        let refused = |error: CertificateError| io::Error::other(Error::InvalidCertificate(error));
        assert!(is_unknown_certificate(&refused(CertificateError::UnknownIssuer)));
        let mismatch = PinMismatch { expected: TlsPin([1; 32]), presented: TlsPin([2; 32]) };
        assert!(!is_unknown_certificate(&refused(CertificateError::Other(OtherError(Arc::new(mismatch))))));
        assert!(!is_unknown_certificate(&io::Error::other("else")));
    }

    #[test]
    fn garbage_has_no_pin() {
        assert_eq!(spki_pin(&CertificateDer::from(vec![0x30, 0x82])), Err(PinError::Certificate));
    }

    #[test]
    fn the_pin_is_the_digest_of_the_whole_subject_public_key_info() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        use rcgen::PublicKeyData as _;
        let expected = TlsPin(Sha256::digest(key.subject_public_key_info()).into());
        assert_eq!(spki_pin(certificate.der()), Ok(expected));
    }
}
