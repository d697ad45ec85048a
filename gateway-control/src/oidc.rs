//! Providers of OpenID Connect: what is asked of them, and which of their answers are believed.
//!
//! Authorization code with PKCE, nonce and state. The discovery document and the keys are fetched when they are first needed,
//! and again after an hour; keys also when a token names one that is not known. An ID token is believed when one of the
//! provider's own public keys signed it (no `none`, no shared secret), for us alone, now, and for the sign-in it answers.
//! The protocol is the library `openidconnect`'s; limits of time, size and place, and what claims must say, are ours.
//!
//! Invariants: no secret, code or token is in an error or a log; a provider holds at most [`PLACES`] of our requests.

mod claims;
mod fetch;
mod setup;
mod sign_out;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use gateway_net::causes::with_causes;
use gateway_proto::{api::platform::Hidden, id::OrganizationId};
use openidconnect::{
    AccessToken, AdditionalClaims, AuthType, AuthenticationContextClass, AuthenticationFlow, AuthorizationCode,
    ClaimsVerificationError, Client, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, IdToken, IdTokenClaims, IdTokenFields, IdTokenVerifier, IssuerUrl, JsonWebKeySet,
    Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, SignatureVerificationError,
    StandardErrorResponse, StandardTokenResponse, SubjectIdentifier, TokenResponse,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreClientAuthMethod, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
        CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreResponseType,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use self::{claims::Facts, fetch::Fetcher, sign_out::Metadata};
pub use self::{
    fetch::FetchError,
    setup::{OidcSetupError, Providers},
};
use crate::config::OidcConfig;

/// Requests to one provider at the same time.
const PLACES: usize = 16;
/// How long the discovery document and the keys are believed, seconds.
const KNOWN_SECS: u64 = 3600;
/// Keys are not fetched again sooner, whatever tokens name, seconds.
const KEYS_SECS: u64 = 10;
/// Clocks are this far apart at most, seconds.
const SKEW_SECS: u64 = 60;
/// A token answers a sign-in of now: it is no older than one may last, seconds.
const MAX_AGE_SECS: u64 = 600;
/// The longest subject (OpenID Connect Core §2).
const MAX_SUBJECT: usize = 255;

/// Signatures that are believed: with a public key of the provider.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Claims that the standard does not name: groups, mostly.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct MoreClaims {
    #[serde(flatten)]
    all: BTreeMap<String, Value>,
}

impl AdditionalClaims for MoreClaims {}

type Jwe = CoreJweContentEncryptionAlgorithm;
type Jws = CoreJwsSigningAlgorithm;
type Claims = IdTokenClaims<MoreClaims, CoreGenderClaim>;
type Token = IdToken<MoreClaims, CoreGenderClaim, Jwe, Jws>;
type TokenFields = IdTokenFields<MoreClaims, EmptyExtraTokenFields, CoreGenderClaim, Jwe, Jws>;
type TokenAnswer = StandardTokenResponse<TokenFields, CoreTokenType>;
type RelyingParty = Client<
    MoreClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    Jwe,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    TokenAnswer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Why a provider's answer does not sign anybody in.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// No answer.
    #[error("the sign-in provider cannot be reached; try again in a moment")]
    Unreachable(#[source] FetchError),
    /// An answer that is none of a provider's.
    #[error("the sign-in provider answers in a way that cannot be used: {0}")]
    Answer(String),
    /// The provider does not take its own code back.
    #[error("the sign-in provider does not take the code it gave: {0}; sign in again from the start")]
    Code(String),
    /// The ID token.
    #[error("the token of the sign-in provider is not accepted: {0}")]
    Token(String),
    /// What the token says is not enough.
    #[error("{0}")]
    Refused(String),
}

/// Who signed in at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The account, unique at its issuer for ever.
    pub subject: String,
    /// The address that the provider vouches for, in lower case; none: it vouches for none, and why.
    pub address: Result<String, String>,
    /// What the provider said it with, to remind it of that.
    pub id_token: Hidden,
}

/// What belongs to one sign-in, beside the code.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What the token must repeat.
    pub nonce: &'a str,
    /// The verifier of PKCE.
    pub verifier: &'a str,
    /// Where the provider sends the browser.
    pub redirect: &'a str,
}

/// A provider.
pub struct Provider {
    config: OidcConfig,
    secret: Option<Hidden>,
    fetcher: Fetcher,
    known: Mutex<Option<Known>>,
}

/// What the provider says about itself.
#[derive(Clone)]
struct Known {
    metadata: Arc<Metadata>,
    at: u64,
    keys_at: u64,
}

impl Provider {
    /// Its name on this platform.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Whether it signs users of this organization in.
    pub fn serves(&self, organization: OrganizationId) -> bool {
        self.config.organizations.is_empty() || self.config.organizations.contains(&organization)
    }

    /// The organizations whose users it signs in; none: those of all.
    pub fn organizations(&self) -> &BTreeSet<OrganizationId> {
        &self.config.organizations
    }

    /// Whether users linked to it may sign in with a password.
    pub fn password_for_linked(&self) -> bool {
        self.config.password_for_linked
    }

    /// Where a person signs in; `state` comes back with the browser.
    pub async fn authorization(&self, attempt: Attempt<'_>, state: &str, now: u64) -> Result<Url, ProviderError> {
        let known = self.known(now).await?;
        let client = self.client(&known, attempt.redirect)?;
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&pkce(attempt.verifier));
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let (state, nonce) = (state.to_owned(), attempt.nonce.to_owned());
        let mut request = client
            .authorize_url(flow, move || CsrfToken::new(state), move || Nonce::new(nonce))
            .set_pkce_challenge(challenge)
            .add_scopes(self.config.scopes.iter().cloned().map(Scope::new));
        for acr in &self.config.required_acr {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        Ok(request.url().0)
    }

    /// Gives a code back, and says who signed in.
    pub async fn redeem(&self, attempt: Attempt<'_>, code: String, now: u64) -> Result<Verified, ProviderError> {
        let known = self.known(now).await?;
        let client = self.client(&known, attempt.redirect)?;
        let request = client.exchange_code(AuthorizationCode::new(code));
        let request = request.map_err(|_| ProviderError::Answer("its discovery names no token endpoint".to_owned()))?;
        let request = request.set_pkce_verifier(pkce(attempt.verifier));
        let answer: TokenAnswer = request.request_async(&self.fetcher).await.map_err(fetch::of_token)?;
        let token = answer.id_token().ok_or_else(|| ProviderError::Token("there is no ID token".to_owned()))?;
        let nonce = Nonce::new(attempt.nonce.to_owned());
        let claims = match self.verify(token, known.metadata.jwks(), &nonce, now) {
            Err(error) if is_about_keys(&error) => {
                let keys = self.newer_keys(&known, now).await?;
                self.verify(token, &keys, &nonce, now)
            }
            verified => verified,
        };
        let claims = claims.map_err(|error| ProviderError::Token(words(&error)))?;
        if claims.authorized_party().is_some_and(|party| party.as_str() != self.config.client_id) {
            return Err(ProviderError::Token("it was made for another client".to_owned()));
        }
        let subject = claims.subject().as_str();
        if subject.is_empty() || subject.len() > MAX_SUBJECT || !subject.is_ascii() {
            return Err(ProviderError::Token("its subject is not 1 to 255 ASCII characters".to_owned()));
        }
        let mut facts = Facts::of(claims);
        if !facts.suffice(&self.config) {
            self.ask_more(&client, answer.access_token(), claims.subject(), &mut facts).await?;
        }
        facts.check(&self.config).map_err(ProviderError::Refused)?;
        let (subject, id_token) = (subject.to_owned(), Hidden(token.to_string()));
        Ok(Verified { subject, address: facts.address(&self.config), id_token })
    }

    /// What the token leaves out may be at the provider's userinfo endpoint.
    async fn ask_more(
        &self,
        client: &RelyingParty,
        token: &AccessToken,
        subject: &SubjectIdentifier,
        facts: &mut Facts,
    ) -> Result<(), ProviderError> {
        // The library puts it into a header, and expects that it fits.
        if !token.secret().bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ProviderError::Answer("its access token is no token".to_owned()));
        }
        let Ok(request) = client.user_info(token.clone(), Some(subject.clone())) else { return Ok(()) };
        let answer = request.request_async::<MoreClaims, _, CoreGenderClaim>(&self.fetcher).await;
        facts.add(&answer.map_err(fetch::of_user_info)?);
        Ok(())
    }

    fn verify<'t>(
        &self,
        token: &'t Token,
        keys: &CoreJsonWebKeySet,
        nonce: &Nonce,
        now: u64,
    ) -> Result<&'t Claims, ClaimsVerificationError> {
        let issuer = IssuerUrl::new(self.config.issuer.clone())
            .map_err(|_| ClaimsVerificationError::InvalidIssuer("the configured issuer is no URL".to_owned()))?;
        // A verifier for public clients has no shared secret, whatever a token asks for.
        let verifier =
            IdTokenVerifier::new_public_client(ClientId::new(self.config.client_id.clone()), issuer, keys.clone())
                .set_allowed_algs(ALGORITHMS)
                .set_time_fn(move || time(now.saturating_sub(SKEW_SECS)))
                .set_issue_time_verifier_fn(move |at| {
                    if at > time(now + SKEW_SECS) {
                        return Err("it was issued in the future: compare the clocks".to_owned());
                    }
                    if at < time(now.saturating_sub(MAX_AGE_SECS + SKEW_SECS)) {
                        return Err("it was issued too long ago".to_owned());
                    }
                    Ok(())
                });
        token.claims(&verifier, nonce)
    }

    fn client(&self, known: &Known, redirect: &str) -> Result<RelyingParty, ProviderError> {
        let id = ClientId::new(self.config.client_id.clone());
        let secret = self.secret.as_ref().map(|secret| ClientSecret::new(secret.0.clone()));
        let redirect = RedirectUrl::new(redirect.to_owned())
            .map_err(|_| ProviderError::Answer("our own address is no URL".to_owned()))?;
        let methods = known.metadata.token_endpoint_auth_methods_supported();
        let basic = methods.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
        let client = RelyingParty::from_provider_metadata(Metadata::clone(&known.metadata), id, secret);
        let way = if basic && self.secret.is_some() { AuthType::BasicAuth } else { AuthType::RequestBody };
        Ok(client.set_redirect_uri(redirect).set_auth_type(way))
    }

    async fn known(&self, now: u64) -> Result<Known, ProviderError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| now.saturating_sub(known.at) < KNOWN_SECS) {
            return Ok(known);
        }
        let issuer = IssuerUrl::new(self.config.issuer.clone())
            .map_err(|_| ProviderError::Answer("the configured issuer is no URL".to_owned()))?;
        let metadata = Metadata::discover_async(issuer, &self.fetcher).await.map_err(fetch::of_discovery)?;
        // The browser goes there; everything else is asked by a client that knows nothing but https.
        if metadata.authorization_endpoint().url().scheme() != "https" {
            return Err(ProviderError::Answer("its authorization endpoint is not https".to_owned()));
        }
        let known = Known { metadata: Arc::new(metadata), at: now, keys_at: now };
        self.remember(known.clone());
        Ok(known)
    }

    /// The keys of now, for a token that names one which is not known.
    async fn newer_keys(&self, known: &Known, now: u64) -> Result<CoreJsonWebKeySet, ProviderError> {
        let newest = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(newest) = newest.filter(|newest| now.saturating_sub(newest.keys_at) < KEYS_SECS) {
            return Ok(newest.metadata.jwks().clone());
        }
        let keys: CoreJsonWebKeySet =
            JsonWebKeySet::fetch_async(known.metadata.jwks_uri(), &self.fetcher).await.map_err(fetch::of_discovery)?;
        let metadata = Metadata::clone(&known.metadata).set_jwks(keys.clone());
        self.remember(Known { metadata: Arc::new(metadata), at: known.at, keys_at: now });
        Ok(keys)
    }

    fn remember(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("config", &self.config).finish_non_exhaustive()
    }
}

fn pkce(verifier: &str) -> PkceCodeVerifier {
    PkceCodeVerifier::new(verifier.to_owned())
}

fn time(unix_secs: u64) -> DateTime<Utc> {
    i64::try_from(unix_secs).ok().and_then(|secs| DateTime::from_timestamp(secs, 0)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Whether other keys could make a difference.
fn is_about_keys(error: &ClaimsVerificationError) -> bool {
    use SignatureVerificationError::{AmbiguousKeyId, CryptoError, NoMatchingKey};
    matches!(error, ClaimsVerificationError::SignatureVerification(NoMatchingKey | CryptoError(_) | AmbiguousKeyId(_)))
}

/// The words of an error and of what is behind it.
fn words(error: &dyn std::error::Error) -> String {
    with_causes(error).chars().filter(|c| !c.is_control()).take(300).collect()
}
