//! Tokens of devices: issued to whoever may act for the device's organization, short-lived, for one audience, revocable.
//!
//! A token itself is never kept; what is known of it is, until it ends. Asked about a token, we answer for whom it concerns
//! only: the device's own organization, its gateways, and the gateways of those it is linked to, who learn of their own
//! devices among those linked and of no others. To everybody else every token is an unknown one.

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::{
        Page,
        platform::{CreateDeviceToken, CreatedDeviceToken, DeviceToken, Hidden, IntrospectToken, Introspection},
    },
    device_token::{Confirmation, DeviceClaims, DeviceTokenError, Expected, PROOF_WINDOW_SECS, RequestProof},
    id::{DeviceId, DeviceTokenId, OrganizationId},
    jws::JwsPublicKey,
};
use sha2::{Digest, Sha256};

use super::{
    Actor, GatewayCaller, Service, ServiceError, ServiceResult, bounds,
    devices::own_device,
    links::linked,
    page::{Paging, page},
    permission::Act,
    validate,
};
use crate::storage::DeviceTokenRow;

/// The audience of tokens that name none: the integrator endpoints of gateways.
const DEFAULT_AUDIENCE: &str = "gateway";
/// Tokens of one device that have not ended.
const TOKENS_PER_DEVICE: u64 = 1_000;

/// Who asks about a token.
#[derive(Debug, Clone)]
pub enum TokenVerifier {
    /// A user.
    User(Box<Actor>),
    /// A gateway.
    Gateway(GatewayCaller),
}

impl TokenVerifier {
    fn organization(&self) -> OrganizationId {
        match self {
            Self::User(actor) => actor.id(),
            Self::Gateway(caller) => caller.organization,
        }
    }
}

impl Service {
    /// Makes a token of an own device.
    pub async fn create_device_token(
        &self,
        actor: &Actor,
        id: DeviceId,
        body: CreateDeviceToken,
    ) -> ServiceResult<CreatedDeviceToken> {
        actor.may(Act::ManageDeviceTokens)?;
        let audience = audience(body.audience.as_deref())?;
        let bound = body.key.as_deref().map(device_key).transpose()?;
        let mut work = self.work_of(actor).await?;
        let device = own_device(work.tx(), actor.id(), id).await?;
        let (default, max) = work.token_terms().await?;
        let valid =
            validate::range("valid_secs", body.valid_secs.unwrap_or(default), bounds::MIN_DEVICE_TOKEN_SECS, max)?;
        let now = work.now;
        if work.count_device_tokens(id, now).await? >= TOKENS_PER_DEVICE {
            return Err(ServiceError::Conflict(format!(
                "the device has {TOKENS_PER_DEVICE} tokens that have not ended; ask for shorter ones"
            )));
        }
        let key = self.signing_key(work.tx()).await?;
        let (ms, random) = work.seed();
        let row = DeviceTokenRow {
            id: DeviceTokenId::new(ms, random),
            device: id,
            organization: actor.id(),
            audience,
            kid: key.public().thumbprint(),
            key_thumbprint: bound.map(|key| key.thumbprint()),
            issued_by: actor.user.email.clone(),
            expires_at: now.saturating_add(valid),
            revoked_at: None,
            created_at: now,
        };
        let claims = DeviceClaims {
            iss: self.settings.public_url.clone(),
            sub: id,
            aud: row.audience.clone(),
            iat: now,
            exp: row.expires_at,
            jti: row.id,
            organization_id: actor.id(),
            tenant_id: actor.organization.tenant,
            cnf: row.key_thumbprint.clone().map(|jkt| Confirmation { jkt }),
        };
        let token = claims.sign(&key).map_err(|_| ServiceError::Internal("a device token has no JSON form"))?;
        work.insert_device_token(&row).await?;
        let bound = if row.key_thumbprint.is_some() { ", bound to a key" } else { "" };
        let detail = format!("{} ({id}) for '{}', valid for {valid} s{bound}", device.name, row.audience);
        work.audit(&[actor.id()], "device_token.create", row.id, detail).await?;
        work.commit().await?;
        Ok(CreatedDeviceToken { token: Hidden(token), device_token: show(row) })
    }

    /// Tokens of the own devices, or of one of them, that have not ended.
    pub async fn device_tokens(
        &self,
        actor: &Actor,
        device: Option<DeviceId>,
        paging: &Paging,
    ) -> ServiceResult<Page<DeviceToken>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        if let Some(device) = device {
            own_device(&mut *tx, actor.id(), device).await?;
        }
        let rows = tx.device_tokens(actor.id(), device, self.clock.unix_secs(), &slice).await?;
        Ok(page(rows, &slice, |row| row.id.to_string(), show))
    }

    /// Revokes a token.
    pub async fn revoke_device_token(&self, actor: &Actor, id: DeviceTokenId) -> ServiceResult<()> {
        actor.may(Act::ManageDeviceTokens)?;
        let mut work = self.work_of(actor).await?;
        let row = work.device_token(id).await?.filter(|row| row.organization == actor.id());
        let row = row.ok_or(ServiceError::NotFound("device token"))?;
        if row.revoked_at.is_some() {
            return work.unchanged().await;
        }
        let now = work.now;
        work.revoke_device_token(id, now).await?;
        work.audit(&[actor.id()], "device_token.revoke", id, format!("of {}", row.device)).await?;
        work.commit().await
    }

    /// Whether a token counts now, for whoever asks.
    pub async fn introspect(&self, verifier: &TokenVerifier, body: IntrospectToken) -> ServiceResult<Introspection> {
        let audience = audience(body.audience.as_deref())?;
        if let TokenVerifier::User(actor) = verifier {
            actor.may(Act::Read)?;
        }
        match self.examine(verifier, &audience, &body).await? {
            Ok(found) => Ok(found),
            Err(problem) => {
                let problem = Some(problem);
                Ok(Introspection { active: false, claims: None, device_kind: None, linked: Vec::new(), problem })
            }
        }
    }

    async fn examine(
        &self,
        verifier: &TokenVerifier,
        audience: &str,
        body: &IntrospectToken,
    ) -> ServiceResult<Result<Introspection, String>> {
        let asking = verifier.organization();
        let is_gateway = matches!(verifier, TokenVerifier::Gateway(_));
        // It changes nothing but the proof, and may be asked for links by the thousand.
        let reading = self.turns.reads.turn(asking).await?;
        let now = self.clock.unix_secs();
        let mut tx = self.storage.read().await?;
        let keys = self.verifying_keys(&mut *tx).await?;
        let expected = Expected { issuer: &self.settings.public_url, audience, keys: &keys, now };
        let claims = match DeviceClaims::verify(&body.token.0, &expected) {
            Ok(claims) => claims,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let row = tx.device_token(claims.jti).await?.filter(|row| row.device == claims.sub);
        let device = tx.device(claims.sub).await?.filter(|device| device.organization == Some(claims.organization_id));
        // What is not for the one who asks looks like what nobody made: the token, and with whom else its device is linked.
        let mut linked = linked(&mut *tx, claims.organization_id, claims.sub).await?;
        let is_own = claims.organization_id == asking;
        if !is_own {
            linked.retain(|target| target.organization_id == Some(asking));
        }
        let concerns = is_own || (is_gateway && !linked.is_empty());
        let (Some(row), Some(device)) = (row.filter(|_| concerns), device) else {
            return Ok(Err("the token is not known here".to_owned()));
        };
        if row.revoked_at.is_some() || device.removed_at.is_some() {
            return Ok(Err("the token was revoked".to_owned()));
        }
        drop((tx, reading));
        let proof = body.proof.as_ref().map(|shown| RequestProof {
            text: &shown.proof,
            method: &shown.method,
            url: &shown.url,
        });
        match claims.check_proof(&body.token.0, proof.as_ref(), now) {
            Ok(None) => {}
            Ok(Some(jti)) if self.spend_proof(verifier, &claims, &jti, now).await? => {}
            Ok(Some(_)) => return Ok(Err(format!("{}: it was used before", DeviceTokenError::Proof))),
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(Introspection {
            active: true,
            claims: Some(claims),
            device_kind: Some(device.kind),
            linked,
            problem: None,
        }))
    }

    /// Accepts a proof once, at whichever replica it is shown.
    async fn spend_proof(
        &self,
        verifier: &TokenVerifier,
        claims: &DeviceClaims,
        jti: &str,
        now: u64,
    ) -> ServiceResult<bool> {
        let mut digest = Sha256::new_with_prefix("device proof\0");
        digest.update(claims.jti.to_bytes());
        digest.update(jti);
        let turns = match verifier {
            TokenVerifier::User(_) => &self.turns.writes,
            TokenVerifier::Gateway(_) => &self.turns.tells,
        };
        let _turn = turns.turn(verifier.organization()).await?;
        let mut tx = self.storage.begin().await?;
        let until = now.saturating_add(2 * PROOF_WINDOW_SECS + 1);
        let fresh = tx.spend_nonce(&HEXLOWER.encode(&digest.finalize()), until).await?;
        tx.commit().await?;
        Ok(fresh)
    }
}

/// Whom a token is for.
fn audience(text: Option<&str>) -> ServiceResult<String> {
    let text = text.unwrap_or(DEFAULT_AUDIENCE);
    if (1..=bounds::MAX_AUDIENCE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(ServiceError::Invalid("audience is 1 to 120 visible ASCII characters".to_owned()))
}

fn device_key(x: &str) -> ServiceResult<JwsPublicKey> {
    JwsPublicKey::from_x(x).map_err(|error| ServiceError::Invalid(format!("key: {error}")))
}

fn show(row: DeviceTokenRow) -> DeviceToken {
    DeviceToken {
        id: row.id,
        device_id: row.device,
        audience: row.audience,
        key_thumbprint: row.key_thumbprint,
        issued_by: row.issued_by,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
        created_at: row.created_at,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use gateway_proto::{id::ServerId, identity::GatewayKey};
    use serde_json::json;

    use super::*;
    use crate::test_world::World;

    #[tokio::test]
    async fn who_asks_about_a_token_waits_for_the_reading_requests_of_the_own_organization() {
        let world = World::open().await;
        let service = &world.service;
        let actor = service.authenticate(&world.session.token.0, "").await.unwrap();
        let (server, organization) = (ServerId::new(1, [1; 10]), actor.id());
        let key = GatewayKey::from_seed(&[1; 32]).public();
        let caller = GatewayCaller { server, organization, key, knows: key };
        for verifier in [TokenVerifier::User(Box::new(actor)), TokenVerifier::Gateway(caller)] {
            let reads = &service.turns.reads;
            let reading = (reads.turn(organization).await.unwrap(), reads.turn(organization).await.unwrap());
            let body = serde_json::from_value(json!({"token": "none"})).unwrap();
            let mut answer = pin!(service.introspect(&verifier, body));
            assert!(answer.as_mut().now_or_never().is_none());
            assert_eq!(reads.counts().waiting.get(), 1);
            drop(reading);
            assert!(!answer.await.unwrap().active);
        }
    }
}
