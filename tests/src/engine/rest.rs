//! The engine's HTTP front: contexts, header and session rules, negotiation, errors.

use std::{collections::BTreeMap, convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming, header, http::response};
use serde_json::json;
use tokio::sync::Mutex;

use super::{
    access::{Access, Executed, Login, fresh_cookie},
    answers::VERSION,
    body::Body,
    channels::Channels,
    document::Node,
    operations::{self, Operation, Route, without_matrix},
    perform::{self, Answer, Call},
    webadmin, webstart,
};

/// The largest body that is read.
const MAX_BODY: usize = 64 << 20;

/// What every request needs.
#[derive(Debug)]
pub struct Shared {
    /// Channels.
    pub channels: Mutex<Channels>,
    /// Sessions and the log.
    pub access: Access,
    /// `https.port`.
    pub https_port: u16,
    /// `http.contextpath`.
    pub context_path: String,
    /// What checking a password costs.
    pub login_cost: Duration,
}

/// From where a request came.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The other end of the socket.
    pub peer: IpAddr,
    /// HTTPS, where the API is; plain HTTP has none.
    pub is_tls: bool,
}

/// Answers one request.
pub async fn answer(
    shared: Arc<Shared>,
    origin: Origin,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let is_head = request.method() == "HEAD";
    let response = shared.answer(origin, request).await;
    Ok(if is_head { response.map(|_| Body::default()) } else { response })
}

/// The context of a path: its own base path, and what is below it.
struct InContext<'a> {
    base: String,
    path: &'a str,
}

impl Shared {
    async fn answer(&self, origin: Origin, request: Request<Incoming>) -> Response<Body> {
        let accept = header_text(request.headers(), "accept").to_owned();
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let host = header_text(request.headers(), "host").to_owned();
        let Some(inside) = path.strip_prefix(self.context_path.as_str()) else {
            return error(StatusCode::NOT_FOUND, "Not Found", &accept);
        };
        let scheme = if origin.is_tls { "https" } else { "http" };
        if let Some(response) = webstart::answer(inside, &query, scheme, &host, self.https_port) {
            return response;
        }
        let below = inside.strip_prefix("/webadmin").filter(|page| page.is_empty() || page.starts_with('/'));
        if let Some(page) = below {
            let url = format!("{scheme}://{host}{}/webadmin", self.context_path);
            return webadmin::answer(self, page, &url, request).await;
        }
        let Some(context) = self.context(inside).filter(|_| origin.is_tls) else {
            return error(StatusCode::NOT_FOUND, "Not Found", &accept);
        };
        match context.path {
            "" | "/" => return plain(StatusCode::OK, "text/html", "<html><title>Swagger UI</title></html>"),
            "/openapi.json" => return plain(StatusCode::OK, "application/json", "{\"openapi\":\"3.0.1\"}"),
            _ => {}
        }
        if header_text(request.headers(), "x-requested-with").trim().is_empty() {
            let text = "All requests must have 'X-Requested-With' header";
            return plain(StatusCode::BAD_REQUEST, "text/html", &html(StatusCode::BAD_REQUEST, text));
        }
        self.api(&context, origin, &accept, &query, request).await
    }

    fn context<'a>(&self, path: &'a str) -> Option<InContext<'a>> {
        let (first, rest) = split_segment(path)?;
        if without_matrix(first) != "api" {
            return None;
        }
        let base = format!("{}/api", self.context_path);
        let Some((second, below)) = split_segment(rest) else { return Some(InContext { base, path: rest }) };
        let second = without_matrix(second);
        let is_version = second.contains('.') && second.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match second {
            VERSION => Some(InContext { base: format!("{base}/{VERSION}"), path: below }),
            _ if is_version => None,
            _ => Some(InContext { base, path: rest }),
        }
    }

    async fn api(
        &self,
        context: &InContext<'_>,
        origin: Origin,
        accept: &str,
        query: &str,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let method = request.method().as_str().to_owned();
        let (operation, parameters) = match (method.as_str(), operations::route(&method, context.path)) {
            ("TRACE" | "TRACK" | "PATCH", _) | (_, Route::MethodNotAllowed) if method != "OPTIONS" => {
                return error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", accept);
            }
            (_, Route::NotFound) => return error(StatusCode::NOT_FOUND, "Not Found", accept),
            (_, Route::BadPath) => return error(StatusCode::BAD_REQUEST, "Bad Request", accept),
            ("OPTIONS", _) | (_, Route::MethodNotAllowed) => {
                return plain(StatusCode::OK, "application/vnd.sun.wadl+xml", "<application/>");
            }
            (_, Route::Operation(operation, parameters)) => (operation, parameters),
        };
        let target = request.uri().to_string();
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        let is_open = ["/server/version", "/server/status", "/users/_login"].contains(&operation.template);
        let user = if is_open { None } else { self.authenticate(&context.base, origin, &headers).await };
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes()) else {
            return error(StatusCode::BAD_REQUEST, "Bad Request", accept);
        };
        let response = if user.is_none() && !is_open {
            // Whoever is not known gets a session all the same, one without a user.
            with_cookie(error(StatusCode::UNAUTHORIZED, "Unauthorized", accept), &context.base, &fresh_cookie())
        } else if operation.template == "/users/_login" {
            self.login(&context.base, accept, &headers, &body).await
        } else {
            let call = Call { operation, parameters, query, body: &body, user: user.as_deref() };
            self.call(&context.base, accept, &headers, call).await
        };
        let forwarded = header_text(&headers, "x-forwarded-for").to_owned();
        self.access.note(Executed {
            method,
            target,
            template: operation.template.into(),
            class: operation.class.into(),
            user,
            address: if forwarded.is_empty() { origin.peer.to_string() } else { forwarded },
            headers: all_headers(&headers),
            body: body.len(),
            status: response.status().as_u16(),
        });
        response
    }

    async fn authenticate(&self, base: &str, origin: Origin, headers: &HeaderMap) -> Option<String> {
        let authorization = header_text(headers, "authorization");
        if authorization.is_empty() {
            return cookie(headers).and_then(|cookie| self.access.session(base, cookie));
        }
        // Every request with Basic pays for the password again.
        tokio::time::sleep(self.login_cost).await;
        self.access.basic(authorization, origin.peer)
    }

    async fn login(&self, base: &str, accept: &str, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        if !header_text(headers, "content-type").starts_with("application/x-www-form-urlencoded") {
            return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type", accept);
        }
        let form = perform::form(std::str::from_utf8(body).unwrap_or_default());
        let value = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        let user = value("username");
        tokio::time::sleep(self.login_cost).await;
        let (status, word, message) = match self.access.login(user, value("password")) {
            Login::Success => (StatusCode::OK, "SUCCESS", ""),
            Login::Fail => (StatusCode::UNAUTHORIZED, "FAIL", "Incorrect username or password."),
            Login::LockedOut => (StatusCode::UNAUTHORIZED, "FAIL_LOCKED_OUT", "User account locked out."),
        };
        let node = Node::new("com.mirth.connect.model.LoginStatus").field("status", word).field("message", message);
        let response = document(status, accept, &node);
        if status == StatusCode::OK {
            return with_cookie(response, base, &self.access.open_session(base, user));
        }
        response
    }

    async fn call(&self, base: &str, accept: &str, headers: &HeaderMap, call: Call<'_>) -> Response<Body> {
        if !acceptable(call.operation, accept) {
            return error(StatusCode::NOT_ACCEPTABLE, "Not Acceptable", accept);
        }
        if call.operation.template == "/users/_logout" {
            if let Some(cookie) = cookie(headers) {
                self.access.close_session(base, cookie);
            }
            return plain(StatusCode::NO_CONTENT, "", "");
        }
        match perform::perform(&self.channels, &self.access, call).await {
            Answer::Text(text) => plain(StatusCode::OK, "text/plain", &text),
            Answer::Document(node) => document(StatusCode::OK, accept, &node),
            Answer::Created(node) => document(StatusCode::CREATED, accept, &node),
            Answer::NoContent => plain(StatusCode::NO_CONTENT, "", ""),
            Answer::NotFound => error(StatusCode::NOT_FOUND, "Not Found", accept),
            // The stack trace, in XML even where JSON was asked for.
            Answer::Failed(reason) => {
                let node = Node::new("com.mirth.connect.server.api.MirthApiException")
                    .field("detailMessage", reason)
                    .field("stackTrace", "at com.mirth.connect.server.api.MirthServlet");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "application/xml", &node.to_xml())
            }
        }
    }
}

fn split_segment(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix('/')?;
    let end = rest.find('/').unwrap_or(rest.len());
    Some(rest.split_at(end))
}

/// Plain-text operations have no JSON and no XML; the others have both.
fn acceptable(operation: &Operation, accept: &str) -> bool {
    let kinds: &[&str] =
        if perform::is_text(operation) { &["text/plain", "text/*"] } else { &["application/json", "application/xml"] };
    accept.is_empty() || accept.contains("*/*") || kinds.iter().any(|kind| accept.contains(kind))
}

/// Documents are streamed: nobody says before how long they are.
fn document(status: StatusCode, accept: &str, node: &Node) -> Response<Body> {
    let (kind, body) = match accept.contains("application/json") {
        true => ("application/json", node.to_json().to_string()),
        false => ("application/xml", node.to_xml()),
    };
    plain(status, kind, "").map(|_| Body::chunked(Bytes::from(body)))
}

fn error(status: StatusCode, message: &str, accept: &str) -> Response<Body> {
    if accept.contains("application/json") {
        let body = json!({ "servlet": "api", "message": message, "status": status.as_str() });
        return plain(status, "application/json", &body.to_string());
    }
    plain(status, "text/html", &html(status, message))
}

fn html(status: StatusCode, message: &str) -> String {
    format!("<html><head><title>Error {status}</title></head><body><h2>HTTP ERROR {status}</h2>{message}</body></html>")
}

pub(super) fn plain(status: StatusCode, kind: &str, body: &str) -> Response<Body> {
    let mut builder: response::Builder = Response::builder().status(status);
    if !kind.is_empty() {
        builder = builder.header(header::CONTENT_TYPE, kind);
    }
    builder
        .header("Access-Control-Allow-Origin", "*")
        .body(Body::new(Bytes::from(body.to_owned())))
        .expect("invariant: our own status and headers are valid")
}

pub(super) fn with_cookie(mut response: Response<Body>, base: &str, value: &str) -> Response<Body> {
    let cookie = format!("JSESSIONID={value}; Path={base}; Secure");
    let cookie = cookie.parse().expect("invariant: hex digits and our own path are a valid header");
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix("JSESSIONID="))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn all_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().into(), text(value))).collect()
}
