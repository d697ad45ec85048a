//! The local API: HTTP + JSON on a Unix socket, for `gateway-ctl` and `gatewayd enroll`; and metrics over loopback TCP.
//!
//! Only the user the daemon runs as and root get an answer: the socket has mode 0600, and who connects is checked again by
//! the credentials the kernel names, before a byte is read. Types: [`gateway_proto::api::local`].

mod socket;

use std::{io, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::future::BoxFuture;
use gateway_net::{causes::with_causes, proxy::Proxy};
use gateway_proto::api::{
    Problem,
    local::{AuditNewest, EnrollBody, Enrolled, ReconnectBody, Status},
};
use gateway_proto::audit::line::Head;
use gateway_proto::netcheck::{NetcheckBody, Report};
use socket::OwnerOnly;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{
    authority::Authority,
    control_client::{EnrollError, enroll},
};

/// The largest request body: an enrolment code is well below it.
const MAX_BODY: usize = 64 << 10;
/// Records of the audit log answered when no number is asked for.
const DEFAULT_RECORDS: usize = 50;
/// How long answers under way may take once the daemon is to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What the local API needs of the running daemon.
pub trait DaemonControl: Send + Sync {
    /// Makes what [`status`](Self::status) says true now, where that takes a round trip; waits about a second at most.
    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Everything a person wants to know, now.
    fn status(&self) -> Status;
    /// Probes every path of a peer anew; the error says why not, for people.
    fn reconnect(&self, peer: &str) -> Result<(), String>;
    /// The newest records of the audit log whose act begins with `act`; the error says why they cannot be read, for people.
    fn audit_newest(&self, limit: usize, act: String) -> BoxFuture<'_, Result<AuditNewest, String>>;
    /// Lines of the audit log from this record on, some megabytes at most; empty: there are none.
    fn audit_lines(&self, from: u64) -> BoxFuture<'_, Result<Vec<u8>, String>>;
    /// The newest record of the audit log, as the daemon remembers it.
    fn audit_head(&self) -> Head;
    /// Looks at the network around this gateway; takes up to ten seconds.
    fn netcheck(&self, body: NetcheckBody) -> BoxFuture<'_, Report>;
    /// The last look.
    fn last_netcheck(&self) -> Option<Report>;
    /// Metrics as Prometheus text.
    fn metrics(&self) -> String;
}

/// The bound socket of the local API, not answering yet.
#[derive(Debug)]
pub struct LocalApi(UnixListener);

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the local API socket {path}")]
pub struct BindError {
    path: String,
    source: io::Error,
}

#[derive(Clone)]
struct Shared {
    daemon: Arc<dyn DaemonControl>,
    authority: Authority,
    /// On the way to the control plane.
    proxy: Option<Proxy>,
    /// Two enrolments at a time would race for the same files.
    enrolling: Arc<Semaphore>,
}

impl LocalApi {
    /// Binds the socket. A socket file that is there is a left-over: the caller holds the lock of the state directory
    /// (`authority` is the proof), so no other daemon with this configuration is alive.
    pub fn bind(path: &Path, _authority: &Authority) -> Result<Self, BindError> {
        let listener = socket::bind(path).map_err(|source| BindError { path: path.display().to_string(), source })?;
        Ok(Self(listener))
    }

    /// Answers until `shutdown`; enrols through `proxy`.
    pub async fn serve(
        self,
        daemon: Arc<dyn DaemonControl>,
        authority: Authority,
        proxy: Option<Proxy>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let shared = Shared { daemon, authority, proxy, enrolling: Arc::new(Semaphore::new(1)) };
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/enroll", post(enroll_with_code))
            .route("/v1/reconnect", post(reconnect))
            .route("/v1/netcheck", get(last_netcheck).post(netcheck))
            .route("/v1/metrics", get(metrics))
            .route("/v1/audit", get(audit_newest))
            .route("/v1/audit/lines", get(audit_lines))
            .route("/v1/audit/head", get(audit_head))
            .fallback(unknown)
            .method_not_allowed_fallback(unknown)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(shared);
        let server =
            axum::serve(OwnerOnly::new(self.0), router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        drained(server.into_future(), shutdown).await
    }
}

/// Answers `GET /metrics` on a loopback TCP address until `shutdown`.
pub async fn serve_metrics(
    listener: TcpListener,
    daemon: Arc<dyn DaemonControl>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let answer = async |State(daemon): State<Arc<dyn DaemonControl>>| metrics_text(&*daemon);
    let router = Router::new().route("/metrics", get(answer)).fallback(unknown).with_state(daemon);
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    drained(server.into_future(), shutdown).await
}

/// A client that keeps its connection open does not keep the daemon from ending.
async fn drained(server: impl Future<Output = io::Result<()>>, shutdown: CancellationToken) -> io::Result<()> {
    tokio::select! {
        result = server => result,
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN_TIMEOUT).await; } => Ok(()),
    }
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    shared.daemon.refresh().await;
    Json(shared.daemon.status())
}

#[derive(Debug, serde::Deserialize)]
struct NewestQuery {
    limit: Option<usize>,
    #[serde(default)]
    act: String,
}

async fn audit_newest(
    State(shared): State<Shared>,
    Query(query): Query<NewestQuery>,
) -> Result<Json<AuditNewest>, ProblemAnswer> {
    let read = shared.daemon.audit_newest(query.limit.unwrap_or(DEFAULT_RECORDS), query.act).await;
    read.map(Json).map_err(unreadable)
}

#[derive(Debug, serde::Deserialize)]
struct LinesQuery {
    #[serde(default)]
    from: u64,
}

async fn audit_lines(State(shared): State<Shared>, Query(query): Query<LinesQuery>) -> Result<Response, ProblemAnswer> {
    let lines = shared.daemon.audit_lines(query.from).await.map_err(unreadable)?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

async fn audit_head(State(shared): State<Shared>) -> Json<Head> {
    Json(shared.daemon.audit_head())
}

fn unreadable(detail: String) -> ProblemAnswer {
    ProblemAnswer::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

async fn metrics(State(shared): State<Shared>) -> Response {
    metrics_text(&*shared.daemon)
}

fn metrics_text(daemon: &dyn DaemonControl) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, TYPE)], daemon.metrics()).into_response()
}

async fn enroll_with_code(
    State(shared): State<Shared>,
    body: Result<Json<EnrollBody>, JsonRejection>,
) -> Result<Json<Enrolled>, ProblemAnswer> {
    let Json(body) = body?;
    let Ok(_permit) = shared.enrolling.try_acquire() else {
        let detail = "another enrolment is under way; wait for its end".to_owned();
        return Err(ProblemAnswer::new(StatusCode::CONFLICT, "conflict", detail));
    };
    Ok(Json(enroll(&body.code, &shared.authority, shared.proxy.as_ref()).await?))
}

async fn reconnect(
    State(shared): State<Shared>,
    body: Result<Json<ReconnectBody>, JsonRejection>,
) -> Result<StatusCode, ProblemAnswer> {
    let Json(body) = body?;
    match shared.daemon.reconnect(&body.peer) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(detail) => Err(ProblemAnswer::new(StatusCode::NOT_FOUND, "not_found", detail)),
    }
}

async fn netcheck(
    State(shared): State<Shared>,
    body: Result<Json<NetcheckBody>, JsonRejection>,
) -> Result<Json<Report>, ProblemAnswer> {
    let Json(body) = body?;
    if let Some(mistake) = body.mistake() {
        return Err(ProblemAnswer::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", mistake));
    }
    Ok(Json(shared.daemon.netcheck(body).await))
}

async fn last_netcheck(State(shared): State<Shared>) -> Result<Json<Report>, ProblemAnswer> {
    let detail = || "the daemon has not looked at the network yet: ask for a look".to_owned();
    let none = || ProblemAnswer::new(StatusCode::NOT_FOUND, "not_found", detail());
    shared.daemon.last_netcheck().map(Json).ok_or_else(none)
}

async fn unknown() -> ProblemAnswer {
    let detail = "there is nothing under this method and path; gateway-ctl may be newer than gatewayd".to_owned();
    ProblemAnswer::new(StatusCode::NOT_FOUND, "not_found", detail)
}

/// An error answer, RFC 9457.
#[derive(Debug)]
struct ProblemAnswer(Problem);

impl ProblemAnswer {
    fn new(status: StatusCode, code: &str, detail: String) -> Self {
        Self(Problem { code: code.to_owned(), status: status.as_u16(), detail, request_id: None })
    }
}

impl From<JsonRejection> for ProblemAnswer {
    fn from(rejection: JsonRejection) -> Self {
        // Not the text of the rejection: it repeats the body, and the body may be an enrolment code.
        Self::new(rejection.status(), "invalid", "the body is not the JSON expected here".to_owned())
    }
}

impl From<EnrollError> for ProblemAnswer {
    fn from(error: EnrollError) -> Self {
        let (status, code) = match &error {
            EnrollError::Code(_) | EnrollError::Address(_) | EnrollError::Pin(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid")
            }
            EnrollError::CodeRefused(_) => (StatusCode::FORBIDDEN, "enrollment_code"),
            EnrollError::Refused { status: 400..=428, .. } => (StatusCode::CONFLICT, "conflict"),
            EnrollError::Refused { .. }
            | EnrollError::Network { .. }
            | EnrollError::Proxy { .. }
            | EnrollError::Answer { .. } => (StatusCode::BAD_GATEWAY, "unavailable"),
            EnrollError::Intercepted { .. } | EnrollError::PolicyKey { .. } => (StatusCode::BAD_GATEWAY, "forbidden"),
            EnrollError::NotInForce(_) | EnrollError::Task(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, with_causes(&error))
    }
}

impl IntoResponse for ProblemAnswer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(self.0)).into_response()
    }
}
