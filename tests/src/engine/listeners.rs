//! HTTP and DICOM Listeners, as far as a gateway meets them.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};

/// HTTP Listener and Web Service Listener: `/path` is sent to `/path/` on the host the client named, other paths are not
/// there; bodies of any size and form are taken.
pub async fn serve_http(listener: TcpListener, context_path: String) {
    let context = format!("/{}", context_path.trim_matches('/'));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let context = context.clone();
                let service = service_fn(move |request| answer(request, context.clone()));
                connections.spawn(async move {
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, context: String) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    request.into_body().collect().await.ok();
    let builder = Response::builder();
    let answer = if path == context && context != "/" {
        builder.status(StatusCode::FOUND).header(header::LOCATION, format!("http://{host}{context}/"))
    } else if is_below(&path, &context) {
        builder.status(StatusCode::CREATED)
    } else {
        builder.status(StatusCode::NOT_FOUND)
    };
    Ok(answer.body(Full::default()).unwrap_or_default())
}

/// `/fhir/Patient` is in the context `/fhir`; `/fhirx` is in another one.
fn is_below(path: &str, context: &str) -> bool {
    context == "/" || path.strip_prefix(context).is_some_and(|rest| rest.starts_with('/'))
}

/// DICOM Listener: takes associations and says nothing.
pub async fn serve_dicom(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut socket, _)) = accepted else { continue };
                connections.spawn(async move {
                    let mut buffer = [0; 4096];
                    while socket.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
