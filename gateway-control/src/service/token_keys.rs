//! The keys that sign device tokens, and how long tokens live.
//!
//! Life of a key: published at once; signs after a lead, when verifiers have seen it; retired by the next one; forgotten when
//! nothing it signed can count any more. So a verifier that reads the published keys every few minutes meets no token it
//! cannot verify. Seeds are sealed with the storage key.

use gateway_proto::{
    api::platform::{RotateTokenKeys, TokenKey, TokenKeyState, TokenTerms},
    device_token::{CLOCK_SKEW_SECS, MAX_DEVICE_TOKEN_SECS},
    jws::{JwkSet, JwsKey, JwsPublicKey},
};
use zeroize::Zeroizing;

use super::{OperatorCaller, Service, ServiceError, ServiceResult, Work, bounds, validate};
use crate::storage::{Sealed, TokenKeyRow, Transaction};

/// A new key is published for so long before it signs, seconds: twice as long as verifiers may keep what they read.
const LEAD_SECS: u64 = 600;
/// A key signs for a month, and is followed by a new one then.
const SIGNS_SECS: u64 = 30 * 24 * 3600;
/// Keys at the same time.
const MAX_KEYS: usize = 8;

const SEAL: &str = "token key";

impl Service {
    /// The keys with which tokens are verified, the next one included.
    pub async fn jwks(&self) -> ServiceResult<JwkSet> {
        let keys = self.verifying_keys(&mut *self.storage.read().await?).await?;
        Ok(JwkSet { keys: keys.iter().map(JwsPublicKey::jwk).collect() })
    }

    /// The keys, for the operator of the platform.
    pub async fn token_keys(&self) -> ServiceResult<Vec<TokenKey>> {
        let rows = self.storage.read().await?.token_keys().await?;
        Ok(shown(&rows, self.clock.unix_secs()))
    }

    /// Makes a new key, as the operator of the platform.
    pub async fn rotate_token_keys(
        &self,
        operator: &OperatorCaller,
        body: RotateTokenKeys,
    ) -> ServiceResult<Vec<TokenKey>> {
        let mut work = self.work_of_operator(operator).await?;
        work.rotate_token_keys(body.at_once).await?;
        let rows = work.token_keys().await?;
        let shown = shown(&rows, work.now);
        work.commit().await?;
        Ok(shown)
    }

    /// How long tokens live.
    pub async fn token_terms(&self) -> ServiceResult<TokenTerms> {
        let (default_secs, max_secs) = self.storage.read().await?.token_terms().await?;
        Ok(TokenTerms { default_secs, max_secs })
    }

    /// Changes how long new tokens live, as the operator of the platform.
    pub async fn put_token_terms(&self, operator: &OperatorCaller, body: TokenTerms) -> ServiceResult<TokenTerms> {
        validate::range("max_secs", body.max_secs, bounds::MIN_DEVICE_TOKEN_SECS, MAX_DEVICE_TOKEN_SECS)?;
        validate::range("default_secs", body.default_secs, bounds::MIN_DEVICE_TOKEN_SECS, body.max_secs)?;
        let mut work = self.work_of_operator(operator).await?;
        let (default_secs, max_secs) = work.token_terms().await?;
        if (default_secs, max_secs) == (body.default_secs, body.max_secs) {
            work.unchanged().await?;
            return Ok(body);
        }
        let changes = super::work::changes(&[
            ("default_secs", &default_secs, &body.default_secs),
            ("max_secs", &max_secs, &body.max_secs),
        ]);
        work.put_token_terms(body.default_secs, body.max_secs).await?;
        work.audit_platform("token_terms.put", "token terms", changes).await?;
        work.commit().await?;
        Ok(body)
    }

    /// The first key of a platform, which signs at once.
    pub(super) async fn first_token_key(&self, tx: &mut dyn Transaction) -> ServiceResult<()> {
        if tx.token_keys().await?.is_empty() {
            let now = self.clock.unix_secs();
            tx.insert_token_key(&self.fresh_key(now, now)?).await?;
        }
        Ok(())
    }

    /// The key that signs now.
    pub(super) async fn signing_key(&self, tx: &mut dyn Transaction) -> ServiceResult<JwsKey> {
        let now = self.clock.unix_secs();
        let rows = tx.token_keys().await?;
        let row = rows.iter().rev().find(|row| row.signs_from <= now).or(rows.first());
        let row = row.ok_or(ServiceError::Internal("no key signs tokens"))?;
        let unreadable = |_| ServiceError::Internal("a sealed token key is unreadable");
        let seed = self.settings.vault.open(SEAL, &row.seed.0).map_err(unreadable)?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
            seed.as_slice().try_into().map_err(|_| ServiceError::Internal("a token key has another length"))?,
        );
        Ok(JwsKey::from_seed(&seed))
    }

    /// The keys whose tokens may count.
    pub(super) async fn verifying_keys(&self, tx: &mut dyn Transaction) -> ServiceResult<Vec<JwsPublicKey>> {
        let now = self.clock.unix_secs();
        let rows = tx.token_keys().await?;
        let alive = rows.iter().enumerate().filter(|(at, _)| verifies_until(&rows, *at).is_none_or(|end| now < end));
        alive
            .map(|(_, row)| {
                JwsPublicKey::from_x(&row.public).map_err(|_| ServiceError::Internal("a token key is unreadable"))
            })
            .collect()
    }

    fn fresh_key(&self, now: u64, signs_from: u64) -> ServiceResult<TokenKeyRow> {
        let seed = Zeroizing::new(gateway_net::random::<32>());
        let key = JwsKey::from_seed(&seed);
        let sealed = self.settings.vault.seal(SEAL, seed.as_slice());
        Ok(TokenKeyRow {
            kid: key.public().thumbprint(),
            public: key.public().x(),
            seed: Sealed(sealed.map_err(|_| ServiceError::Internal("a token key cannot be sealed"))?),
            signs_from,
            created_at: now,
        })
    }
}

impl Work {
    /// Makes a new key when the one that signs has done so for long, and forgets those whose tokens have all ended.
    pub(super) async fn tend_token_keys(&mut self) -> ServiceResult<()> {
        let now = self.now;
        let rows = self.token_keys().await?;
        for (at, row) in rows.iter().enumerate() {
            if verifies_until(&rows, at).is_some_and(|end| now >= end) {
                self.delete_token_key(&row.kid).await?;
            }
        }
        if rows.last().is_some_and(|newest| now >= newest.signs_from.saturating_add(SIGNS_SECS)) {
            self.rotate_token_keys(false).await?;
        }
        Ok(())
    }

    async fn rotate_token_keys(&mut self, at_once: bool) -> ServiceResult<()> {
        let now = self.now;
        let rows = self.token_keys().await?;
        if at_once {
            for row in &rows {
                self.delete_token_key(&row.kid).await?;
            }
            let revoked = self.revoke_all_device_tokens(now).await?;
            let fresh = self.service().fresh_key(now, now)?;
            self.insert_token_key(&fresh).await?;
            let detail = format!("at once; keys forgotten: {}, tokens revoked: {revoked}", rows.len());
            return self.audit_platform("token_key.rotate", fresh.kid, detail).await;
        }
        if let Some(next) = rows.iter().find(|row| row.signs_from > now) {
            let wait = next.signs_from - now;
            return Err(ServiceError::Conflict(format!("a new key is published and begins to sign in {wait} s")));
        }
        if rows.len() >= MAX_KEYS {
            return Err(ServiceError::Conflict(format!(
                "there are {MAX_KEYS} keys already; the oldest goes when its tokens have ended, after a day"
            )));
        }
        let fresh = self.service().fresh_key(now, now.saturating_add(LEAD_SECS))?;
        self.insert_token_key(&fresh).await?;
        self.audit_platform("token_key.rotate", fresh.kid, format!("signs in {LEAD_SECS} s")).await
    }
}

/// Until when tokens of a key may count; none: no other key follows it.
fn verifies_until(rows: &[TokenKeyRow], at: usize) -> Option<u64> {
    rows.get(at + 1).map(|next| next.signs_from.saturating_add(MAX_DEVICE_TOKEN_SECS).saturating_add(CLOCK_SKEW_SECS))
}

fn shown(rows: &[TokenKeyRow], now: u64) -> Vec<TokenKey> {
    let signing = rows.iter().rposition(|row| row.signs_from <= now);
    let all = rows.iter().enumerate().map(|(at, row)| TokenKey {
        kid: row.kid.clone(),
        state: match signing {
            Some(signing) if at < signing => TokenKeyState::Retired,
            Some(signing) if at == signing => TokenKeyState::Signing,
            Some(_) | None => TokenKeyState::Next,
        },
        signs_from: row.signs_from,
        verifies_until: verifies_until(rows, at),
        created_at: row.created_at,
    });
    all.collect()
}
