//! Requests to a provider: bounded in time, size and number, never redirected; and what their failures mean.

use std::{pin::Pin, time::Duration};

use openidconnect::{
    AsyncHttpClient, DiscoveryError, HttpRequest, HttpResponse, RequestTokenError, StandardErrorResponse,
    UserInfoError, core::CoreErrorResponseType, http,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{ProviderError, words};

/// A provider that takes longer is as good as away.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest answer: keys of the largest providers are some 20 KiB.
const MAX_ANSWER: usize = 256 << 10;

/// Why a provider gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request could not be sent, or its answer not be read.
    #[error("the request failed")]
    Http(#[source] reqwest::Error),
    /// Too slow, or too many at once.
    #[error("there was no answer within {} s", LIMIT.as_secs())]
    Slow,
    /// Too large.
    #[error("the answer is larger than {} KiB", MAX_ANSWER >> 10)]
    TooLarge,
    /// It sends us elsewhere.
    #[error("the answer sends us to another address, which a provider's endpoints do not do (HTTP {0})")]
    Redirect(u16),
    /// What was read is no answer.
    #[error("the answer is no HTTP")]
    Malformed,
}

/// Asks one provider, for the library.
#[derive(Debug)]
pub(super) struct Fetcher {
    http: reqwest::Client,
    places: Semaphore,
}

impl Fetcher {
    /// With this client, so many requests at the same time.
    pub(super) fn new(http: reqwest::Client, places: usize) -> Self {
        Self { http, places: Semaphore::new(places) }
    }

    async fn fetch(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let _place = self.places.acquire().await.map_err(|_| FetchError::Slow)?;
        let failed = |error: reqwest::Error| FetchError::Http(error.without_url());
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut answer = self.http.execute(request).await.map_err(failed)?;
        if answer.status().is_redirection() {
            return Err(FetchError::Redirect(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = http::Response::builder().status(answer.status());
        if let Some(kind) = answer.headers().get(http::header::CONTENT_TYPE) {
            response = response.header(http::header::CONTENT_TYPE, kind);
        }
        response.body(body).map_err(|_| FetchError::Malformed)
    }
}

impl<'c> AsyncHttpClient<'c> for Fetcher {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move { timeout(LIMIT, self.fetch(request)).await.unwrap_or(Err(FetchError::Slow)) })
    }
}

/// What the failure to discover a provider means.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow")]
pub(super) fn of_discovery(error: DiscoveryError<FetchError>) -> ProviderError {
    match error {
        DiscoveryError::Request(error) => of_fetch(error),
        // What was parsed is not repeated.
        DiscoveryError::Parse(error) => {
            ProviderError::Answer(format!("its document is not understood at '{}'", error.path()))
        }
        DiscoveryError::Response(status, _, _) => ProviderError::Answer(format!("HTTP {status} for its own documents")),
        other => ProviderError::Answer(words(&other)),
    }
}

/// What the failure to get a token for a code means.
pub(super) fn of_token(
    error: RequestTokenError<FetchError, StandardErrorResponse<CoreErrorResponseType>>,
) -> ProviderError {
    match error {
        RequestTokenError::Request(error) => of_fetch(error),
        RequestTokenError::ServerResponse(answer) => {
            ProviderError::Code(answer.error().to_string().chars().filter(|c| !c.is_control()).take(100).collect())
        }
        // What was parsed holds tokens.
        RequestTokenError::Parse(error, _) => {
            ProviderError::Answer(format!("its token answer is not understood at '{}'", error.path()))
        }
        RequestTokenError::Other(_) => ProviderError::Answer("its token endpoint fails".to_owned()),
    }
}

/// What the failure to ask for more claims means.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow")]
pub(super) fn of_user_info(error: UserInfoError<FetchError>) -> ProviderError {
    match error {
        UserInfoError::Request(error) => of_fetch(error),
        UserInfoError::ClaimsVerification(_) => ProviderError::Answer("its userinfo is about somebody else".to_owned()),
        _ => ProviderError::Answer("its userinfo endpoint fails".to_owned()),
    }
}

fn of_fetch(error: FetchError) -> ProviderError {
    match error {
        FetchError::Http(_) | FetchError::Slow => ProviderError::Unreachable(error),
        FetchError::TooLarge | FetchError::Redirect(_) | FetchError::Malformed => {
            ProviderError::Answer(error.to_string())
        }
    }
}
