//! A provider of OpenID Connect: real HTTPS with an authority of its own, real signatures, and every way to misbehave.

mod answers;
mod tokens;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use data_encoding::HEXLOWER;
use gateway_control::http::{ServeOptions, serve};
use gateway_net::{
    secret_file,
    shutdown::Shutdown,
    tls::{ALPN_HTTP1, ServerIdentity, server_config},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use url::Url;

use self::tokens::Keys;
pub(crate) use self::tokens::Signature;

pub(crate) const CLIENT: &str = "control-plane";
const SECRET: &str = "a client secret";

/// What the provider does with the next requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Good,
    /// Its discovery document is about another issuer.
    OtherIssuer,
    /// Everything is elsewhere.
    Redirects,
    /// Answers have no end worth waiting for.
    Endless,
    /// Everything is a page for people.
    Html,
    /// 503 to everything.
    Unavailable,
    /// The access token cannot stand in a header.
    StrangeAccessToken,
    /// The userinfo endpoint speaks of somebody else.
    OtherUserInfo,
}

struct Code {
    nonce: String,
    challenge: String,
    redirect: String,
    claims: Value,
}

struct Inner {
    issuer: String,
    keys: Keys,
    foreign: Keys,
    signature: Signature,
    manner: Manner,
    codes: BTreeMap<String, Code>,
    user_info: Value,
    /// Whose token was given last.
    subject: Value,
    /// Where it says that its sessions end.
    session_end: Value,
    ahead: i64,
    requests: BTreeMap<String, usize>,
}

/// The provider; it ends with the test.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    inner: Arc<Mutex<Inner>>,
    directory: tempfile::TempDir,
    shutdown: Shutdown,
    _task: JoinSet<()>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = identity(directory.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Mutex::new(Inner {
            issuer: issuer.clone(),
            keys: Keys::new("first"),
            foreign: Keys::new("first"),
            signature: Signature::Rsa,
            manner: Manner::Good,
            codes: BTreeMap::new(),
            user_info: json!({}),
            subject: json!(null),
            session_end: json!(null),
            ahead: 0,
            requests: BTreeMap::new(),
        }));
        let router = answers::router(inner.clone());
        let tls = Some(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
        let shutdown = Shutdown::manual();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, router, ServeOptions { tls, max_connections: 100 }, shutdown.clone()));
        Self { issuer, inner, directory, shutdown, _task: task }
    }

    /// Its section of the control plane's configuration, named `corporate`.
    pub(crate) fn section(&self, more: &str) -> String {
        self.section_named("corporate", more)
    }

    /// The same under another name.
    pub(crate) fn section_named(&self, name: &str, more: &str) -> String {
        let secret = self.directory.path().join("client-secret");
        secret_file::write(&secret, format!("{SECRET}\n").as_bytes()).unwrap();
        format!(
            "[[oidc]]\nname = '{name}'\nissuer = '{}'\nclient_id = '{CLIENT}'\nclient_secret_file = '{}'\nca_file = '{}'\n{more}\n",
            self.issuer,
            secret.display(),
            self.directory.path().join("ca.pem").display()
        )
    }

    /// A person signs in with these claims: where the browser is sent, and with what.
    pub(crate) fn sign_in(&self, authorization_url: &str, claims: Value) -> Url {
        let url: Url = authorization_url.parse().unwrap();
        assert_eq!(url.path(), "/authorize");
        let asked: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!((asked["response_type"].as_str(), asked["client_id"].as_str()), ("code", CLIENT));
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"), "{}", asked["scope"]);
        let code = HEXLOWER.encode(&gateway_net::random::<16>());
        let pending = Code {
            nonce: asked["nonce"].clone(),
            challenge: asked["code_challenge"].clone(),
            redirect: asked["redirect_uri"].clone(),
            claims,
        };
        self.inner.lock().unwrap().codes.insert(code.clone(), pending);
        Url::parse_with_params(&asked["redirect_uri"], [("state", asked["state"].as_str()), ("code", &code)]).unwrap()
    }

    pub(crate) fn signs(&self, signature: Signature) {
        self.inner.lock().unwrap().signature = signature;
    }

    pub(crate) fn behaves(&self, manner: Manner) {
        self.inner.lock().unwrap().manner = manner;
    }

    pub(crate) fn tells(&self, user_info: Value) {
        self.inner.lock().unwrap().user_info = user_info;
    }

    /// Where its discovery document says that sessions end; null: it says nothing of it.
    pub(crate) fn ends_sessions_at(&self, end: Value) {
        self.inner.lock().unwrap().session_end = end;
    }

    /// Its clock is ahead by so much.
    pub(crate) fn is_ahead(&self, secs: i64) {
        self.inner.lock().unwrap().ahead = secs;
    }

    /// From now on it signs with other keys, under another id or the same.
    pub(crate) fn rotate(&self, id: &str) {
        self.inner.lock().unwrap().keys = Keys::new(id);
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.inner.lock().unwrap().requests.get(path).copied().unwrap_or_default()
    }

    /// Nobody is at its address any more.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.request();
        while self._task.join_next().await.is_some() {}
    }
}

/// A certificate for 127.0.0.1 by an authority that only `ca.pem` names.
fn identity(directory: &std::path::Path) -> ServerIdentity {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(directory.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = own.signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("own.pem"), certificate.pem()).unwrap();
    secret_file::write(&directory.join("own.key"), key.serialize_pem().as_bytes()).unwrap();
    ServerIdentity::load(&directory.join("own.pem"), &directory.join("own.key")).unwrap()
}
