//! One order from the account to the certificate.

use std::{io, path::Path, pin::Pin, time::Duration};

use axum::{body::Bytes, http};
use gateway_net::{
    causes::with_causes,
    secret_file::{self, SecretFileError},
    tls::{AcmeCertificates, ChallengeError, IdentityError, certificate_request},
};
use http_body_util::{BodyExt, Full, Limited};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, CertificateIdentifier, ChallengeType,
    Error, ExternalAccountKey, HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use serde::{Deserialize, Serialize};

use super::challenge::Tokens;
use crate::config::{Acme, ExternalAccountError};

/// File name of the account in the data directory.
const ACCOUNT_FILE: &str = "acme-account.json";
/// How long an authority may look at challenges, and make a certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(60));
/// The largest answer of an authority: chains are a few kilobytes.
const MAX_ANSWER: usize = 1 << 20;
/// What an authority says that does not take `replaces` for this order: it knows no such certificate of ours, or that one was
/// replaced before (RFC 9773 §5).
const NOT_REPLACED: [&str; 3] = [
    "urn:ietf:params:acme:error:alreadyReplaced",
    "urn:ietf:params:acme:error:malformed",
    "urn:ietf:params:acme:error:unauthorized",
];
/// What an authority says that takes only bound accounts.
const UNBOUND: &str = "urn:ietf:params:acme:error:externalAccountRequired";
/// One request and its answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("the certificate authority was not reached, or answered nonsense")]
    Authority(#[source] Error),
    #[error("the certificate authority refused")]
    Refused(#[source] Error),
    #[error("the certificate authority offers no {0} challenge for {1}")]
    NoChallenge(&'static str, String),
    #[error("the certificate authority did not accept the challenge for {domain}: {detail}")]
    Challenge { domain: String, detail: String },
    #[error(transparent)]
    Answer(#[from] ChallengeError),
    #[error("the account file of the data directory")]
    Account(#[source] SecretFileError),
    #[error("the account file {ACCOUNT_FILE} of the data directory holds something else")]
    AccountFile(#[source] serde_json::Error),
    #[error("the key that binds the account (acme.eab_key_file)")]
    ExternalAccount(#[source] ExternalAccountError),
    #[error("the request for the certificate")]
    Request(#[source] IdentityError),
    #[error("the issued certificate is not usable")]
    Unusable(#[source] IdentityError),
    #[error("there is no room for a certificate in the data directory, so none is ordered")]
    Room(#[source] SecretFileError),
    #[error("the issued certificate cannot be kept")]
    Keep(#[source] SecretFileError),
    #[error("the issued certificate cannot take the place of the old one")]
    Rename(#[source] io::Error),
    #[error("the order takes too long")]
    TooLong,
}

impl OrderError {
    /// Whether the authority counts it.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::NoChallenge(..)
                | Self::Challenge { .. }
                | Self::Unusable(_)
                | Self::Keep(_)
                | Self::Rename(_)
                | Self::Account(_)
        )
    }

    /// What to do, in words.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Authority(_) | Self::TooLong => {
                "nothing, if it is down; otherwise check acme.directory, acme.root, DNS, the firewall and the proxy ([network])"
            }
            Self::Refused(Error::Api(problem)) if problem.r#type.as_deref() == Some(UNBOUND) => {
                "it takes only accounts that are bound to one at its operator: set acme.eab_key_id and acme.eab_key_file to what the operator gave you"
            }
            Self::Refused(_) => "read what it says; domains, contact and rate limits are the usual causes",
            Self::NoChallenge(..) => "set acme.http_listen for HTTP-01, or leave it out for TLS-ALPN-01",
            Self::Challenge { .. } => {
                "the domain must lead to this relay: port 443 for TLS-ALPN-01, port 80 for HTTP-01 (acme.http_listen)"
            }
            Self::ExternalAccount(_) => {
                "put the HMAC key that the authority gave into that file, in base64, mode 0600; or remove acme.eab_key_id and acme.eab_key_file if the account is made"
            }
            Self::Account(_) | Self::AccountFile(_) => {
                "restore the account file, or remove it: another account is made then"
            }
            Self::Answer(_)
            | Self::Request(_)
            | Self::Unusable(_)
            | Self::Room(_)
            | Self::Keep(_)
            | Self::Rename(_) => "check the files and the room of the data directory",
        }
    }
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        if matches!(error, Error::Api(_)) { Self::Refused(error) } else { Self::Authority(error) }
    }
}

/// Places an order and answers its challenges: the chain, PEM, the relay's own certificate first. `replaced` is the
/// certificate that it takes the place of.
pub(super) async fn place(
    acme: &Acme,
    data_dir: &Path,
    http: &reqwest::Client,
    replaced: Option<&CertificateIdentifier<'static>>,
    tokens: &Tokens,
    certificates: &AcmeCertificates,
) -> Result<String, OrderError> {
    let account = account(acme, data_dir, http).await?;
    let mut order = new_order(acme, &account, replaced).await?;
    answer(acme, &mut order, tokens, certificates).await?;
    // Some authorities say it of the order, others of the challenge only; the challenge tells more.
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) | Err(Error::Api(_)) => return Err(refused_challenge(&mut order).await),
        Err(error) => return Err(error.into()),
    }
    let request = certificate_request(data_dir, &acme.domains).map_err(OrderError::Request)?;
    order.finalize_csr(&request).await?;
    Ok(order.poll_certificate(&PATIENCE).await?)
}

/// Says which certificate it replaces where the authority takes it: such orders do not count against its limits.
async fn new_order(
    acme: &Acme,
    account: &Account,
    replaced: Option<&CertificateIdentifier<'static>>,
) -> Result<Order, OrderError> {
    let identifiers: Vec<_> = acme.domains.iter().cloned().map(Identifier::Dns).collect();
    if let Some(replaced) = replaced {
        match account.new_order(&NewOrder::new(&identifiers).replaces(replaced.clone())).await {
            Err(error) if is_about_replacing(&error) => {
                tracing::info!(problem = %with_causes(&error), "the order is placed as one that replaces no certificate");
            }
            placed => return Ok(placed?),
        }
    }
    Ok(account.new_order(&NewOrder::new(&identifiers)).await?)
}

fn is_about_replacing(error: &Error) -> bool {
    if let Error::Api(problem) = error {
        return problem.r#type.as_deref().is_some_and(|kind| NOT_REPLACED.contains(&kind));
    }
    // The library's own words for an answer that does not repeat `replaces`; what the connection says is of our client.
    if let Error::Other(source) = error {
        return !source.is::<reqwest::Error>();
    }
    matches!(error, Error::Unsupported(_))
}

async fn answer(
    acme: &Acme,
    order: &mut Order,
    tokens: &Tokens,
    certificates: &AcmeCertificates,
) -> Result<(), OrderError> {
    let (kind, name) = match acme.http_listen {
        Some(_) => (ChallengeType::Http01, "http-01"),
        None => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = authorization.identifier().to_string();
        let challenge = authorization.challenge(kind.clone());
        let mut challenge = challenge.ok_or_else(|| OrderError::NoChallenge(name, domain.clone()))?;
        let key = challenge.key_authorization();
        if acme.http_listen.is_some() {
            tokens.answer(&challenge.token, key.as_str());
        } else {
            let digest = key.digest();
            let digest = digest.as_ref().try_into().map_err(|_| Error::Crypto)?;
            certificates.answer(&domain, digest)?;
        }
        challenge.set_ready().await?;
    }
    Ok(())
}

/// What the authority says of the challenge that failed.
async fn refused_challenge(order: &mut Order) -> OrderError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let domain = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else { continue };
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            return OrderError::Challenge { domain, detail: problem.to_string() };
        }
    }
    OrderError::Challenge { domain: "its domains".to_owned(), detail: "no reason was given".to_owned() }
}

/// The account at this directory, and where it was made.
#[derive(Serialize, Deserialize)]
struct Kept {
    directory: String,
    /// What it was bound to; none: to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eab_key_id: Option<String>,
    credentials: serde_json::Value,
}

impl Kept {
    /// Whether it is the account of the configuration: at its authority, and bound as it says. One that says nothing of it has
    /// nothing against a bound account, so what was needed once may be removed.
    fn is_for(&self, acme: &Acme) -> bool {
        let bound =
            acme.external_account.as_ref().is_none_or(|wanted| self.eab_key_id.as_ref() == Some(&wanted.key_id));
        self.directory == acme.directory && bound
    }
}

async fn account(acme: &Acme, data_dir: &Path, http: &reqwest::Client) -> Result<Account, OrderError> {
    let path = data_dir.join(ACCOUNT_FILE);
    let builder = Account::builder_with_http(Box::new(Http(http.clone())));
    match secret_file::read(&path) {
        Ok(text) => {
            let kept: Kept = serde_json::from_slice(&text).map_err(OrderError::AccountFile)?;
            if kept.is_for(acme) {
                let credentials: AccountCredentials =
                    serde_json::from_value(kept.credentials).map_err(OrderError::AccountFile)?;
                return Ok(builder.from_credentials(credentials).await?);
            }
        }
        Err(SecretFileError::Missing { .. }) => {}
        Err(error) => return Err(OrderError::Account(error)),
    }
    let contact: Vec<_> = acme.contact.iter().map(String::as_str).collect();
    // That they are agreed to is a condition of the configuration.
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = acme.external_account.as_ref();
    let key = external.map(|external| external.key().map(|key| ExternalAccountKey::new(external.key_id.clone(), &key)));
    let key = key.transpose().map_err(OrderError::ExternalAccount)?;
    let (account, credentials) = builder.create(&new, acme.directory.clone(), key.as_ref()).await?;
    let credentials = serde_json::to_value(&credentials).map_err(OrderError::AccountFile)?;
    let eab_key_id = external.map(|external| external.key_id.clone());
    let kept = Kept { directory: acme.directory.clone(), eab_key_id, credentials };
    let text = serde_json::to_vec(&kept).map_err(OrderError::AccountFile)?;
    super::give_room_back(data_dir);
    secret_file::write(&path, &text).map_err(OrderError::Account)?;
    Ok(account)
}

/// Our client, for the library.
struct Http(reqwest::Client);

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap_or_else(|never| match never {}).to_bytes();
            let other = |error: reqwest::Error| Error::Other(Box::new(error));
            let request = reqwest::Request::try_from(http::Request::from_parts(parts, body)).map_err(other)?;
            let answer = tokio::time::timeout(REQUEST_LIMIT, async {
                let (parts, body) = http::Response::from(client.execute(request).await.map_err(other)?).into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(Error::Other)?.to_bytes();
                Ok(BytesResponse::from(http::Response::from_parts(parts, Full::new(body))))
            });
            answer.await.unwrap_or(Err(Error::Timeout(None)))
        })
    }
}

#[cfg(test)]
mod tests {
    use gateway_net::http::foreign_client;

    use super::*;
    use crate::config::ExternalAccount;

    fn acme(directory: &str, key_id: Option<&str>) -> Acme {
        let account = |key_id: &str| ExternalAccount { key_id: key_id.to_owned(), key_file: "/k".into() };
        Acme {
            domains: Vec::new(),
            contact: Vec::new(),
            directory: directory.to_owned(),
            root: None,
            external_account: key_id.map(account),
            http_listen: None,
        }
    }

    fn kept(text: &str) -> Kept {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_account_is_kept_for_its_authority_and_what_it_is_bound_to() {
        let free = kept(r#"{"directory": "https://a", "credentials": {}}"#);
        assert!(free.is_for(&acme("https://a", None)) && !free.is_for(&acme("https://b", None)));
        assert!(!free.is_for(&acme("https://a", Some("one"))), "it is bound now");
        let bound = kept(r#"{"directory": "https://a", "eab_key_id": "one", "credentials": {}}"#);
        assert!(bound.is_for(&acme("https://a", Some("one"))) && !bound.is_for(&acme("https://a", Some("two"))));
        assert!(bound.is_for(&acme("https://a", None)), "the key is needed once only");
    }

    #[test]
    fn only_what_is_about_the_replaced_certificate_is_asked_for_again_without_it() {
        let api = |kind: &str| -> Error {
            let problem = serde_json::json!({ "type": format!("urn:ietf:params:acme:error:{kind}") });
            Error::Api(serde_json::from_value(problem).unwrap())
        };
        assert!(is_about_replacing(&api("alreadyReplaced")) && is_about_replacing(&Error::Unsupported("it")));
        assert!(is_about_replacing(&Error::Other("replaces field mismatch".into())));
        assert!(!is_about_replacing(&api("rateLimited")) && !is_about_replacing(&api("rejectedIdentifier")));
        let unreached = foreign_client(None, None).unwrap().get("no address").build().unwrap_err();
        assert!(!is_about_replacing(&Error::Other(Box::new(unreached))));
        assert!(!is_about_replacing(&Error::Timeout(None)));
    }

    #[test]
    fn an_authority_that_takes_only_bound_accounts_is_told_as_such() {
        let problem = serde_json::json!({ "type": UNBOUND, "detail": "no" });
        let error = OrderError::from(Error::Api(serde_json::from_value(problem).unwrap()));
        assert!(error.is_refusal() && error.remedy().contains("acme.eab_key_file"));
    }
}
