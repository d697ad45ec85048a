//! The client of the control plane: `/api/v1`, credentials, pages followed to their end.

use std::time::Duration;

use gateway_net::proxy::Proxy;
use gateway_proto::api::{Page, platform::Hidden};
use reqwest::{Method, RequestBuilder, header::AUTHORIZATION};
use serde::{Serialize, de::DeserializeOwned};

use super::{ClientError, Http};
use crate::{error::CtlError, profile::Target};

/// Room for a password hash on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// A list longer than this is read by nobody, or has no end.
const MAX_ITEMS: usize = 100_000;
/// Pages of a list at most, also when they are empty.
const MAX_PAGES: usize = 10_000;

/// Whose permission a request carries.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// Nobody's: signing in, registering.
    Nobody,
    /// A user's session.
    Session(Hidden),
    /// The operator of the platform.
    Operator(Hidden),
}

/// The control plane.
#[derive(Debug)]
pub(crate) struct Control {
    http: Http,
    credential: Credential,
}

impl Control {
    /// A client; nothing is sent yet.
    pub(crate) fn new(target: &Target, credential: Credential) -> Result<Self, ClientError> {
        let client = gateway_net::http::client(target.trust(), Proxy::from_environment()?.as_ref())?;
        let address = target.url.as_str().trim_end_matches('/').to_owned();
        let http = Http { client, base: format!("{address}/api/v1"), address, socket: None };
        Ok(Self { http, credential })
    }

    /// `GET` of one thing.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(self.request(Method::GET, path)).await
    }

    /// `POST` with a body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.call(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` of a verb that needs no body.
    pub(crate) async fn act<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(self.request(Method::POST, path)).await
    }

    /// `PATCH`.
    pub(crate) async fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.call(self.request(Method::PATCH, path).json(body)).await
    }

    /// `POST` whose answer has no body.
    pub(crate) async fn post_only(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.done(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT`.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.call(self.request(Method::PUT, path).json(body)).await
    }

    /// `PUT` whose answer has no body.
    pub(crate) async fn put_only(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.done(self.request(Method::PUT, path).json(body)).await
    }

    /// `DELETE`; whatever a good answer says is not needed.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.done(self.request(Method::DELETE, path)).await
    }

    /// `DELETE` of what may leave something to be told.
    pub(crate) async fn end<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ClientError> {
        let sent = self.http.send(self.request(Method::DELETE, path), LIMIT).await;
        let body = sent.map_err(|error| self.refused(error))?;
        if body.is_empty() {
            return Ok(None);
        }
        let unreadable = |source| ClientError::Decode { address: self.http.address.clone(), source };
        serde_json::from_slice(&body).map(Some).map_err(unreadable)
    }

    /// A whole list, page by page; with `limit`, its first entries.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: Option<usize>,
    ) -> Result<Vec<T>, ClientError> {
        self.follow(path, query, limit.unwrap_or(usize::MAX), None).await
    }

    /// What comes after the page that named this cursor.
    pub(crate) async fn rest<T: DeserializeOwned>(&self, path: &str, cursor: String) -> Result<Vec<T>, ClientError> {
        self.follow(path, &[], usize::MAX, Some(cursor)).await
    }

    async fn follow<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        wanted: usize,
        mut cursor: Option<String>,
    ) -> Result<Vec<T>, ClientError> {
        let mut items: Vec<T> = Vec::new();
        for _ in 0..MAX_PAGES {
            let page: Page<T> = self.page(path, query, cursor.as_deref()).await?;
            items.extend(page.items);
            let Some(next) = page.next.filter(|_| items.len() < wanted) else {
                items.truncate(wanted);
                return Ok(items);
            };
            if items.len() > MAX_ITEMS || cursor.as_ref() == Some(&next) {
                break;
            }
            cursor = Some(next);
        }
        Err(ClientError::TooLarge { address: self.http.address.clone() })
    }

    /// Hands a list to `each` page by page, however long it is.
    pub(crate) async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        mut each: impl FnMut(Vec<T>) -> Result<(), CtlError>,
    ) -> Result<(), CtlError> {
        let mut cursor: Option<String> = None;
        loop {
            let page: Page<T> = self.page(path, query, cursor.as_deref()).await?;
            let is_empty = page.items.is_empty();
            each(page.items)?;
            let Some(next) = page.next else { return Ok(()) };
            // A list that does not go on has no end either.
            if is_empty || cursor.as_ref() == Some(&next) {
                return Err(ClientError::TooLarge { address: self.http.address.clone() }.into());
            }
            cursor = Some(next);
        }
    }

    async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        cursor: Option<&str>,
    ) -> Result<Page<T>, ClientError> {
        let request = self.request(Method::GET, path).query(query);
        self.call(match cursor {
            Some(cursor) => request.query(&[("cursor", cursor)]),
            None => request,
        })
        .await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.client.request(method, self.http.url(path));
        match &self.credential {
            Credential::Nobody => request,
            Credential::Session(token) => request.bearer_auth(&token.0),
            Credential::Operator(token) => {
                let text = zeroize::Zeroizing::new(format!("Operator {}", token.0));
                request.header(AUTHORIZATION, text.as_str())
            }
        }
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.http.call(request, LIMIT).await.map_err(|error| self.refused(error))
    }

    /// For a request whose answer says nothing that is needed.
    async fn done(&self, request: RequestBuilder) -> Result<(), ClientError> {
        self.http.send(request, LIMIT).await.map_err(|error| self.refused(error))?;
        Ok(())
    }

    /// Only a session can be renewed by signing in again.
    fn refused(&self, error: ClientError) -> ClientError {
        match (error, &self.credential) {
            (ClientError::Refused(problem), Credential::Session(_)) if problem.code == "unauthenticated" => {
                ClientError::SessionRefused(problem)
            }
            (other, _) => other,
        }
    }
}
