//! Where a session at a provider ends (RP-Initiated Logout 1.0), as far as the provider says so.

use openidconnect::{
    AdditionalProviderMetadata, ProviderMetadata,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
        CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::{Jwe, Provider, ProviderError};

/// What a discovery document says beyond the core of the standard.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct MoreMetadata {
    /// Whatever it is: what is no address keeps nobody from signing in.
    #[serde(default)]
    end_session_endpoint: Option<Value>,
}

impl AdditionalProviderMetadata for MoreMetadata {}

/// A discovery document.
pub(super) type Metadata = ProviderMetadata<
    MoreMetadata,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    Jwe,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

impl Provider {
    /// Where a browser ends its session here, which signed somebody in with this ID token; without the token the provider asks whether it
    /// is meant. None: the provider names no such place.
    pub async fn end_of_session(&self, id_token: Option<&str>, now: u64) -> Result<Option<Url>, ProviderError> {
        let known = self.known(now).await?;
        let endpoint = known.metadata.additional_metadata().end_session_endpoint.as_ref();
        let url = endpoint.and_then(Value::as_str).and_then(|text| Url::parse(text).ok());
        let Some(mut url) = url.filter(|url| url.scheme() == "https") else { return Ok(None) };
        url.query_pairs_mut()
            .append_pair("client_id", &self.config.client_id)
            .extend_pairs(id_token.map(|token| ("id_token_hint", token)));
        Ok(Some(url))
    }
}
