//! What a test does behind the engine's back, as JSON over plain HTTP on loopback:
//!
//! - `GET /executed`, `GET /logins`: what was asked of the API, and how many logins went well and ill
//! - `GET /received/{channel}`: what a TCP Listener received, `GET /messages/{channel}`: what became of messages sent
//! - `POST /messages/{channel}`: gives it a message to send
//! - `PUT /channel?deploy`: stores a channel and deploys it, `PUT /password`: sets one, `POST /restart`: the engine restarts

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::BodyExt;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use super::{body::Body, definition::ChannelDefinition, rest::Shared};

/// A message a TCP Listener received.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReceivedMessage {
    /// MSH-10.
    pub control_id: String,
    /// Number of its connection.
    pub connection: u64,
    /// Its bytes in base64.
    pub bytes: String,
}

/// Serves the back door.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, restart: mpsc::Sender<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let (shared, restart) = (shared.clone(), restart.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(shared.clone(), restart.clone(), request));
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    restart: mpsc::Sender<()>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (status, body) = match perform(&shared, &restart, request).await {
        Ok(answer) => (StatusCode::OK, answer.to_string()),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}")),
    };
    let mut response = Response::new(Body::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}

async fn perform(shared: &Shared, restart: &mpsc::Sender<()>, request: Request<Incoming>) -> anyhow::Result<Value> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    Ok(match (parts.method.as_str(), path.as_slice()) {
        ("GET", ["executed"]) => serde_json::to_value(shared.access.executed())?,
        ("GET", ["logins"]) => json!(shared.access.logins()),
        ("GET", ["received", id]) => serde_json::to_value(received(shared, id).await)?,
        ("GET", ["messages", id]) => {
            let channels = shared.channels.lock().await;
            let destinations = channels.deployed(id).map_or(&[][..], |deployed| &deployed.destinations);
            json!(destinations.iter().flat_map(|destination| destination.outcomes.shown()).collect::<Vec<_>>())
        }
        ("GET", ["definition"]) => serde_json::to_value(&shared.channels.lock().await.definition)?,
        ("PUT", ["channel"]) => {
            let channel: ChannelDefinition = serde_json::from_slice(&body)?;
            let id = channel.id.clone();
            let mut channels = shared.channels.lock().await;
            channels.store(channel)?;
            if parts.uri.query() == Some("deploy") {
                channels.deploy(&id).await?;
            }
            Value::Null
        }
        ("POST", ["messages", id]) => json!(shared.channels.lock().await.process(id, &body)?),
        ("PUT", ["password"]) => {
            let (user, password): (String, String) = serde_json::from_slice(&body)?;
            shared.access.set_password(&user, &password);
            Value::Null
        }
        ("POST", ["restart"]) => {
            restart.send(()).await?;
            Value::Null
        }
        (method, _) => anyhow::bail!("the back door has no {method} {}", parts.uri.path()),
    })
}

async fn received(shared: &Shared, id: &str) -> Vec<ReceivedMessage> {
    let channels = shared.channels.lock().await;
    let engine = channels.deployed(id).and_then(|deployed| deployed.source());
    let messages = engine.map(crate::mllp::Engine::received).unwrap_or_default();
    let show = |message: crate::mllp::Received| ReceivedMessage {
        control_id: message.control_id,
        connection: message.connection,
        bytes: BASE64.encode(&message.bytes),
    };
    messages.into_iter().map(show).collect()
}
