//! A server that answers from a script and remembers what it was asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, header::AUTHORIZATION},
};
use serde::Serialize;

/// What a client asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `POST /api/v1/servers?cursor=…`.
    pub(crate) line: String,
    /// The `Authorization` header.
    pub(crate) authorization: Option<String>,
    /// The body as JSON, `null` for none.
    pub(crate) body: serde_json::Value,
}

#[derive(Debug, Default)]
struct Script {
    answers: BTreeMap<String, Vec<(u16, String)>>,
    asked: Vec<Asked>,
}

/// The script and its record; clones share both.
#[derive(Debug, Clone, Default)]
pub(crate) struct StandIn {
    script: Arc<Mutex<Script>>,
}

impl StandIn {
    /// Answers `line` (method, path and query) with this. Said again, the answers come one after the other; the last one stays.
    pub(crate) fn answer(&self, line: &str, status: u16, body: &impl Serialize) -> &Self {
        self.answer_text(line, status, serde_json::to_string(body).unwrap())
    }

    /// The same with a body that is no JSON.
    pub(crate) fn answer_text(&self, line: &str, status: u16, body: impl Into<String>) -> &Self {
        self.script.lock().unwrap().answers.entry(line.to_owned()).or_default().push((status, body.into()));
        self
    }

    /// Everything asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// The one request with this line.
    pub(crate) fn asked_once(&self, line: &str) -> Asked {
        let all = self.asked();
        let mut found = all.iter().filter(|asked| asked.line == line);
        let first = found.next().unwrap_or_else(|| panic!("nobody asked '{line}', but {all:?}"));
        assert!(found.next().is_none(), "'{line}' was asked twice");
        first.clone()
    }

    /// The axum service in front of it.
    pub(crate) fn router(&self) -> axum::Router {
        axum::Router::new().fallback(handle).with_state(self.clone())
    }

    fn next(&self, line: &str) -> (u16, String) {
        let mut script = self.script.lock().unwrap();
        match script.answers.get_mut(line) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => (404, format!(r#"{{"code":"not_found","status":404,"detail":"the script has no '{line}'"}}"#)),
        }
    }
}

async fn handle(State(stand_in): State<StandIn>, request: Request) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri().path_and_query().unwrap());
    let authorization = authorization(request.headers());
    let bytes = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = if bytes.is_empty() { serde_json::Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    let (status, text) = stand_in.next(&line);
    stand_in.script.lock().unwrap().asked.push(Asked { line, authorization, body });
    Response::builder().status(status).body(Body::from(text)).unwrap()
}

fn authorization(headers: &HeaderMap) -> Option<String> {
    headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
}
