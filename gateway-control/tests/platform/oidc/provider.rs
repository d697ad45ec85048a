//! A provider of OpenID Connect: real HTTPS with an authority of its own, real signatures, and every way to misbehave.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use gateway_control::http::{ServeOptions, serve};
use gateway_net::{
    secret_file,
    shutdown::Shutdown,
    tls::{ALPN_HTTP1, ServerIdentity, server_config},
};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use url::Url;

pub(crate) const CLIENT: &str = "control-plane";
const SECRET: &str = "a client secret";

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    /// RS256 with the key of now.
    Rsa,
    /// ES256 with the key of now.
    Ec,
    /// `alg: none` and no signature.
    None,
    /// HS256, with the public RSA key as the secret.
    HmacOfPublicKey,
    /// HS256, with the client's secret, as the standard allows.
    HmacOfSecret,
    /// RS256 by somebody else under the key id of now.
    Foreign,
    /// RS256, and one claim changed afterwards.
    Tampered,
    /// No ID token at all.
    Missing,
}

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

struct Keys {
    id: String,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Keys {
    fn new(id: &str) -> Self {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id: id.to_owned(), rsa, ec }
    }

    /// The modulus: 256 bytes behind the header of the DER form, whose exponent is 65537.
    fn modulus(&self) -> String {
        let der = self.rsa.public_key().as_ref();
        assert_eq!(der.len(), 270);
        BASE64URL_NOPAD.encode(&der[9..265])
    }

    fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id, "n": self.modulus(), "e": "AQAB"},
            {"kty": "EC", "use": "sig", "alg": "ES256", "kid": format!("{}-ec", self.id), "crv": "P-256",
             "x": BASE64URL_NOPAD.encode(&point[1..33]), "y": BASE64URL_NOPAD.encode(&point[33..65])},
            {"kty": "future", "kid": "unknown"},
        ]})
    }

    fn rsa(&self, text: &str) -> String {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        BASE64URL_NOPAD.encode(&signature)
    }
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
            ahead: 0,
            requests: BTreeMap::new(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/userinfo", get(user_info))
            .with_state(inner.clone());
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

/// What the manner of the moment answers in the place of the real answer.
fn mannered(inner: &Mutex<Inner>, path: &str) -> Option<Response> {
    let mut inner = inner.lock().unwrap();
    *inner.requests.entry(path.to_owned()).or_default() += 1;
    match inner.manner {
        Manner::Redirects => {
            Some((StatusCode::FOUND, [(header::LOCATION, format!("{}{path}", inner.issuer))]).into_response())
        }
        Manner::Endless => {
            let body = format!("{{\"x\": \"{}\"}}", "x".repeat(1 << 20));
            Some(([(header::CONTENT_TYPE, "application/json")], body).into_response())
        }
        Manner::Html => Some(axum::response::Html("<h1>Sign in</h1>").into_response()),
        Manner::Unavailable => Some(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        Manner::Good | Manner::OtherIssuer | Manner::StrangeAccessToken | Manner::OtherUserInfo => None,
    }
}

async fn discovery(State(inner): State<Arc<Mutex<Inner>>>) -> Response {
    if let Some(answer) = mannered(&inner, "/.well-known/openid-configuration") {
        return answer;
    }
    let inner = inner.lock().unwrap();
    let elsewhere = inner.manner == Manner::OtherIssuer;
    let issuer = if elsewhere { "https://elsewhere.example" } else { &inner.issuer };
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{}/authorize", inner.issuer),
        "token_endpoint": format!("{}/token", inner.issuer),
        "userinfo_endpoint": format!("{}/userinfo", inner.issuer),
        "jwks_uri": format!("{}/jwks", inner.issuer),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
    }))
    .into_response()
}

async fn jwks(State(inner): State<Arc<Mutex<Inner>>>) -> Response {
    mannered(&inner, "/jwks").unwrap_or_else(|| Json(inner.lock().unwrap().keys.jwks()).into_response())
}

async fn user_info(State(inner): State<Arc<Mutex<Inner>>>) -> Response {
    if let Some(answer) = mannered(&inner, "/userinfo") {
        return answer;
    }
    let inner = inner.lock().unwrap();
    let mut claims = inner.user_info.clone();
    claims["sub"] = inner.subject.clone();
    if inner.manner == Manner::OtherUserInfo {
        claims["sub"] = json!("somebody else");
    }
    Json(claims).into_response()
}

async fn token(State(inner): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: String) -> Response {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    if let Some(answer) = mannered(&inner, "/token") {
        return answer;
    }
    let mut inner = inner.lock().unwrap();
    let refused = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    let basic = format!("Basic {}", BASE64.encode(format!("{CLIENT}:{}", SECRET.replace(' ', "+")).as_bytes()));
    if headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) != Some(&basic) {
        return refused("invalid_client");
    }
    // Each code is good once.
    let Some(code) = inner.codes.remove(&form["code"]) else { return refused("invalid_grant") };
    let proof = BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, form["code_verifier"].as_bytes()).as_ref());
    if proof != code.challenge || form["redirect_uri"] != code.redirect {
        return refused("invalid_grant");
    }
    inner.subject = code.claims["sub"].clone();
    let access_token = if inner.manner == Manner::StrangeAccessToken { "line\nbreak" } else { "an-access-token" };
    let mut answer = json!({"access_token": access_token, "token_type": "Bearer", "expires_in": 300});
    if inner.signature != Signature::Missing {
        answer["id_token"] = json!(inner.id_token(&code));
    }
    Json(answer).into_response()
}

impl Inner {
    fn id_token(&self, code: &Code) -> String {
        let now = gateway_net::time::unix_secs().checked_add_signed(self.ahead).unwrap();
        let mut claims = json!({
            "iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": code.nonce,
        });
        for (name, value) in code.claims.as_object().unwrap_or(&Map::new()) {
            claims[name] = value.clone();
        }
        if let Some(claims) = claims.as_object_mut() {
            claims.retain(|_, value| !value.is_null());
        }
        let head = |alg: &str, kid: &str| part(&json!({"alg": alg, "typ": "JWT", "kid": kid}));
        let body = part(&claims);
        let id = &self.keys.id;
        let hmac = |secret: &[u8]| {
            let text = format!("{}.{body}", head("HS256", id));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
            format!("{text}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
        };
        match self.signature {
            Signature::Rsa | Signature::Missing => signed(&format!("{}.{body}", head("RS256", id)), &self.keys),
            Signature::Foreign => signed(&format!("{}.{body}", head("RS256", id)), &self.foreign),
            Signature::Ec => {
                let text = format!("{}.{body}", head("ES256", &format!("{id}-ec")));
                let signature = self.keys.ec.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
                format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
            }
            Signature::None => format!("{}.{body}.", head("none", id)),
            Signature::HmacOfPublicKey => hmac(&BASE64URL_NOPAD.decode(self.keys.modulus().as_bytes()).unwrap()),
            Signature::HmacOfSecret => hmac(SECRET.as_bytes()),
            Signature::Tampered => {
                let token = signed(&format!("{}.{body}", head("RS256", id)), &self.keys);
                let parts: Vec<_> = token.split('.').collect();
                claims["sub"] = json!("somebody else");
                format!("{}.{}.{}", parts[0], part(&claims), parts[2])
            }
        }
    }
}

fn part(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

fn signed(text: &str, keys: &Keys) -> String {
    format!("{text}.{}", keys.rsa(text))
}
