//! How often something may be done, or is written down: per gateway, channel, organization or user, at each replica.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use gateway_proto::{
    id::{AgreementId, ApiTokenId, ChannelId, OrganizationId, ServerId, UserId},
    identity::GatewayPublicKey,
};

use super::{Actor, GatewayCaller, Service, ServiceError, ServiceResult, totp::Guesser};
use crate::limits::{Allowances, KeyedLimiter, Recent};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Watches one gateway may open at once; then one a second. A table of nonces that is full refuses everybody.
const OPENINGS: NonZeroU32 = NonZeroU32::new(20).expect("invariant: not zero");
/// News of an engine, and refused policies, of one gateway at once: the largest engine is told in forty parts.
const TELLINGS: NonZeroU32 = NonZeroU32::new(60).expect("invariant: not zero");
/// Then one each.
const TELLING_EACH: Duration = Duration::from_secs(3);
/// Moves of one gateway's home relay at once, on whichever watch: each is a policy for all who are connected with it. A relay that
/// goes away soon after another one did is followed at once.
const MOVES: u32 = 2;
/// Then one each.
const MOVE_EACH: Duration = Duration::from_secs(10);
/// How often one gateway may have a newer policy than the storage: as often as a backup is restored.
const RAISES: u32 = 5;
/// Then one each.
const RAISE_EACH: Duration = Duration::from_secs(600);
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
/// Wrong codes of a second factor that may be tried for one user at once; then one each of these times. Three of a million count at
/// a time, so who guesses on and on has one chance in 1,400 a day for each replica.
const CODES: u32 = 10;
/// The same.
const CODE_EACH: Duration = Duration::from_secs(360);
/// Passwords that one session may show in an hour, to change the password or the second factor.
const PASSWORDS: NonZeroU32 = NonZeroU32::new(20).expect("invariant: not zero");
/// Users whose refusals are counted.
const KNOWN_USERS: usize = 50_000;

/// The limiters.
#[derive(Debug)]
pub(super) struct Rates {
    /// How often one gateway may open a watch: its assertions take places in a table that all share.
    pub(super) openings: KeyedLimiter<GatewayPublicKey>,
    /// How often one gateway may say what costs a turn to write: news of its engine, refused policies.
    tellings: KeyedLimiter<ServerId>,
    /// How often the home relay of one gateway may move.
    pub(super) moves: Arc<Allowances<ServerId>>,
    /// How often one gateway may have a policy that the storage does not remember.
    pub(super) raises: Arc<Allowances<ServerId>>,
    /// How often it is written down that the engine's end of one channel was stopped, deleted or started.
    pub(super) engine_ends: KeyedLimiter<ChannelId>,
    /// How often one organization may change, inside one agreement, what the other one's gateways are told.
    disturbances: KeyedLimiter<(OrganizationId, AgreementId)>,
    /// How often one organization may make and remove links to devices of another one: that needs no agreement.
    links: KeyedLimiter<(OrganizationId, OrganizationId)>,
    /// How often one organization may change its name.
    pub(super) renames: KeyedLimiter<OrganizationId>,
    /// How many refused operator tokens are written down.
    pub(super) operator_refusals: KeyedLimiter<()>,
    /// How many refused sign-ins of one user are written down.
    pub(super) refusals: KeyedLimiter<UserId>,
    /// How often it is written down that one token of automation was used.
    pub(super) uses: KeyedLimiter<ApiTokenId>,
    /// How many wrong codes of a second factor may be tried, by whom.
    pub(super) codes: Allowances<Guesser>,
    /// From where users signed in with their second factor lately.
    pub(super) places: Recent<(UserId, IpAddr)>,
    /// How often one session may show the password of its user.
    pub(super) password_attempts: KeyedLimiter<String>,
}

impl Default for Rates {
    fn default() -> Self {
        let one = NonZeroU32::MIN;
        Self {
            openings: KeyedLimiter::new(one, SECOND, OPENINGS, KNOWN_GATEWAYS),
            tellings: KeyedLimiter::new(one, TELLING_EACH, TELLINGS, KNOWN_GATEWAYS),
            moves: Arc::new(Allowances::new(MOVES, MOVE_EACH, KNOWN_GATEWAYS)),
            raises: Arc::new(Allowances::new(RAISES, RAISE_EACH, KNOWN_GATEWAYS)),
            engine_ends: KeyedLimiter::new(ENGINE_ENDS, HOUR, ENGINE_ENDS, KNOWN_GATEWAYS),
            disturbances: KeyedLimiter::new(one, SECOND, DISTURBANCES, KNOWN_GATEWAYS),
            links: KeyedLimiter::new(one, SECOND, DISTURBANCES, KNOWN_GATEWAYS),
            renames: KeyedLimiter::new(RENAMES, HOUR, RENAMES, KNOWN_GATEWAYS),
            operator_refusals: KeyedLimiter::new(REFUSALS, HOUR, REFUSALS, 1),
            refusals: KeyedLimiter::new(REFUSALS, HOUR, REFUSALS, KNOWN_USERS),
            uses: KeyedLimiter::new(one, Duration::from_secs(60), one, KNOWN_USERS),
            codes: Allowances::new(CODES, CODE_EACH, KNOWN_USERS),
            places: Recent::new(KNOWN_USERS),
            password_attempts: KeyedLimiter::new(PASSWORDS, HOUR, PASSWORDS, KNOWN_USERS),
        }
    }
}

impl Service {
    /// Refuses an organization that goes on and on changing what the other side of an agreement is told.
    pub(super) fn may_disturb(&self, actor: &Actor, agreement: AgreementId) -> ServiceResult<()> {
        self.rates.disturbances.check(&(actor.id(), agreement)).map_err(ServiceError::RateLimited)
    }

    /// Counts what takes access away, which is never refused: what comes after it may be.
    pub(super) fn disturbs(&self, actor: &Actor, agreement: AgreementId) {
        let _ = self.may_disturb(actor, agreement);
    }

    /// Refuses an organization that goes on and on making links to devices of another one, whose log has each.
    pub(super) fn may_link_on(&self, actor: &Actor, other: OrganizationId) -> ServiceResult<()> {
        if other == actor.id() {
            return Ok(());
        }
        self.rates.links.check(&(actor.id(), other)).map_err(ServiceError::RateLimited)
    }

    /// Counts the removal of a link, which is never refused: the next one may be.
    pub(super) fn unlinks(&self, actor: &Actor, other: OrganizationId) {
        let _ = self.may_link_on(actor, other);
    }

    /// Whether a gateway may tell now what costs a turn to write, or how long it has to wait.
    pub(crate) fn may_tell(&self, caller: &GatewayCaller) -> Result<(), Duration> {
        self.rates.tellings.check(&caller.server)
    }
}
