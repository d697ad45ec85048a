//! The operator token and the registration token.
//!
//! Each begins as a file of the data directory. A rotation makes a new one, of which the storage keeps the hash, and says
//! until when what counted before still counts. The file's token counts as long as the storage knows nothing of it, so
//! whoever lost all others writes a new one into the file.

use data_encoding::HEXLOWER;
use gateway_proto::api::platform::{Hidden, PlatformToken, RotatePlatformToken, RotatedPlatformToken};

use super::{OperatorCaller, Service, ServiceError, ServiceResult, Stranger, bounds, digest, validate, work::Who};
use crate::storage::PlatformTokenRow;

impl Service {
    /// Whether a token counts.
    pub(super) async fn is_platform_token(&self, kind: PlatformToken, token: &str) -> ServiceResult<bool> {
        // Digests are compared, so the time taken tells nothing about the token.
        let (hash, now) = (digest(token), self.clock.unix_secs());
        let rows = self.storage.read().await?.platform_tokens(kind.name()).await?;
        Ok(match rows.iter().find(|row| row.hash == hash) {
            Some(row) => row.expires_at.is_none_or(|end| now < end),
            None => hash == self.file_hash(kind),
        })
    }

    /// Whether this is the token of the platform's operator.
    pub async fn is_operator(&self, token: &str) -> ServiceResult<bool> {
        self.is_platform_token(PlatformToken::Operator, token).await
    }

    /// Makes a new token, as the operator of the platform; the old ones count for a while.
    pub async fn rotate_platform_token(
        &self,
        operator: &OperatorCaller,
        kind: PlatformToken,
        body: RotatePlatformToken,
    ) -> ServiceResult<RotatedPlatformToken> {
        let (min, default, max) = bounds::PLATFORM_TOKEN_OVERLAP_SECS;
        let overlap = validate::range("overlap_secs", body.overlap_secs.unwrap_or(default), min, max)?;
        let mut work = self.work_of_operator(operator).await?;
        let now = work.now;
        let mut rows = work.platform_tokens(kind.name()).await?;
        let file = self.file_hash(kind);
        if !rows.iter().any(|row| row.hash == file) {
            rows.push(PlatformTokenRow { hash: file, expires_at: None, created_at: now });
        }
        let end = now.saturating_add(overlap);
        for row in rows.iter_mut().filter(|row| row.expires_at.is_none_or(|at| at > end)) {
            row.expires_at = Some(end);
            work.put_platform_token(kind.name(), row).await?;
        }
        let token = format!("{}{}", kind.prefix(), HEXLOWER.encode(&gateway_net::random::<32>()));
        let fresh = PlatformTokenRow { hash: digest(&token), expires_at: None, created_at: now };
        work.put_platform_token(kind.name(), &fresh).await?;
        let detail = format!("those before count for {overlap} s");
        work.audit_platform("platform_token.rotate", format!("{} token", kind.name()), detail).await?;
        work.commit().await?;
        Ok(RotatedPlatformToken { token: Hidden(token), old_until: end })
    }

    /// Says so when the token in a file counts no more: scripts that read it there are refused.
    pub async fn look_at_token_files(&self) -> ServiceResult<()> {
        for kind in [PlatformToken::Operator, PlatformToken::Registration] {
            if !self.is_platform_token(kind, &self.file_token(kind).0).await? {
                tracing::warn!(
                    "the {} token in the data directory was replaced and counts no more; write the new one into the file",
                    kind.name()
                );
            }
        }
        Ok(())
    }

    /// Writes a refused operator token into the log of the platform; a flood of them only once in a while.
    pub fn note_refused_operator(&self, stranger: &Stranger) -> ServiceError {
        if self.rates.operator_refusals.check(&()).is_ok() {
            let (service, who) = (self.clone(), Who::stranger(stranger));
            self.commits.spawn(async move {
                let written = async {
                    let mut work = service.work(who).await?;
                    work.audit_platform("operator.refuse", "operator token", "a wrong token, or one that ended")
                        .await?;
                    work.commit().await
                };
                if let Err(error) = written.await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a refused operator is not in the log");
                }
            });
        }
        ServiceError::Unauthenticated("the operator token is wrong, or was replaced by a newer one")
    }

    fn file_hash(&self, kind: PlatformToken) -> String {
        digest(&self.file_token(kind).0)
    }

    fn file_token(&self, kind: PlatformToken) -> &Hidden {
        match kind {
            PlatformToken::Operator => &self.settings.operator_token,
            PlatformToken::Registration => &self.settings.registration_token,
        }
    }
}
