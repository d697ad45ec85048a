//! The keys that sign policies and relay tokens, and how one follows another (rules: [`gateway_proto::succession`]).
//!
//! The first key is a file that the operator keeps. Every later one is made here, vouched for by the one before it, and
//! kept sealed in the storage, so that all replicas have it with the transaction that made it. Whoever signs reads the keys
//! in its own transaction: two replicas never disagree about which one that is.

use std::sync::Arc;

use gateway_proto::{
    api::platform::{PolicyKey, RotatePolicyKey},
    identity::{GatewayKey, GatewayPublicKey},
    relay::keys::{KeyStatement, RelayKeys, RetiredKey},
    signed::Envelope,
    succession::{KeyRing, PolicyKeyState, RingKey, RotationError, Succession},
};
use zeroize::Zeroizing;

use super::{OperatorCaller, Service, ServiceError, ServiceResult, Work, bounds, validate, work::Who};
use crate::storage::{PolicyKeyRow, Sealed, Transaction};

const SEAL: &str = "policy key";

/// The key that signs, and the others.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) key: GatewayKey,
    pub(super) ring: KeyRing,
}

impl Service {
    /// The keys, for the operator of the platform.
    pub async fn policy_keys(&self) -> ServiceResult<Vec<PolicyKey>> {
        shown(&mut *self.storage.read().await?).await
    }

    /// The key that signs now.
    pub async fn policy_key(&self) -> ServiceResult<GatewayPublicKey> {
        Ok(self.signer(&mut *self.storage.read().await?).await?.key.public())
    }

    /// Makes a new key, as the operator of the platform.
    pub async fn rotate_policy_key(
        &self,
        operator: &OperatorCaller,
        body: RotatePolicyKey,
    ) -> ServiceResult<Vec<PolicyKey>> {
        let (min, default, max) = bounds::POLICY_KEY_LEAD_SECS;
        if body.at_once && body.lead_secs.is_some() {
            return Err(ServiceError::Invalid("lead_secs and at_once exclude each other".to_owned()));
        }
        let lead = validate::range("lead_secs", body.lead_secs.unwrap_or(default), min, max)?;
        let mut work = self.work_of_operator(operator).await?;
        work.rotate_policy_key((!body.at_once).then_some(lead)).await?;
        let shown = shown(work.tx()).await?;
        work.commit().await?;
        tracing::warn!(
            "there is a new policy key: once it signs, a backup from before it would lock every gateway out; make one now"
        );
        Ok(shown)
    }

    /// Forgets a retired key and those before it: gateways that know no newer one are strangers from then on.
    pub async fn forget_policy_key(&self, operator: &OperatorCaller, key: GatewayPublicKey) -> ServiceResult<()> {
        let mut work = self.work_of_operator(operator).await?;
        let rows = work.policy_keys().await?;
        let at = rows.iter().position(|row| row.key == key).ok_or(ServiceError::NotFound("policy key"))?;
        if rows[at].state != PolicyKeyState::Retired {
            return Err(ServiceError::Conflict("this key is in use; make a new one first".to_owned()));
        }
        for row in &rows[..=at] {
            if let Some((server, name)) = work.stale_policy_of(row.key).await? {
                return Err(ServiceError::Conflict(format!(
                    "the policy of server {server} ({name}) is still signed with the key {}; it is signed anew within moments, \
                     unless it cannot be compiled: then the log of the control plane says why",
                    row.key
                )));
            }
        }
        for row in &rows[..=at] {
            work.delete_policy_key(row.key).await?;
            let changes = super::work::changes(&[("state", &"retired", &"forgotten")]);
            work.audit_platform("policy_key.forget", row.key, changes).await?;
        }
        work.commit().await
    }

    /// Lets the next key begin to sign when its time has come. Idempotent.
    pub async fn turn_policy_key(&self) -> ServiceResult<()> {
        let now = self.clock.unix_secs();
        if ring(&self.storage.read_for_gateways().await?.policy_keys().await?).due(now).is_none() {
            return Ok(());
        }
        let mut work = self.work(Who::System).await?;
        let rows = work.policy_keys().await?;
        let now = work.now;
        let Some(due) = ring(&rows).due(now) else { return Ok(()) };
        work.turn_to(rows, due).await?;
        work.audit_platform("policy_key.turn", due, "signs from now on").await?;
        work.commit().await?;
        tracing::warn!(key = %due, "this policy key signs from now on: a backup from before it was made would lock every gateway out");
        Ok(())
    }

    /// By which keys a gateway may mean us.
    pub(super) async fn known_keys(&self) -> ServiceResult<Vec<GatewayPublicKey>> {
        Ok(ring(&self.storage.read_for_gateways().await?.policy_keys().await?).known())
    }

    /// The links that lead from a key to the one that signs now.
    pub async fn links_from(&self, key: &GatewayPublicKey) -> ServiceResult<Vec<Envelope>> {
        Ok(ring(&self.storage.read_for_gateways().await?.policy_keys().await?).links_from(key))
    }

    /// What relays are told: the keys that count now, signed by the one that signs, and how they follow from each other.
    pub async fn relay_keys(&self) -> ServiceResult<RelayKeys> {
        let now = self.clock.unix_secs();
        let mut tx = self.storage.read_for_gateways().await?;
        let signer = self.signer(&mut *tx).await?;
        let rows = tx.policy_keys().await?;
        drop(tx);
        let statement = KeyStatement { keys: signer.ring.named(), retired: self.in_overlap(&rows, now), at: now };
        let statement = statement.sign(&signer.key);
        let statement = statement.map_err(|_| ServiceError::Internal("a statement of keys has no JSON form"))?;
        Ok(RelayKeys { statement, links: signer.ring.links() })
    }

    /// Keys that were replaced in order, and signed tokens that have not expired. One that was replaced at once, because others may
    /// know it, is not among them.
    fn in_overlap(&self, rows: &[PolicyKeyRow], now: u64) -> Vec<RetiredKey> {
        let pairs = rows.iter().zip(rows.iter().skip(1));
        let retired =
            pairs.filter(|(row, next)| row.state == PolicyKeyState::Retired && next.signs_from > next.created_at);
        let until = |next: &PolicyKeyRow| next.signs_from.saturating_add(self.settings.relay_token_secs);
        retired
            .map(|(row, next)| RetiredKey { key: row.key, until: until(next) })
            .filter(|retired| now < retired.until)
            .collect()
    }

    /// The first key of a platform is the file.
    pub(super) async fn first_policy_key(&self, tx: &mut dyn Transaction) -> ServiceResult<()> {
        if tx.policy_keys().await?.is_empty() {
            let now = self.clock.unix_secs();
            let row = PolicyKeyRow {
                number: 1,
                key: self.settings.signer.public(),
                seed: None,
                state: PolicyKeyState::Signing,
                signs_from: now,
                link: None,
                created_at: now,
            };
            tx.put_policy_key(&row).await?;
        }
        Ok(())
    }

    pub(super) async fn signer(&self, tx: &mut dyn Transaction) -> ServiceResult<Signer> {
        let rows = tx.policy_keys().await?;
        let signing = rows.iter().find(|row| row.state == PolicyKeyState::Signing);
        let signing = signing.ok_or(ServiceError::Internal("no key signs policies"))?;
        let key = match &signing.seed {
            None => self.settings.signer.clone(),
            Some(sealed) => self.unsealed(sealed)?,
        };
        if key.public() != signing.key {
            return Err(ServiceError::Internal("the key that signs policies is not the one that is sealed"));
        }
        Ok(Signer { key, ring: ring(&rows) })
    }

    fn unsealed(&self, sealed: &Sealed) -> ServiceResult<GatewayKey> {
        let unreadable = |_| ServiceError::Internal("a sealed policy key is unreadable");
        let seed = self.settings.vault.open(SEAL, &sealed.0).map_err(unreadable)?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
            seed.as_slice().try_into().map_err(|_| ServiceError::Internal("a policy key has another length"))?,
        );
        Ok(GatewayKey::from_seed(&seed))
    }

    /// A new key that the one that signs vouches for.
    fn successor(&self, signer: &GatewayKey, number: u64, now: u64, signs_from: u64) -> ServiceResult<PolicyKeyRow> {
        let seed = Zeroizing::new(gateway_net::random::<32>());
        let key = GatewayKey::from_seed(&seed).public();
        let link = Succession { from: signer.public(), to: key, at: now }.sign(signer);
        let sealed = self.settings.vault.seal(SEAL, seed.as_slice());
        Ok(PolicyKeyRow {
            number,
            key,
            seed: Some(Sealed(sealed.map_err(|_| ServiceError::Internal("a policy key cannot be sealed"))?)),
            state: PolicyKeyState::Next,
            signs_from,
            link: Some(link.map_err(|_| ServiceError::Internal("a succession has no JSON form"))?),
            created_at: now,
        })
    }
}

impl Work {
    /// What signs in this transaction; read once.
    pub(super) async fn signer(&mut self) -> ServiceResult<Arc<Signer>> {
        if let Some(signer) = &self.signer {
            return Ok(signer.clone());
        }
        let service = self.service().clone();
        let signer = Arc::new(service.signer(self.tx()).await?);
        self.signer = Some(signer.clone());
        Ok(signer)
    }

    /// A new key that signs after `lead` seconds; none: now, because the old one became known to others.
    async fn rotate_policy_key(&mut self, lead: Option<u64>) -> ServiceResult<()> {
        let (now, signer) = (self.now, self.signer().await?);
        signer.ring.may_rotate(lead.is_none(), now).map_err(refusal)?;
        let mut rows = self.policy_keys().await?;
        let number = rows.last().map_or(0, |row| row.number) + 1;
        if lead.is_none() {
            // Made while the old one may have been known to others already.
            for row in rows.iter().filter(|row| row.state == PolicyKeyState::Next) {
                self.delete_policy_key(row.key).await?;
            }
            rows.retain(|row| row.state != PolicyKeyState::Next);
        }
        let fresh = self.service().successor(&signer.key, number, now, now.saturating_add(lead.unwrap_or(0)))?;
        self.put_policy_key(&fresh).await?;
        let key = fresh.key;
        rows.push(fresh);
        let detail = match lead {
            Some(lead) => {
                self.policies_change().await?;
                format!("signs in {lead} s")
            }
            None => {
                self.turn_to(rows, key).await?;
                "at once".to_owned()
            }
        };
        self.audit_platform("policy_key.rotate", key, detail).await
    }

    /// From now on this key signs. The one before it has vouched for it, and is needed no more: what is sealed of it is
    /// removed.
    async fn turn_to(&mut self, rows: Vec<PolicyKeyRow>, key: GatewayPublicKey) -> ServiceResult<()> {
        for mut row in rows {
            if row.key == key {
                row.state = PolicyKeyState::Signing;
            } else if row.state == PolicyKeyState::Signing {
                row.state = PolicyKeyState::Retired;
                row.seed = None;
            } else {
                continue;
            }
            self.put_policy_key(&row).await?;
        }
        self.policies_change().await
    }

    /// All policies name other keys now.
    async fn policies_change(&mut self) -> ServiceResult<()> {
        self.signer = None;
        self.all_policies_change().await
    }
}

fn refusal(error: RotationError) -> ServiceError {
    match error {
        RotationError::Waiting(_) | RotationError::TooMany(_) => ServiceError::Conflict(error.to_string()),
        RotationError::NoSigner => ServiceError::Internal("no key signs policies"),
    }
}

fn ring(rows: &[PolicyKeyRow]) -> KeyRing {
    let keys = rows.iter().map(|row| RingKey {
        key: row.key,
        state: row.state,
        signs_from: row.signs_from,
        link: row.link.clone(),
    });
    KeyRing::new(keys.collect())
}

async fn shown(tx: &mut dyn Transaction) -> ServiceResult<Vec<PolicyKey>> {
    // Of the last change of keys: more than one at a time is not under way.
    let behind = tx.gateways_behind().await?;
    let mut all = Vec::new();
    for row in tx.policy_keys().await? {
        let gateways_behind = match row.state {
            PolicyKeyState::Next | PolicyKeyState::Signing => Some(behind),
            PolicyKeyState::Retired => None,
        };
        all.push(PolicyKey {
            key: row.key.to_string(),
            state: row.state,
            signs_from: row.signs_from,
            gateways_behind,
            created_at: row.created_at,
        });
    }
    Ok(all)
}
