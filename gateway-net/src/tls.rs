//! TLS 1.3 for every HTTP and WebSocket connection of the product.
//!
//! - One crypto provider (aws-lc-rs), always passed explicitly: nothing depends on a process-wide default.
//! - A server is known by its certificate's public key ([`TlsPin`]) or by the public web PKI, never by "whatever it shows".
//! - A pin looks at the key alone. Names and dates are not read: a wrong clock or a moved host does not cut a gateway off, and the key
//!   still has to sign the handshake.

mod acme;
mod authorities;
mod identity;
mod pin;

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

pub use acme::{
    AcmeCertificates, CertificateName, ChallengeError, acme_server_config, certificate_name, certificate_request,
    is_for, validity,
};
pub use authorities::{AuthoritiesError, foreign_client_config};
pub use identity::{IdentityError, ServerIdentity};
pub use pin::{PinError, PinMismatch, TlsPin, is_unknown_certificate, speaks_no_tls, spki_pin};
pub(crate) use pin::{PinVerifier, shown_pin};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;
use url::Host;

/// How a client knows that the server is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTrust {
    /// The server's public key has this fingerprint.
    Pin(TlsPin),
    /// The certificate is valid in the public web PKI for the name in the URL.
    WebPki,
}

/// ALPN of plain HTTP/1.1, which WebSocket upgrades need.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The crypto provider of the product: aws-lc-rs, X25519MLKEM768 preferred.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// TLS 1.3 with the server's identity. `alpn` in order of preference.
pub fn server_config(identity: &ServerIdentity, alpn: &[&[u8]]) -> ServerConfig {
    server(identity, &[&TLS13], alpn)
}

/// TLS 1.3 to a server trusted as told. `alpn` in order of preference.
pub fn client_config(trust: ServerTrust, alpn: &[&[u8]]) -> ClientConfig {
    match trust {
        ServerTrust::Pin(pin) => client(Arc::new(PinVerifier::new(Some(pin), provider())), &[&TLS13], alpn),
        ServerTrust::WebPki => client(web_pki(), &[&TLS13], alpn),
    }
}

/// TLS 1.3 or 1.2 to an integration engine on our own machine or network. Its certificate names no host and is issued by
/// itself, so it is known by its pin; without one, any key is accepted.
pub fn engine_client_config(pin: Option<TlsPin>) -> ClientConfig {
    client(Arc::new(PinVerifier::new(pin, provider())), &[&TLS13, &TLS12], &[])
}

/// TLS 1.3 or 1.2 with the server's identity, for local clients that are not ours, such as the engine's Administrator.
pub fn local_server_config(identity: &ServerIdentity) -> ServerConfig {
    server(identity, &[&TLS13, &TLS12], &[ALPN_HTTP1])
}

/// The public web PKI's verdict on a certificate.
pub(crate) fn web_pki() -> Arc<WebPkiServerVerifier> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .expect("invariant: there are roots, and no revocation list that could be malformed")
}

/// The name of a host for TLS; none: it cannot be one.
pub(crate) fn server_name(host: &Host<&str>) -> Option<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from((*name).to_owned()).ok(),
        Host::Ipv4(ip) => Some(IpAddr::from(*ip).into()),
        Host::Ipv6(ip) => Some(IpAddr::from(*ip).into()),
    }
}

/// A client that trusts whom `verifier` does.
pub(crate) fn client(
    verifier: Arc<dyn ServerCertVerifier>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("invariant: aws-lc-rs has the cipher suites of TLS 1.3 and 1.2")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

fn server(identity: &ServerIdentity, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("invariant: aws-lc-rs has the cipher suites of TLS 1.3 and 1.2")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn the_hybrid_post_quantum_group_is_offered_first() {
        let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768));
    }

    /// Runs a handshake in memory and returns the client's verdict.
    fn handshake(trust: ServerTrust, identity: &ServerIdentity) -> Result<(), rustls::Error> {
        let server = Arc::new(server_config(identity, &[ALPN_HTTP1]));
        let client = Arc::new(client_config(trust, &[ALPN_HTTP1]));
        let mut server = rustls::ServerConnection::new(server).unwrap();
        let mut client = rustls::ClientConnection::new(client, "relay.example".try_into().unwrap()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn the_pinned_key_is_accepted_whatever_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_generate(directory.path(), &["other.example".to_owned()]).unwrap();
        handshake(ServerTrust::Pin(identity.pin()), &identity).unwrap();
    }

    #[test]
    fn another_key_is_refused_and_the_error_names_both_fingerprints() {
        let directory = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        let expected = TlsPin::from_bytes([7; 32]);
        let error = handshake(ServerTrust::Pin(expected), &identity).unwrap_err();
        let mismatch = PinMismatch::find_in(&error).unwrap();
        assert_eq!(*mismatch, PinMismatch { expected, presented: identity.pin() });
        let text = mismatch.to_string();
        assert!(text.contains("TLS interception or a changed key"), "{text}");
        assert!(text.contains(&expected.to_string()) && text.contains(&identity.pin().to_string()), "{text}");
    }

    #[test]
    fn a_self_signed_certificate_is_nothing_to_the_web_pki() {
        let directory = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_generate(directory.path(), &["relay.example".to_owned()]).unwrap();
        assert!(handshake(ServerTrust::WebPki, &identity).is_err());
    }
}
