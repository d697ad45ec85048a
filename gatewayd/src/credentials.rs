//! TLS of the tunnel: both ends show their gateway key as a raw public key (RFC 7250) and pin the other's.
//!
//! No certificate is parsed, no CA or name is involved: the key in the handshake either is the one the signed policy
//! names, or the handshake fails. The only key exchange offered is X25519MLKEM768, so every tunnel is post-quantum by
//! construction (docs/adr/0003).

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use gateway_proto::{
    identity::{GatewayKey, GatewayPublicKey},
    stream,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

/// The name of the key exchange of every tunnel.
pub const KEY_EXCHANGE: &str = "X25519MLKEM768";

/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 §4) up to the key itself.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why the tunnel's TLS could not be set up: our own key or build, never a peer.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The gateway key was refused by the TLS library.
    #[error("the gateway key cannot be used for TLS")]
    Key(#[source] Error),
    /// TLS 1.3 with a QUIC suite is not available.
    #[error("the TLS library offers no QUIC cipher suite")]
    NoSuite,
}

/// The keys of the peers that may open a tunnel to us now; changed with the policy.
#[derive(Debug, Clone, Default)]
pub struct AllowedPeers(Arc<RwLock<Vec<GatewayPublicKey>>>);

impl AllowedPeers {
    /// Replaces the set.
    pub fn replace(&self, mut keys: Vec<GatewayPublicKey>) {
        keys.sort_unstable();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn contains(&self, key: &GatewayPublicKey) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).binary_search(key).is_ok()
    }
}

/// Makes the TLS configurations of the tunnel.
pub struct Credentials {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(masked)")
    }
}

impl Credentials {
    /// From the gateway's key.
    pub fn new(key: &GatewayKey) -> Result<Self, CredentialsError> {
        let provider =
            CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() };
        let pkcs8 = key.pkcs8_der();
        let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))
            .map_err(CredentialsError::Key)?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki(&key.public()))], signer);
        Ok(Self { provider: Arc::new(provider), certified: Arc::new(certified) })
    }

    /// For tunnels that peers dial.
    pub fn server(&self, allowed: AllowedPeers) -> Result<QuicServerConfig, CredentialsError> {
        let verifier = PeerVerifier { algorithms: self.algorithms(), expected: Expected::AnyOf(allowed) };
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(CredentialsError::Key)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified.clone())));
        config.alpn_protocols = vec![stream::ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.try_into().map_err(|_| CredentialsError::NoSuite)
    }

    /// For a tunnel to one peer.
    pub fn client(&self, peer: GatewayPublicKey) -> Result<QuicClientConfig, CredentialsError> {
        let verifier = PeerVerifier { algorithms: self.algorithms(), expected: Expected::Exactly(peer) };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(CredentialsError::Key)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.certified.clone())));
        config.alpn_protocols = vec![stream::ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = rustls::client::Resumption::disabled();
        config.try_into().map_err(|_| CredentialsError::NoSuite)
    }

    fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }
}

/// The gateway key a peer proved in the handshake of `connection`.
pub fn proved_key(connection: &quinn::Connection) -> Option<GatewayPublicKey> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_of(identity.first()?)
}

fn spki(key: &GatewayPublicKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], key.as_bytes()].concat()
}

fn key_of(spki: &[u8]) -> Option<GatewayPublicKey> {
    let bytes: [u8; 32] = spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    GatewayPublicKey::from_bytes(bytes).ok()
}

#[derive(Debug)]
enum Expected {
    Exactly(GatewayPublicKey),
    AnyOf(AllowedPeers),
}

#[derive(Debug)]
struct PeerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    expected: Expected,
}

impl PeerVerifier {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let key = key_of(shown).ok_or(Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        let expected = match &self.expected {
            Expected::Exactly(peer) => *peer == key,
            Expected::AnyOf(allowed) => allowed.contains(&key),
        };
        if expected {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

const TLS12_IS_OFF: Error = Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic);

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_IS_OFF)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_IS_OFF)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
