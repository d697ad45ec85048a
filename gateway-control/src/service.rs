//! The rules of the platform: who may do what, and what follows from it. Ignorant of HTTP and of SQL.
//!
//! Every change is one [`Work`]: a writing transaction that also collects the servers whose policies it touches and the
//! audit entries. Its commit compiles exactly those policies in the same transaction and then wakes exactly those
//! gateways, so that a change costs what it concerns and nothing more. What an organization may not see answers
//! [`ServiceError::NotFound`].

mod access;
mod accounts;
mod admin;
mod admin_people;
mod agreements;
pub mod audit;
mod backlog;
mod behaviors;
mod channels;
mod connections;
mod credentials;
mod delivery;
mod desk;
mod device_tokens;
mod devices;
mod engines;
mod enrollment;
mod error;
mod etag;
mod executions;
mod gateway_audits;
mod gateways;
mod grants;
mod idempotency;
mod identities;
mod links;
mod oidc;
mod page;
mod password;
mod peering;
pub mod permission;
mod platform_tokens;
mod policy;
mod policy_keys;
mod relays;
mod replicas;
mod roles;
mod servers;
mod shares;
mod tenants;
mod tiers;
mod time_limits;
mod token_keys;
mod totp;
mod validate;
mod work;

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::platform::Hidden,
    id::{AgreementId, ApiTokenId, ChannelId, OrganizationId, ServerId, UserId},
    identity::{GatewayKey, GatewayPublicKey},
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub use self::{
    accounts::Registration,
    agreements::AgreementChange,
    backlog::Backlog,
    connections::ConnectionChange,
    delivery::{DeliverySettings, Pending},
    device_tokens::TokenVerifier,
    error::{ServiceError, ServiceResult},
    etag::{Condition, etag},
    executions::ExecutionsQuery,
    gateway_audits::KnownAudit,
    gateways::{GatewayCaller, Newest, Proof, WatchStart},
    idempotency::{Claim, GivenAnswer, Known},
    oidc::{OidcAttempt, OidcReturn},
    page::{MAX_LIMIT, Paging},
    password::Passwords,
    time_limits::Overdue,
};
use self::{
    desk::Desk,
    permission::Act,
    work::{Who, Work},
};
use crate::{
    clock::Clock,
    limits::{KeyedLimiter, Nonces},
    oidc::Providers,
    storage::{OrganizationRow, Storage, UserRow},
    turns::{AllTurns, Turn},
    vault::Vault,
    watchers::Watchers,
};

/// How an organization shows to itself where a peer's name stands.
pub(crate) const SELF: &str = "Self";

/// What the service needs to know beside the storage.
#[derive(Debug)]
pub struct Settings {
    /// The first key that signed policies and relay tokens: the file of the data directory.
    pub signer: GatewayKey,
    /// Seals secrets in the storage.
    pub vault: Arc<Vault>,
    /// What platform operators show.
    pub operator_token: Hidden,
    /// What creates an organization, and nothing else.
    pub registration_token: Hidden,
    /// Who may create an organization.
    pub registration: Registration,
    /// Base URL, for enrolment codes.
    pub public_url: String,
    /// Pin of our TLS key, for enrolment codes; none: the web PKI vouches for it.
    pub tls_pin: Option<String>,
    /// Validity of relay tokens, seconds.
    pub relay_token_secs: u64,
    /// How often the ends of connections are compared.
    pub delivery: DeliverySettings,
    /// For how many days entries of the audit log are kept; none: for ever.
    pub audit_retention_days: Option<u64>,
    /// Providers of OpenID Connect.
    pub oidc: Providers,
}

/// The service; clones share it.
#[derive(Debug, Clone)]
pub struct Service {
    storage: Arc<dyn Storage>,
    settings: Arc<Settings>,
    clock: Clock,
    watchers: Watchers,
    passwords: Passwords,
    nonces: Arc<Nonces>,
    desk: Arc<Desk>,
    /// How often one gateway may open a watch: its assertions take places in a table that all share.
    openings: Arc<KeyedLimiter<GatewayPublicKey>>,
    /// How often one gateway may say what costs a turn to write: news of its engine, refused policies.
    tellings: Arc<KeyedLimiter<ServerId>>,
    /// How often it is written down that the engine's end of one channel was stopped, deleted or started.
    engine_ends: Arc<KeyedLimiter<ChannelId>>,
    /// How often one organization may change, inside one agreement, what the other one's gateways are told.
    disturbances: Arc<KeyedLimiter<(OrganizationId, AgreementId)>>,
    /// How often one organization may change its name.
    renames: Arc<KeyedLimiter<OrganizationId>>,
    /// How many refused operator tokens are written down.
    operator_refusals: Arc<KeyedLimiter<()>>,
    /// By which keys gateways may mean us, as far as this process has looked.
    known_keys: Arc<Mutex<Vec<GatewayPublicKey>>>,
    /// How many refused sign-ins of one user are written down.
    refusals: Arc<KeyedLimiter<UserId>>,
    /// How often it is written down that one token of automation was used.
    uses: Arc<KeyedLimiter<ApiTokenId>>,
    /// How many codes of a second factor one user may try.
    code_attempts: Arc<KeyedLimiter<UserId>>,
    /// How often one session may show the password of its user.
    password_attempts: Arc<KeyedLimiter<String>>,
    /// How much of one organization is at work at once.
    turns: Arc<AllTurns>,
    /// Name of this process among its kind.
    replica: Arc<str>,
    /// Other replicas may be at work on the storage.
    shared: bool,
    synced_at: Arc<Mutex<Instant>>,
    /// Wakes the reconciler when a change leaves work behind.
    pub(crate) backlog: Arc<Notify>,
    /// Commits run here, so that a client that goes away cannot come between a commit and what follows from it.
    pub(crate) commits: TaskTracker,
}

/// Nonces remembered: two minutes of requests of 10,000 gateways that each try ten times.
const NONCES: usize = 100_000;

/// Watches one gateway may open at once; then one a second. A table of nonces that is full refuses everybody.
const OPENINGS: NonZeroU32 = NonZeroU32::new(20).expect("invariant: not zero");
/// News of an engine, and refused policies, of one gateway at once: the largest engine is told in forty parts.
const TELLINGS: NonZeroU32 = NonZeroU32::new(60).expect("invariant: not zero");
/// Then one each.
const TELLING_EACH: Duration = Duration::from_secs(3);
/// Stops, deletions and starts of one channel in the engine that are written into the audit log in an hour: enough for a
/// day of maintenance, too few for an engine that flaps to push out what else is in the log.
const ENGINE_ENDS: NonZeroU32 = NonZeroU32::new(20).expect("invariant: not zero");
/// Pauses, offers, shares and the like inside one agreement at once; then one a second. Each makes a policy or an entry in
/// the log of the other side, which did not ask for it. What takes access away is counted and never refused.
const DISTURBANCES: NonZeroU32 = NonZeroU32::new(300).expect("invariant: not zero");
/// New names of one organization in an hour: each concerns all its partners, and a refused one tells that a name is taken.
const RENAMES: NonZeroU32 = NonZeroU32::new(20).expect("invariant: not zero");
/// Gateways, and agreements, whose rates are remembered.
const KNOWN_GATEWAYS: usize = 50_000;

/// Refused sign-ins of one user that are written into the audit log in an hour: enough to see an attack, and no more.
const REFUSALS: NonZeroU32 = NonZeroU32::new(20).expect("invariant: not zero");
/// Codes of a second factor that one user may try in an hour: who guesses has one chance in 30,000 a day for each replica.
const CODES: NonZeroU32 = NonZeroU32::new(10).expect("invariant: not zero");
/// Passwords that one session may show in an hour, to change the password or the second factor.
const PASSWORDS: NonZeroU32 = NonZeroU32::new(20).expect("invariant: not zero");
/// Users whose refusals are counted.
const KNOWN_USERS: usize = 50_000;

/// A signed-in user.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The user.
    pub user: UserRow,
    /// The user's organization.
    pub organization: OrganizationRow,
    /// The session or token that was shown; none: the user has just been made or signed in.
    pub credential: Option<Credential>,
    /// What a token of automation is limited to; none: a session.
    pub scopes: Option<BTreeSet<String>>,
    /// The request, for the audit log.
    pub request: String,
    /// The condition of the request.
    pub if_match: Option<Condition>,
    /// The key of a request that may be sent twice.
    pub claim: Option<Claim>,
    /// The turn of a request that reads; the next one's when this is dropped.
    pub reading: Option<Arc<Turn>>,
}

/// What a user was recognised by.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The hash of a session's token.
    Session(String),
    /// A token of automation.
    ApiToken(ApiTokenId),
}

impl Actor {
    /// A user, without any particular request.
    pub fn new(user: UserRow, organization: OrganizationRow) -> Self {
        Self {
            user,
            organization,
            credential: None,
            scopes: None,
            request: String::new(),
            if_match: None,
            claim: None,
            reading: None,
        }
    }

    /// Refuses what the user's role does not allow.
    pub(crate) fn may(&self, act: Act) -> ServiceResult<()> {
        let roles = permission::rule(act).roles;
        if let Some(scopes) = &self.scopes
            && !scopes.contains(act.scope())
        {
            let needed = act.scope();
            return Err(ServiceError::Forbidden(format!("this token is not for that: it needs the scope '{needed}'")));
        }
        if roles.contains(&self.user.role) {
            return Ok(());
        }
        let names: Vec<_> = roles.iter().map(|role| permission::name(*role)).collect();
        let own = permission::name(self.user.role);
        Err(ServiceError::Forbidden(format!("your role is {own}; this needs one of: {}", names.join(", "))))
    }

    /// Refuses tokens of automation: whom a token added could sign in, and would be bound by none of its scopes.
    pub(crate) fn in_person(&self) -> ServiceResult<()> {
        if self.scopes.is_none() {
            return Ok(());
        }
        Err(ServiceError::Forbidden("this is not for API tokens: sign in for it".to_owned()))
    }

    fn id(&self) -> OrganizationId {
        self.organization.id
    }
}

impl Service {
    /// Puts it together.
    pub fn new(storage: Arc<dyn Storage>, settings: Settings, passwords: Passwords, clock: Clock) -> Self {
        let shared = storage.news_line().is_some();
        Self {
            storage,
            settings: Arc::new(settings),
            replica: HEXLOWER.encode(&gateway_net::random::<8>()).into(),
            shared,
            synced_at: Arc::new(Mutex::new(Instant::now())),
            clock,
            watchers: if shared { Watchers::with_news() } else { Watchers::default() },
            passwords,
            nonces: Arc::new(Nonces::new(NONCES)),
            desk: Arc::default(),
            openings: Arc::new(KeyedLimiter::new(NonZeroU32::MIN, Duration::from_secs(1), OPENINGS, KNOWN_GATEWAYS)),
            tellings: Arc::new(KeyedLimiter::new(NonZeroU32::MIN, TELLING_EACH, TELLINGS, KNOWN_GATEWAYS)),
            engine_ends: Arc::new(KeyedLimiter::new(
                ENGINE_ENDS,
                Duration::from_secs(3600),
                ENGINE_ENDS,
                KNOWN_GATEWAYS,
            )),
            disturbances: Arc::new(KeyedLimiter::new(
                NonZeroU32::MIN,
                Duration::from_secs(1),
                DISTURBANCES,
                KNOWN_GATEWAYS,
            )),
            renames: Arc::new(KeyedLimiter::new(RENAMES, Duration::from_secs(3600), RENAMES, KNOWN_GATEWAYS)),
            operator_refusals: Arc::new(KeyedLimiter::new(REFUSALS, Duration::from_secs(3600), REFUSALS, 1)),
            known_keys: Arc::default(),
            refusals: Arc::new(KeyedLimiter::new(REFUSALS, Duration::from_secs(3600), REFUSALS, KNOWN_USERS)),
            uses: Arc::new(KeyedLimiter::new(NonZeroU32::MIN, Duration::from_secs(60), NonZeroU32::MIN, KNOWN_USERS)),
            code_attempts: Arc::new(KeyedLimiter::new(CODES, Duration::from_secs(3600), CODES, KNOWN_USERS)),
            password_attempts: Arc::new(KeyedLimiter::new(
                PASSWORDS,
                Duration::from_secs(3600),
                PASSWORDS,
                KNOWN_USERS,
            )),
            turns: Arc::default(),
            backlog: Arc::default(),
            commits: TaskTracker::new(),
        }
    }

    /// The clock in use.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The gateways that watch now.
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// Validity of relay tokens, seconds.
    pub fn relay_token_secs(&self) -> u64 {
        self.settings.relay_token_secs
    }

    /// Whether the storage answers, and what this replica says about policies can be relied on.
    pub async fn ready(&self) -> ServiceResult<()> {
        self.storage.ping().await?;
        if self.is_synced() { Ok(()) } else { Err(ServiceError::Busy) }
    }

    /// Makes sure that the storage and the data directory belong together: the first key that signed policies is the file's,
    /// or this process would lock every gateway out. The same for what is sealed in it.
    pub async fn claim_storage(&self) -> ServiceResult<()> {
        let own = self.settings.signer.public().to_string();
        let mut tx = self.storage.begin().await?;
        let known = tx.fact("policy_key", &own).await?;
        if known != own {
            return Err(ServiceError::OtherKey(known));
        }
        if tx.fact("storage_key", self.settings.vault.fingerprint()).await? != self.settings.vault.fingerprint() {
            return Err(ServiceError::OtherStorageKey);
        }
        self.first_policy_key(&mut *tx).await?;
        self.first_token_key(&mut *tx).await?;
        if self.shared {
            // Known before the first gateway watches here: who watches at an unknown replica is forgotten.
            tx.put_replica(&self.replica, self.clock.unix_secs()).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Waits for running commits and closes the storage.
    pub async fn close(&self) {
        self.commits.close();
        self.commits.wait().await;
        self.storage.close().await;
    }

    /// Refuses an organization that goes on and on changing what the other side of an agreement is told.
    fn may_disturb(&self, actor: &Actor, agreement: AgreementId) -> ServiceResult<()> {
        self.disturbances.check(&(actor.id(), agreement)).map_err(ServiceError::RateLimited)
    }

    /// Counts what takes access away, which is never refused: what comes after it may be.
    fn disturbs(&self, actor: &Actor, agreement: AgreementId) {
        let _ = self.may_disturb(actor, agreement);
    }

    /// Whether a gateway may tell now what costs a turn to write, or how long it has to wait.
    pub(crate) fn may_tell(&self, caller: &GatewayCaller) -> Result<(), Duration> {
        self.tellings.check(&caller.server)
    }

    /// How much of one organization is at work at once.
    pub fn turns(&self) -> &AllTurns {
        &self.turns
    }

    /// Lets a request read when it is the turn of its organization; it is given back with the actor.
    pub(crate) async fn may_read(&self, actor: &mut Actor) -> ServiceResult<()> {
        actor.reading = Some(Arc::new(self.turns.reads.turn(actor.id()).await?));
        Ok(())
    }

    /// A turn to write for an organization.
    async fn turn_to_write(&self, organization: OrganizationId) -> ServiceResult<Turn> {
        Ok(self.turns.writes.turn(organization).await?)
    }

    /// The same for its gateways.
    async fn turn_to_tell(&self, organization: OrganizationId) -> ServiceResult<Turn> {
        self.turns.tells.turn(organization).await.map_err(|_| ServiceError::Busy)
    }

    async fn work(&self, who: Who) -> ServiceResult<Work> {
        let turn = match who.organization() {
            Some(organization) => Some(self.turn_to_write(organization).await?),
            None => None,
        };
        Work::begin(self, who, turn).await
    }

    /// A change by what a gateway tells.
    async fn work_told_by(&self, caller: &GatewayCaller) -> ServiceResult<Work> {
        let turn = self.turn_to_tell(caller.organization).await?;
        Work::begin(self, Who::Gateway(caller.server), Some(turn)).await
    }

    /// A change on behalf of a user, who is looked at again: a request may have waited for its body or for a place while
    /// its user was removed or given another role, or while its session or token ended.
    async fn work_of(&self, actor: &Actor) -> ServiceResult<Work> {
        let mut work = self.work(Who::user(actor)).await?;
        work.condition.clone_from(&actor.if_match);
        let now = work.now;
        let is_alive = match &actor.credential {
            None => true,
            Some(Credential::Session(hash)) => work.session_user(hash, now).await?.is_some(),
            Some(Credential::ApiToken(id)) => work.api_token(*id).await?.is_some_and(|row| now < row.expires_at),
        };
        if !is_alive {
            return Err(ServiceError::Unauthenticated("the session or token has ended; sign in again"));
        }
        match work.user(actor.user.id).await? {
            Some(user) if user.role == actor.user.role => {
                if let Some(claim) = &actor.claim {
                    work.claim(claim).await?;
                }
                Ok(work)
            }
            Some(_) => Err(ServiceError::Forbidden("your role was changed; try again".to_owned())),
            None => Err(ServiceError::Unauthenticated("this user was removed")),
        }
    }
}

/// SHA-256 in hex: how tokens and codes are stored.
pub(crate) fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}
