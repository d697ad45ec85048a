//! What the authority suggests about a certificate (RFC 9773 §4): plain requests, by nobody in particular.

use std::time::{Duration, SystemTime};

use gateway_net::{causes::with_causes, entropy::random_u32};
use gateway_proto::backoff::Backoff;
use instant_acme::CertificateIdentifier;
use reqwest::{StatusCode, header::RETRY_AFTER};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::renewal::{Renewal, Window, next_question, retry_after, time, unanswered};

/// One request and its answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The largest answer: directories are one kilobyte.
const MAX_ANSWER: usize = 64 << 10;
/// Characters of an authority's explanation that are logged.
const MAX_EXPLANATION: usize = 200;

/// When the authority is asked about the certificate that is shown.
#[derive(Debug)]
pub(super) struct Questions {
    next_at: Instant,
    unanswered: Backoff,
    /// Why there was no answer; told once.
    problem: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the certificate authority does not answer")]
    Http(#[from] reqwest::Error),
    #[error("the certificate authority answers {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("the answer is not what an authority says")]
    Form(#[from] serde_json::Error),
    #[error("the answer holds no window of time")]
    Window,
}

impl AskError {
    /// Until the next question; none: soon at first, then ever later.
    fn pause(&self) -> Option<Duration> {
        match self {
            Self::Http(_) => None,
            Self::Status { status, retry_after } if status.is_server_error() => {
                retry_after.map(|told| next_question(Some(told)))
            }
            Self::Status { .. } | Self::TooLong | Self::Form(_) | Self::Window => Some(next_question(None)),
        }
    }
}

struct Suggestion {
    window: Window,
    /// Where the authority explains itself.
    explanation: Option<String>,
    next: Duration,
}

impl Questions {
    /// The first question is asked at once.
    pub(super) fn new() -> Self {
        let [first, limit] = unanswered();
        Self { next_at: Instant::now(), unanswered: Backoff::new(first, limit), problem: String::new() }
    }

    /// Until the next question.
    pub(super) fn left(&self) -> Duration {
        self.next_at.saturating_duration_since(Instant::now())
    }

    /// Asks about a certificate, and tells its renewal. Without an answer the renewal stays as it is.
    pub(super) async fn ask(
        &mut self,
        http: &reqwest::Client,
        directory: &str,
        certificate: &CertificateIdentifier<'_>,
        renewal: &mut Renewal,
    ) {
        let before = renewal.at();
        let pause = match ask(http, directory, certificate).await {
            Ok(suggested) => {
                let next = suggested.as_ref().map_or_else(|| next_question(None), |suggestion| suggestion.next);
                renewal.suggest(suggested.as_ref().map(|suggestion| suggestion.window));
                let explanation = suggested.and_then(|suggestion| suggestion.explanation);
                if renewal.at() != before {
                    tracing::info!(
                        renewal = %humantime::format_rfc3339_seconds(renewal.at()),
                        ?explanation,
                        "the certificate authority says when it wants the certificate to be renewed"
                    );
                }
                self.unanswered.reset();
                self.problem.clear();
                next
            }
            Err(error) => {
                let words = with_causes(&error);
                if words != self.problem {
                    tracing::warn!(
                        problem = words,
                        renewal = %humantime::format_rfc3339_seconds(before),
                        "the certificate authority does not say when it wants the certificate to be renewed: the time that was planned stays"
                    );
                    self.problem = words;
                }
                error.pause().unwrap_or_else(|| self.unanswered.next_delay(random_u32()))
            }
        };
        self.next_at = Instant::now() + pause;
    }
}

/// None: this authority makes no suggestions.
async fn ask(
    http: &reqwest::Client,
    directory: &str,
    certificate: &CertificateIdentifier<'_>,
) -> Result<Option<Suggestion>, AskError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Directory {
        renewal_info: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RenewalInfo {
        suggested_window: SuggestedWindow,
        #[serde(rename = "explanationURL")]
        explanation: Option<String>,
    }
    #[derive(Deserialize)]
    struct SuggestedWindow {
        start: String,
        end: String,
    }
    let (Directory { renewal_info }, _) = get(http, directory).await?;
    let Some(renewal_info) = renewal_info else { return Ok(None) };
    let url = format!("{}/{certificate}", renewal_info.trim_end_matches('/'));
    let (info, told) = get::<RenewalInfo>(http, &url).await?;
    let SuggestedWindow { start, end } = info.suggested_window;
    let window = time(&start).zip(time(&end)).and_then(|(start, end)| Window::new(start, end));
    Ok(Some(Suggestion {
        window: window.ok_or(AskError::Window)?,
        explanation: info.explanation.map(|text| text.chars().take(MAX_EXPLANATION).collect()),
        next: next_question(told),
    }))
}

/// An answer, and when it says that it may change.
async fn get<T: DeserializeOwned>(http: &reqwest::Client, url: &str) -> Result<(T, Option<Duration>), AskError> {
    let mut answer = http.get(url).timeout(LIMIT).send().await?;
    let header = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let told = header.and_then(|value| retry_after(value, SystemTime::now()));
    if !answer.status().is_success() {
        return Err(AskError::Status { status: answer.status(), retry_after: told });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(AskError::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((serde_json::from_slice(&bytes)?, told))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, extract::State, http::Uri, response::IntoResponse};
    use axum_server::tls_rustls::RustlsConfig;
    use gateway_net::{
        http::foreign_client,
        tls::{ALPN_HTTP1, ServerIdentity, server_config},
    };
    use tokio::task::JoinSet;

    use super::*;

    /// Status, `Retry-After` (empty: none) and body by path.
    type Said = Arc<Mutex<Vec<(String, u16, &'static str, String)>>>;

    struct Authority {
        url: String,
        said: Said,
        http: reqwest::Client,
        _server: JoinSet<()>,
        _directory: tempfile::TempDir,
    }

    async fn answer(State(said): State<Said>, uri: Uri) -> impl IntoResponse {
        let said = said.lock().unwrap();
        let (_, status, retry_after, body) =
            said.iter().find(|(path, ..)| path == uri.path()).cloned().unwrap_or_default();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
        (status, [(RETRY_AFTER, retry_after)], body)
    }

    impl Authority {
        /// Offers renewal information, if told so.
        fn start(offers: bool) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let identity = ServerIdentity::load_or_generate(directory.path(), &["localhost".to_owned()]).unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            let text = if offers { format!("{{\"renewalInfo\": \"{base}/info\"}}") } else { "{}".to_owned() };
            let said = Said::new(Mutex::new(vec![("/dir".to_owned(), 200, "", text)]));
            let tls = RustlsConfig::from_config(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
            let router = Router::new().fallback(answer).with_state(said.clone());
            let mut server = JoinSet::new();
            server.spawn(async move {
                let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
                server.serve(router.into_make_service()).await.unwrap();
            });
            let root = directory.path().join("tls-certificate.pem");
            let http = foreign_client(Some(root.as_path()), None).unwrap();
            Self { url: format!("{base}/dir"), said, http, _server: server, _directory: directory }
        }

        fn says(&self, status: u16, retry_after: &'static str, body: &str) {
            let mut said = self.said.lock().unwrap();
            said.retain(|(path, ..)| path == "/dir");
            said.push(("/info/wP_u.AMr-".to_owned(), status, retry_after, body.to_owned()));
        }

        async fn ask(&self, questions: &mut Questions, renewal: &mut Renewal) -> Duration {
            let name = CertificateIdentifier::new(vec![0xc0_u8, 0xff, 0xee].into(), vec![0_u8, 0xca, 0xfe].into());
            questions.ask(&self.http, &self.url, &name, renewal).await;
            questions.left()
        }
    }

    const WINDOW: &str = r#"{"suggestedWindow": {"start": "2100-01-01T00:00:00Z", "end": "2100-01-02T00:00:00Z"}, "explanationURL": "https://why"}"#;

    /// Of a certificate from 2099-12-02 to 2100-03-02.
    fn renewal() -> Renewal {
        let from = time("2099-12-02T00:00:00Z").unwrap();
        Renewal::new((from, from + Duration::from_secs(90 * 24 * 3600)), 0)
    }

    fn is_about(left: Duration, secs: u64) -> bool {
        left <= Duration::from_secs(secs) && left + LIMIT > Duration::from_secs(secs)
    }

    #[tokio::test]
    async fn a_suggestion_moves_the_renewal_and_is_asked_for_again_when_the_authority_says_so() {
        let (authority, mut questions, mut renewal) = (Authority::start(true), Questions::new(), renewal());
        let own = renewal.at();
        assert_eq!(questions.left(), Duration::ZERO);
        authority.says(200, "7200", WINDOW);
        let left = authority.ask(&mut questions, &mut renewal).await;
        assert!(is_about(left, 7200), "{left:?}");
        assert_eq!(Some(renewal.at()), time("2100-01-01T00:00:00Z"));
        assert_ne!(renewal.at(), own);

        authority.says(200, "", &WINDOW.replace("2100-01-01", "2099-12-31"));
        let left = authority.ask(&mut questions, &mut renewal).await;
        assert!(is_about(left, 6 * 3600), "{left:?}");
        assert_eq!(Some(renewal.at()), time("2099-12-31T00:00:00Z"));
    }

    #[tokio::test]
    async fn what_is_no_answer_leaves_the_renewal_where_it_was() {
        let (authority, mut questions, mut renewal) = (Authority::start(true), Questions::new(), renewal());
        authority.says(200, "60", WINDOW);
        authority.ask(&mut questions, &mut renewal).await;
        let suggested = renewal.at();
        let turned = WINDOW.replace("2100-01-02", "2099-01-02");
        let long = "x".repeat(MAX_ANSWER + 1);
        for (status, body) in [(404, ""), (200, "{}"), (200, "no JSON"), (200, turned.as_str()), (200, long.as_str())] {
            authority.says(status, "60", body);
            let left = authority.ask(&mut questions, &mut renewal).await;
            assert!(is_about(left, 6 * 3600), "{status}: {left:?}");
            assert_eq!(renewal.at(), suggested);
        }
        authority.says(503, "300", "");
        let left = authority.ask(&mut questions, &mut renewal).await;
        assert!(is_about(left, 300), "{left:?}");
        authority.says(503, "", "");
        let left = authority.ask(&mut questions, &mut renewal).await;
        assert!(left <= Duration::from_secs(60), "{left:?}");
        assert_eq!(renewal.at(), suggested);
    }

    #[tokio::test]
    async fn an_authority_that_offers_none_leaves_the_own_rule() {
        let (authority, mut questions, mut renewal) = (Authority::start(false), Questions::new(), renewal());
        let own = renewal.at();
        let left = authority.ask(&mut questions, &mut renewal).await;
        assert!(is_about(left, 6 * 3600), "{left:?}");
        assert_eq!(renewal.at(), own);
        assert!(questions.problem.is_empty());
    }
}
