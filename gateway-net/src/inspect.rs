//! A look at a TLS server, for diagnosis: whether it is reached, and whose certificate it shows.
//!
//! The handshake is made with whatever is shown, and in TLS 1.2 too, so that it can be named; then the connection is dropped. Nothing is ever
//! sent over it, and no secret is at hand here: the connections that carry something are made in [`crate::ws`] and
//! [`crate::http`], where a wrong certificate ends the handshake.

mod issuer;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use url::Host;

use crate::{
    dial::{self, DialError, Steps, Unresolved},
    proxy::{Proxy, ProxyError},
    tls::{self, ALPN_HTTP1, PinVerifier, ServerTrust, TlsPin, provider, server_name, shown_pin},
};

/// The step that packets which are too large for the way never survive.
const TLS_HANDSHAKE: &str = "TLS handshake";

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// From the first packet to the end of the handshake.
    pub connect: Duration,
    /// Whether the certificate is the one to expect.
    pub genuine: bool,
    /// Fingerprint of the key shown.
    pub shown: TlsPin,
    /// Who issued the certificate, if it says so readably. Whoever made it wrote this: show it as a claim.
    pub issuer: Option<String>,
}

/// Why nothing was seen.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The name has no address.
    #[error("the name does not resolve")]
    Resolve(#[source] io::Error),
    /// No address accepts a TCP connection.
    #[error("no TCP connection")]
    Connect(#[source] io::Error),
    /// There is no way through the proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// What answers does not speak TLS 1.3.
    #[error("no TLS 1.3")]
    Tls(#[source] io::Error),
    /// A certificate was shown, and no connection that a link could use comes of it: a device that takes TLS apart is like this.
    #[error("no TLS 1.3 with the key of the certificate that is shown{}", issued_by(issuer))]
    Shown {
        /// Fingerprint of the key shown.
        shown: TlsPin,
        /// Who issued the certificate, as in [`Sight`].
        issuer: Option<String>,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A TCP connection was made, and ended as soon as TLS began.
    #[error("the connection is cut off when TLS begins")]
    CutOff(#[source] io::Error),
    /// The time is up.
    #[error("no answer within {} s (last step: {step})", limit.as_secs())]
    Timeout {
        /// The limit.
        limit: Duration,
        /// What was under way.
        step: &'static str,
    },
    /// The time is up, and the proxy was the hop that did not answer.
    #[error("no answer within {} s (last step: {step})", limit.as_secs())]
    ProxyTimeout {
        /// The limit.
        limit: Duration,
        /// What was under way.
        step: &'static str,
    },
    /// The time is up: a TCP connection was made, and TLS over it comes to no end.
    #[error("no answer within {} s (last step: {})", limit.as_secs(), TLS_HANDSHAKE)]
    TlsTimeout {
        /// The limit.
        limit: Duration,
    },
}

/// Connects, looks and hangs up, within `limit`. Without `trust`, whatever is shown is genuine.
pub async fn inspect(
    host: &Host<&str>,
    port: u16,
    trust: Option<ServerTrust>,
    proxy: Option<&Proxy>,
    limit: Duration,
) -> Result<Sight, InspectError> {
    let mut step = Steps::DIRECT.resolve;
    let look = look(host, port, trust, proxy, &mut step);
    match tokio::time::timeout(limit, look).await {
        Ok(result) => result,
        Err(_) if step == TLS_HANDSHAKE => Err(InspectError::TlsTimeout { limit }),
        Err(_) if proxy.is_some_and(|proxy| proxy.covers(host)) => Err(InspectError::ProxyTimeout { limit, step }),
        Err(_) => Err(InspectError::Timeout { limit, step }),
    }
}

async fn look(
    host: &Host<&str>,
    port: u16,
    trust: Option<ServerTrust>,
    proxy: Option<&Proxy>,
    step: &mut &'static str,
) -> Result<Sight, InspectError> {
    let begun = Instant::now();
    let tcp = match proxy.filter(|proxy| proxy.covers(host)) {
        Some(proxy) => proxy.tunnel(host, port, step).await?,
        None => dial::dial(host, port, Unresolved::Fail, Steps::DIRECT, step).await.map_err(|error| match error {
            DialError::Resolve(source) => InspectError::Resolve(source),
            DialError::Connect(source) => InspectError::Connect(source),
        })?,
    };
    *step = TLS_HANDSHAKE;
    let name = server_name(host).ok_or_else(|| {
        InspectError::Resolve(io::Error::new(io::ErrorKind::InvalidInput, "the name cannot be that of a server"))
    })?;
    let recorder = Arc::new(Recorder { signatures: PinVerifier::new(None, provider()), chain: Mutex::default() });
    let config = tls::client(recorder.clone(), &[&TLS13, &TLS12], &[ALPN_HTTP1]);
    let connected = TlsConnector::from(Arc::new(config)).connect(name.clone(), tcp).await;
    let connect = begun.elapsed();
    let refused = match connected {
        Ok(stream) if stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) => None,
        Ok(_) => Some(io::Error::new(io::ErrorKind::InvalidData, "it speaks TLS 1.2 only")),
        Err(error) => Some(error),
    };
    let chain = std::mem::take(&mut *recorder.chain.lock().unwrap_or_else(PoisonError::into_inner));
    let unreadable = || InspectError::Tls(io::Error::new(io::ErrorKind::InvalidData, "an unreadable certificate"));
    let (own, others) = match (chain.split_first(), refused) {
        (Some(_), Some(source)) => return Err(named(&chain, source)),
        (Some(shown), None) => shown,
        (None, Some(source)) if is_cut_off(&source) => return Err(InspectError::CutOff(source)),
        (None, Some(source)) => return Err(InspectError::Tls(source)),
        (None, None) => return Err(unreadable()),
    };
    let shown = shown_pin(own).map_err(|_| unreadable())?;
    let genuine = match trust {
        None => true,
        Some(ServerTrust::Pin(pin)) => pin == shown,
        Some(ServerTrust::WebPki) => is_vouched_for(own, others, &name),
    };
    Ok(Sight { connect, genuine, shown, issuer: issuer::issuer(own) })
}

/// A handshake that failed after certificates were shown.
fn named(chain: &[CertificateDer<'_>], source: io::Error) -> InspectError {
    match chain.first().map(|own| (shown_pin(own), issuer::issuer(own))) {
        Some((Ok(shown), issuer)) => InspectError::Shown { shown, issuer, source },
        Some((Err(_), _)) | None => InspectError::Tls(source),
    }
}

fn is_cut_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}

fn issued_by(issuer: &Option<String>) -> String {
    issuer.as_ref().map(|issuer| format!(" (issued by '{issuer}')")).unwrap_or_default()
}

fn is_vouched_for(own: &CertificateDer<'_>, others: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
    tls::web_pki().verify_server_cert(own, others, name, &[], UnixTime::now()).is_ok()
}

/// Notes the certificates shown; that their owner holds the key is still checked.
#[derive(Debug)]
struct Recorder {
    signatures: PinVerifier,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(end_entity).chain(intermediates).map(|shown| shown.clone().into_owned());
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        ServerConfig, SupportedProtocolVersion,
        sign::{CertifiedKey, SingleCertAndKey},
    };
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;
    use crate::tls::{ServerIdentity, server_config};

    const LIMIT: Duration = Duration::from_secs(5);
    const HERE: Host<&str> = Host::Ipv4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn the_certificate_shown_is_named_whether_it_is_the_right_one_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(socket).await;
            }
        });
        let pinned = ServerTrust::Pin(identity.pin());
        let sight = inspect(&HERE, port, Some(pinned), None, LIMIT).await.unwrap();
        assert!(sight.genuine && sight.shown == identity.pin() && sight.issuer.is_some(), "{sight:?}");
        for wrong in [ServerTrust::Pin(TlsPin::from_bytes([0; 32])), ServerTrust::WebPki] {
            let sight = inspect(&HERE, port, Some(wrong), None, LIMIT).await.unwrap();
            assert!(!sight.genuine && sight.shown == identity.pin(), "{sight:?}");
        }
        assert!(inspect(&HERE, port, None, None, LIMIT).await.unwrap().genuine);
    }

    /// The port of a server that shows that certificate and speaks these versions.
    fn show(
        tasks: &mut JoinSet<()>,
        certificate: Vec<u8>,
        key: &rcgen::KeyPair,
        versions: &[&'static SupportedProtocolVersion],
    ) -> u16 {
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = provider().key_provider.load_private_key(private).unwrap();
        let shown = CertifiedKey { cert: vec![certificate.into()], key, ocsp: None };
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        tasks.spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(socket).await;
        });
        port
    }

    #[tokio::test]
    async fn a_device_that_shows_an_old_certificate_or_speaks_tls_1_2_only_is_named_by_its_issuer() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Inspection CA");
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let pin = tls::spki_pin(&certificate.clone().into()).unwrap();
        let old = issuer::version_1(&certificate);
        assert!(tls::spki_pin(&old.clone().into()).is_err(), "rustls reads no version 1");
        let mut tasks = JoinSet::new();
        let ports = [
            show(&mut tasks, old.clone(), &key, &[&TLS13]),
            show(&mut tasks, old, &key, &[&TLS12]),
            show(&mut tasks, certificate, &key, &[&TLS12]),
        ];
        for port in ports {
            let trust = ServerTrust::Pin(TlsPin::from_bytes([0; 32]));
            let error = inspect(&HERE, port, Some(trust), None, LIMIT).await.unwrap_err();
            let InspectError::Shown { shown, issuer, .. } = &error else { panic!("{error:?}") };
            assert_eq!((*shown, issuer.as_deref()), (pin, Some("Inspection CA")), "{error:?}");
            assert!(error.to_string().contains("issued by 'Inspection CA'"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_off_when_tls_begins_is_no_captive_portal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (mut filter, _) = listener.accept().await.unwrap();
            let mut hello = [0; 64];
            filter.read_exact(&mut hello).await.unwrap();
        });
        let error = inspect(&HERE, port, None, None, LIMIT).await.unwrap_err();
        assert!(matches!(error, InspectError::CutOff(_)), "{error:?}");
    }

    #[tokio::test]
    async fn what_speaks_no_tls_and_what_says_nothing_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (mut portal, _) = listener.accept().await.unwrap();
            portal.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n").await.unwrap();
            let (_silent, _) = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
        });
        let portal = inspect(&HERE, port, None, None, LIMIT).await.unwrap_err();
        assert!(matches!(portal, InspectError::Tls(_)), "{portal:?}");
        let silent = inspect(&HERE, port, None, None, Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(silent, InspectError::TlsTimeout { .. }), "{silent:?}");
        assert!(silent.to_string().ends_with("(last step: TLS handshake)"), "{silent}");
    }
}
