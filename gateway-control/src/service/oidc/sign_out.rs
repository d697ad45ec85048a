//! Signing out of a session that was made through a provider: it ends here, and its person is told where the one at the provider ends.
//!
//! The provider wants to be reminded of the ID token. That waits sealed beside the session and goes with it; one that is too long to travel
//! to the client inside the code of ours is not kept, and the provider asks the person whether it is meant.

use std::time::Duration;

use gateway_proto::api::platform::{Hidden, Session, SignedOut};
use tokio::time::timeout;

use super::OidcAttempt;
use crate::{
    oidc::Provider,
    service::{Service, ServiceError, ServiceResult, Work, digest},
    storage::{Sealed, SessionProviderRow},
};

/// The longest ID token that is kept: sealed and inside a code it makes an address of some 5 KiB.
const MAX_TOKEN: usize = 2_048;
/// Who signs out waits no longer for a provider that has to be asked first.
const PATIENCE: Duration = Duration::from_secs(3);
const ID_TOKEN: &str = "oidc id token";

impl OidcAttempt {
    /// The ID token of it, if it is to be kept. A code that a person carries stays short.
    pub(super) fn kept(&self, id_token: Hidden) -> Option<Hidden> {
        Some(id_token).filter(|token| self.port.is_some() && token.0.len() <= MAX_TOKEN)
    }
}

impl Work {
    /// Notes through which provider a session was made.
    pub(super) async fn made_through(
        &mut self,
        session: &Session,
        provider: &Provider,
        id_token: Option<&Hidden>,
    ) -> ServiceResult<()> {
        let vault = self.service().settings.vault.clone();
        let sealed = id_token.map(|token| vault.seal(ID_TOKEN, token.0.as_bytes())).transpose();
        let sealed = sealed.map_err(|_| ServiceError::Internal("an ID token cannot be sealed"))?;
        let row = SessionProviderRow { issuer: provider.issuer().to_owned(), id_token: sealed.map(Sealed) };
        Ok(self.put_session_provider(&digest(&session.token.0), &row).await?)
    }
}

impl Service {
    /// Where the session ends at the provider that one of ours was made through; none: the provider is no longer configured, says
    /// nothing of it, or cannot be asked now.
    pub(in crate::service) async fn end_at_provider(&self, through: SessionProviderRow) -> Option<SignedOut> {
        let provider = self.settings.oidc.issuing(&through.issuer)?;
        let token = through.id_token.and_then(|sealed| self.settings.vault.open(ID_TOKEN, &sealed.0).ok());
        let token = token.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        match timeout(PATIENCE, provider.end_of_session(token, self.clock.unix_secs())).await {
            Ok(Ok(end)) => {
                end.map(|end| SignedOut { provider: provider.name().to_owned(), end_session_url: end.into() })
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    provider = provider.name(),
                    "where the session at the provider ends is not known"
                );
                None
            }
            Err(_) => {
                tracing::warn!(provider = provider.name(), "the provider does not say in time where its session ends");
                None
            }
        }
    }
}
