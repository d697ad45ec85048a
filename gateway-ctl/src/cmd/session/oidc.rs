//! `gateway-ctl login --oidc`: the browser signs in at the provider and comes back with a code, to a port of this machine
//! (RFC 8252) or on paper. Code and the verifier that stays here are the session; either alone is worth nothing.

use std::{
    io::{self, BufRead, Read},
    time::Duration,
};

use data_encoding::HEXLOWER;
use gateway_proto::api::platform::{FinishOidc, Hidden, Session, StartOidc, StartedOidc, oidc_challenge};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use url::Url;
use zeroize::Zeroizing;

use crate::{client::Control, cmd::Context, error::CtlError};

/// A request line with a code is far below.
const MAX_LINE: u64 = 16 << 10;
/// Browsers open connections that they never use.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Connections at the same time; more wait.
const MAX_CONNECTIONS: usize = 8;

/// How to sign in.
#[derive(Debug)]
pub(super) struct Way {
    /// The provider; none: the only one.
    pub(super) provider: Option<String>,
    /// Which organization, for people with users in several.
    pub(super) organization: Option<String>,
    /// The browser is elsewhere: a person carries the code.
    pub(super) paste: bool,
}

/// Signs in through a provider.
pub(super) async fn sign_in(context: &Context, control: &Control, way: Way) -> Result<Session, CtlError> {
    let verifier = Hidden(HEXLOWER.encode(&gateway_net::random::<32>()));
    let challenge = oidc_challenge(&verifier.0);
    let listener = match way.paste {
        true => None,
        false => Some(TcpListener::bind(("127.0.0.1", 0)).await.map_err(CtlError::Loopback)?),
    };
    let port = listener.as_ref().map(|listener| listener.local_addr().map(|address| address.port())).transpose();
    let body = StartOidc {
        provider: way.provider,
        challenge: challenge.clone(),
        loopback_port: port.map_err(CtlError::Loopback)?,
    };
    let started: StartedOidc = control.post("/oidc/start", &body).await?;
    let place = if way.paste { "any browser, then paste the code it shows here" } else { "a browser on this machine" };
    context.out.remark(&format!("Open this address in {place}:\n{}", started.authorization_url));
    let left = Duration::from_secs(started.expires_at.saturating_sub(gateway_net::time::unix_secs()));
    let code = match listener {
        Some(listener) => timeout(left, from_browser(&listener, &format!("/{challenge}")))
            .await
            .map_err(|_| CtlError::No("nobody signed in in time; start again".to_owned()))??,
        None => from_person()?,
    };
    Ok(control.post("/oidc/sessions", &FinishOidc { code, verifier, organization: way.organization }).await?)
}

fn from_person() -> Result<Hidden, CtlError> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().take(MAX_LINE).read_line(&mut line).map_err(CtlError::Terminal)?;
    let code = line.trim();
    if code.is_empty() { Err(CtlError::No("no code was given".to_owned())) } else { Ok(Hidden(code.to_owned())) }
}

/// Waits until a browser comes to the path with what the control plane sent it with.
async fn from_browser(listener: &TcpListener, path: &str) -> Result<Hidden, CtlError> {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if visits.len() < MAX_CONNECTIONS => {
                let (stream, _) = accepted.map_err(CtlError::Loopback)?;
                let path = path.to_owned();
                visits.spawn(async move { timeout(READ_LIMIT, visit(stream, &path)).await });
            }
            Some(ended) = visits.join_next() => {
                // Whoever asked for something else, or for nothing, is no reason to stop waiting.
                if let Ok(Ok(Ok(Some(brought)))) = ended {
                    return brought.map_err(CtlError::No);
                }
            }
        }
    }
}

/// What one visitor brought: a code, or why there is none; none: another path.
async fn visit(mut stream: TcpStream, path: &str) -> io::Result<Option<Result<Hidden, String>>> {
    let mut line = String::new();
    BufReader::new(&mut stream).take(MAX_LINE).read_line(&mut line).await?;
    let brought = brought(&line, path);
    let (status, words) = match &brought {
        Some(Ok(_)) => ("200 OK", "Signed in. Return to the terminal; this page can be closed."),
        Some(Err(_)) => ("200 OK", "Not signed in. The terminal says why; this page can be closed."),
        None => ("404 Not Found", "Nothing is here."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         referrer-policy: no-referrer\r\nconnection: close\r\n\r\n{words}",
        words.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(brought)
}

fn brought(line: &str, path: &str) -> Option<Result<Hidden, String>> {
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let url = Url::parse(&format!("http://127.0.0.1{target}")).ok().filter(|url| url.path() == path)?;
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (value("code"), value("error")) {
        (Some(code), None) => Some(Ok(Hidden(code))),
        (_, Some(error)) => Some(Err(format!("{} [{error}]", value("detail").unwrap_or_default()))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_path_with_a_code_or_a_reason_counts() {
        let line = |target: &str| format!("GET {target} HTTP/1.1\r\n");
        assert_eq!(brought(&line("/abc?code=x-_1"), "/abc"), Some(Ok(Hidden("x-_1".into()))));
        let refused = brought(&line("/abc?error=oidc_refused&detail=not+you"), "/abc");
        assert_eq!(refused, Some(Err("not you [oidc_refused]".into())));
        for target in ["/abd?code=x", "/?code=x", "/abc", "/abc/?code=x", "/favicon.ico", "//abc?code=x"] {
            assert_eq!(brought(&line(target), "/abc"), None, "{target}");
        }
        assert_eq!(brought("POST /abc?code=x HTTP/1.1\r\n", "/abc"), None);
        assert_eq!(brought("", "/abc"), None);
    }

    #[tokio::test]
    async fn visitors_who_say_nothing_do_not_stop_the_one_who_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = TcpStream::connect(address).await.unwrap();
        let browser = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /abc?code=x HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (code, answer) = tokio::join!(from_browser(&listener, "/abc"), browser);
        assert_eq!(code.unwrap(), Hidden("x".into()));
        assert!(answer.starts_with("HTTP/1.1 200 OK"));
        drop(silent);
    }
}
