//! The engine as a whole: a stand-in that reproduces what was measured on the real one, which is in
//! no registry. It is not kinder than the engine: whatever the engine refuses, loses or shows, it does too.
//!
//! | module | what it holds |
//! |---|---|
//! | [`definition`] | users, settings and channels, kept in a file like the engine's database |
//! | [`channels`] | deployed channels: ports that open and close |
//! | [`destination`] | a TCP Sender with its queue, by the table of §2.8 |
//! | [`listeners`] | HTTP and DICOM Listeners |
//! | [`body`] | answers with their length, and in chunks |
//! | [`rest`] | contexts, the `X-Requested-With` rule, sessions, Basic, negotiation, errors |
//! | [`operations`] | the 210 operations and how a path finds one, matrix parameters included |
//! | [`perform`], [`answers`], [`document`] | what they do and answer, in XML and in lossy JSON |
//! | [`webstart`] | the launcher's descriptions |
//! | [`webadmin`] | the web dashboard with its own sign-in |
//! | [`back_door`] | what a test does behind the engine's back: channels, what arrived, what was asked, a restart |
//! | [`process`] | the engine as a process of its own (`gateway-test-engine`) |
//!
//! The MLLP ends are those of [`crate::mllp`].

pub mod access;
pub mod answers;
pub mod back_door;
pub mod body;
pub mod channels;
pub mod definition;
pub mod destination;
pub mod document;
pub mod listeners;
pub mod operations;
pub mod perform;
pub mod process;
pub mod rest;
pub mod webadmin;
pub mod webstart;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use self::{access::Access, channels::Channels, definition::EngineDefinition, rest::Origin, rest::Shared};
use crate::held_port::HeldPort;

#[cfg(test)]
mod tests;

/// A running stand-in engine; everything closes on drop.
#[derive(Debug)]
pub struct StandIn {
    /// Base URL of HTTPS, without the API's path.
    pub https: String,
    /// Base URL of plain HTTP.
    pub http: String,
    /// Base URL of the back door.
    pub back_door: String,
    tasks: JoinSet<()>,
}

impl StandIn {
    /// Starts the engine kept in `file`; without one, from `definition` (and keeps it there).
    pub async fn open(file: &Path, definition: EngineDefinition) -> anyhow::Result<Self> {
        if !file.exists() {
            return Self::start(definition, Some(file.to_owned())).await;
        }
        let kept: EngineDefinition = serde_json::from_slice(&std::fs::read(file)?).context("not an engine")?;
        // It was there before, so this is a restart: ports and API come back together after a while.
        tokio::time::sleep(Duration::from_millis(kept.boot_ms)).await;
        Self::start(kept, Some(file.to_owned())).await
    }

    /// Starts an engine; ready when this returns.
    pub async fn start(mut definition: EngineDefinition, file: Option<PathBuf>) -> anyhow::Result<Self> {
        let ports = [HeldPort::loopback(definition.https_port)?, HeldPort::loopback(definition.http_port)?];
        let [https_at, http_at] = [ports[0].address(), ports[1].address()];
        let (https, http, back_door) = (listen(https_at.port())?, listen(http_at.port())?, listen(0)?);
        (definition.https_port, definition.http_port) = (https_at.port(), http_at.port());
        let urls = [
            format!("https://{https_at}{}", definition.context_path),
            format!("http://{http_at}{}", definition.context_path),
            format!("http://{}", back_door.local_addr()?),
        ];
        let tls = TlsAcceptor::from(Arc::new(tls(file.as_deref())?));
        let boot = Duration::from_millis(definition.boot_ms);
        let shared = Arc::new(Shared {
            access: Access::new(&definition),
            https_port: definition.https_port,
            context_path: definition.context_path.clone(),
            login_cost: Duration::from_millis(definition.login_cost_ms),
            channels: Mutex::new(Channels::new(definition, file)?),
        });
        shared.channels.lock().await.boot().await?;
        let (restart, restarts) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(back_door::serve(back_door, shared.clone(), restart));
        tasks.spawn(live(shared, ports, (https, http), tls, restarts, boot));
        let [https, http, back_door] = urls;
        Ok(Self { https, http, back_door, tasks })
    }

    /// Runs until a task ends, which none does by itself.
    pub async fn run(&mut self) {
        self.tasks.join_next().await;
    }
}

/// Serves; at each restart everything closes, sessions are forgotten, and all comes back after `boot`.
async fn live(
    shared: Arc<Shared>,
    ports: [HeldPort; 2],
    (https, http): (TcpListener, TcpListener),
    tls: TlsAcceptor,
    mut restarts: mpsc::Receiver<()>,
    boot: Duration,
) {
    let mut listeners = (https, http);
    loop {
        let mut serving = JoinSet::new();
        serving.spawn(serve(listeners.0, Some(tls.clone()), shared.clone()));
        serving.spawn(serve(listeners.1, None, shared.clone()));
        if restarts.recv().await.is_none() {
            return;
        }
        serving.shutdown().await;
        shared.channels.lock().await.halt().await;
        shared.access.close_all();
        tokio::time::sleep(boot).await;
        let (Ok(https), Ok(http)) = (listen(ports[0].port()), listen(ports[1].port())) else { return };
        listeners = (https, http);
        if shared.channels.lock().await.boot().await.is_err() {
            return;
        }
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, peer)) = accepted else { continue };
                let (shared, tls) = (shared.clone(), tls.clone());
                connections.spawn(async move {
                    let origin = Origin { peer: peer.ip(), is_tls: tls.is_some() };
                    let service = service_fn(move |request| rest::answer(shared.clone(), origin, request));
                    let http = http1::Builder::new();
                    match tls {
                        Some(tls) => {
                            let Ok(stream) = tls.accept(socket).await else { return };
                            http.serve_connection(TokioIo::new(stream), service).await.ok();
                        }
                        None => {
                            http.serve_connection(TokioIo::new(socket), service).await.ok();
                        }
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    // The port comes back although former conversations may still be in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).with_context(|| format!("port {port} is taken"))?;
    Ok(socket.listen(64)?)
}

/// TLS 1.2 and 1.3, no ALPN, a certificate for `mirth-connect` without any alternative name, for 50 years, by an authority
/// nobody knows. Its key stays the same as long as the engine's file does.
fn tls(file: Option<&Path>) -> anyhow::Result<ServerConfig> {
    let key_file = file.map(|file| file.with_extension("key.pem"));
    let key = match key_file.as_deref().filter(|file| file.exists()) {
        Some(file) => rcgen::KeyPair::from_pem(&std::fs::read_to_string(file)?)?,
        None => rcgen::KeyPair::generate()?,
    };
    if let Some(file) = key_file {
        std::fs::write(file, key.serialize_pem())?;
    }
    let mut authority = rcgen::CertificateParams::default();
    authority.distinguished_name = named("Mirth Connect Certificate Authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(authority, rcgen::KeyPair::generate()?);
    let mut own = rcgen::CertificateParams::default();
    own.distinguished_name = named("mirth-connect");
    own.not_before = rcgen::date_time_ymd(2024, 1, 1);
    own.not_after = rcgen::date_time_ymd(2074, 1, 1);
    let certificate = own.signed_by(&key, &issuer)?;
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    Ok(ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?)
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(rcgen::DnType::CommonName, name);
    distinguished
}
