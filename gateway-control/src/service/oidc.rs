//! Signing in through a provider of OpenID Connect.
//!
//! Life: *started* by a client that keeps a verifier and sends its challenge; the person signs in at the provider; the
//! provider sends the browser back with a code (*returned*), which is redeemed at once; the browser brings the client a code of
//! ours; the client shows it with the verifier (*finished*), and only then a user is looked for, linked and signed in.
//!
//! What is between two steps is not kept here: it travels sealed with the storage key, as the `state` and as the code of ours, so
//! strangers fill no table and any replica goes on with it. That each is good once is written down when it is used.
//!
//! Invariants: nobody becomes a user who was not invited; an account at a provider is known by issuer and subject, and its
//! address counts once, when it is linked; an address that could mean several users means none.

mod sign_out;

use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use gateway_proto::{
    api::platform::{FinishOidc, Hidden, OidcProvider, Session, StartOidc, StartedOidc, oidc_challenge},
    id::{IdentityId, OrganizationId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Actor, Service, ServiceError, ServiceResult, Stranger, Work, bounds, digest, organizations::organization_of,
    work::Who,
};
use crate::{
    oidc::{Attempt, Provider, ProviderError, Verified},
    storage::{IdentityRow, InvitationRow, PasswordHash, StorageError, UserRow},
};

/// How long a person may take at the provider.
const ATTEMPT: Duration = Duration::from_secs(600);
/// How long the client may take to fetch the session: a person may have to paste the code.
const CODE: Duration = Duration::from_secs(120);
/// With more than one user or invitation an address is ambiguous.
const CANDIDATES: u32 = 2;
/// Where providers send browsers, below the public URL and with the provider's name; registered with them.
const CALLBACK: &str = "/api/v1/oidc/callback";

const STATE: &str = "oidc state";
const RETURNED: &str = "oidc code";
const UNKNOWN: ServiceError =
    ServiceError::OidcAttempt("this sign-in is unknown, was finished already, or took too long; start again");

/// A sign-in that was started. Travels as the `state`.
#[derive(Clone, Serialize, Deserialize)]
pub struct OidcAttempt {
    provider: String,
    nonce: String,
    verifier: String,
    challenge: String,
    port: Option<u16>,
    end: u64,
}

impl OidcAttempt {
    /// Where the client waits for the browser on its own machine; none: a person carries the code.
    pub fn loopback(&self) -> Option<String> {
        self.port.map(|port| format!("http://127.0.0.1:{port}/{}", self.challenge))
    }
}

impl std::fmt::Debug for OidcAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcAttempt").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What the provider sends back with the browser, beside the `state`.
#[derive(Debug, Default)]
pub struct OidcReturn {
    /// The code.
    pub code: Option<Hidden>,
    /// Why there is none.
    pub error: Option<String>,
    /// Who answers (RFC 9207).
    pub issuer: Option<String>,
}

/// Who signed in at the provider. Travels as the code of ours.
#[derive(Serialize, Deserialize)]
struct Returned {
    provider: String,
    subject: String,
    address: Result<String, String>,
    challenge: String,
    end: u64,
    /// For the end of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<Hidden>,
}

impl Service {
    /// The providers through which people may sign in.
    pub fn oidc_providers(&self) -> Vec<OidcProvider> {
        self.settings.oidc.iter().map(|provider| OidcProvider { name: provider.name().to_owned() }).collect()
    }

    /// Begins: where the person signs in.
    pub async fn start_oidc(&self, body: StartOidc) -> ServiceResult<StartedOidc> {
        let is_challenge = |text: &str| {
            text.len() == bounds::CHALLENGE && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if !is_challenge(&body.challenge) {
            let what = "challenge is the SHA-256 of the verifier, 64 lower-case hex digits";
            return Err(ServiceError::Invalid(what.to_owned()));
        }
        if body.loopback_port == Some(0) {
            return Err(ServiceError::Invalid("loopback_port is the port of a listener, 1 to 65535".to_owned()));
        }
        let provider = self.provider_to_start(body.provider.as_deref())?;
        let now = self.clock.unix_secs();
        let attempt = OidcAttempt {
            provider: provider.name().to_owned(),
            nonce: HEXLOWER.encode(&gateway_net::random::<32>()),
            verifier: HEXLOWER.encode(&gateway_net::random::<32>()),
            challenge: body.challenge,
            port: body.loopback_port,
            end: now + ATTEMPT.as_secs(),
        };
        let state = self.seal_step(STATE, &attempt)?;
        let redirect = self.oidc_redirect(provider);
        let url = provider.authorization(self.asked(&attempt, &redirect), &state, now).await?;
        Ok(StartedOidc { provider: attempt.provider, authorization_url: url.into(), expires_at: attempt.end })
    }

    /// What a `state` is about, which is good once, and where browsers from this provider come to only: a code of one must
    /// never be redeemed at another, who could then use it himself (mix-up, RFC 9700 §4.4).
    pub async fn oidc_attempt(&self, provider: &str, state: &str) -> ServiceResult<OidcAttempt> {
        let attempt: OidcAttempt = self.open_step(STATE, state).ok_or(UNKNOWN)?;
        if attempt.provider != provider || self.clock.unix_secs() >= attempt.end {
            return Err(UNKNOWN);
        }
        let mut tx = self.storage.begin().await?;
        if !tx.spend_nonce(&digest(state), attempt.end).await? {
            return Err(UNKNOWN);
        }
        tx.commit().await?;
        Ok(attempt)
    }

    /// Redeems what the browser brought from the provider; the code for the client.
    pub async fn return_oidc(&self, attempt: &OidcAttempt, back: OidcReturn) -> ServiceResult<Hidden> {
        let provider = self.settings.oidc.named(&attempt.provider).ok_or(UNKNOWN)?;
        if back.issuer.is_some_and(|issuer| issuer != provider.issuer()) {
            return Err(ProviderError::Token("another provider answered than was asked".to_owned()).into());
        }
        if let Some(error) = back.error {
            let error: String = error.chars().filter(char::is_ascii_graphic).take(100).collect();
            return Err(ProviderError::Refused(format!("the sign-in provider signed nobody in: {error}")).into());
        }
        let code = back.code.ok_or_else(|| ServiceError::Invalid("there is neither code nor error".to_owned()))?;
        let now = self.clock.unix_secs();
        let redirect = self.oidc_redirect(provider);
        let Verified { subject, address, id_token } =
            provider.redeem(self.asked(attempt, &redirect), code.0.clone(), now).await?;
        let returned = Returned {
            provider: attempt.provider.clone(),
            subject,
            address,
            challenge: attempt.challenge.clone(),
            end: self.clock.unix_secs() + CODE.as_secs(),
            id_token: attempt.kept(id_token),
        };
        Ok(Hidden(self.seal_step(RETURNED, &returned)?))
    }

    /// Finishes: the session, for whoever started.
    pub async fn finish_oidc(&self, stranger: &Stranger, body: FinishOidc) -> ServiceResult<Session> {
        let returned: Returned = self.open_step(RETURNED, &body.code.0).ok_or(UNKNOWN)?;
        if self.clock.unix_secs() >= returned.end || oidc_challenge(&body.verifier.0) != returned.challenge {
            return Err(UNKNOWN);
        }
        let provider = self.settings.oidc.named(&returned.provider).ok_or(UNKNOWN)?;
        let mut work = self.work(Who::stranger(stranger)).await?;
        // With everything else or not at all: who has to name an organization comes again.
        if !work.spend_nonce(&digest(&body.code.0), returned.end).await? {
            return Err(UNKNOWN);
        }
        let organization = match body.organization.as_deref() {
            None => None,
            Some(text) => match text.parse::<OrganizationId>() {
                Ok(id) => Some(id),
                Err(_) => Some(work.organization_named(text).await?.ok_or_else(nobody)?),
            },
        };
        let user = work.user_of_account(provider, &returned, organization).await?;
        let organization = organization_of(work.tx(), &user).await?;
        let actor = Actor::new(user, organization, &stranger.request);
        let mut work = work.acting_as(Who::user(&actor));
        let how = format!("through '{}'", provider.name());
        work.audit(&[actor.id()], "session.create", actor.user.id, how).await?;
        let session = self.open_session(work.tx(), actor).await?;
        work.made_through(&session, provider, returned.id_token.as_ref()).await?;
        work.commit().await?;
        Ok(session)
    }

    fn provider_to_start(&self, name: Option<&str>) -> ServiceResult<&Provider> {
        let providers = &self.settings.oidc;
        let names = || providers.iter().map(Provider::name).collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => providers.named(name).ok_or(ServiceError::NotFound("sign-in provider")),
            None => match (providers.iter().next(), providers.iter().nth(1)) {
                (Some(only), None) => Ok(only),
                (Some(_), Some(_)) => Err(ServiceError::Invalid(format!("name the provider: {}", names()))),
                (None, _) => Err(ServiceError::NotFound("sign-in provider")),
            },
        }
    }

    fn asked<'a>(&self, attempt: &'a OidcAttempt, redirect: &'a str) -> Attempt<'a> {
        Attempt { nonce: &attempt.nonce, verifier: &attempt.verifier, redirect }
    }

    fn oidc_redirect(&self, provider: &Provider) -> String {
        format!("{}{CALLBACK}/{}", self.settings.public_url, provider.name())
    }

    /// A value that only we can read or make, as it may stand in a URL.
    fn seal_step(&self, purpose: &str, value: &impl Serialize) -> ServiceResult<String> {
        let failed = ServiceError::Internal("a sign-in cannot be sealed");
        let Ok(text) = serde_json::to_vec(value).map(zeroize::Zeroizing::new) else { return Err(failed) };
        let sealed = self.settings.vault.seal(purpose, &text).ok();
        let bytes = sealed.and_then(|sealed| BASE64.decode(sealed.as_bytes()).ok());
        bytes.map(|bytes| BASE64URL_NOPAD.encode(&bytes)).ok_or(failed)
    }

    fn open_step<T: DeserializeOwned>(&self, purpose: &str, text: &str) -> Option<T> {
        let bytes = BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok()?;
        let opened = self.settings.vault.open(purpose, &BASE64.encode(&bytes)).ok()?;
        serde_json::from_slice(&opened).ok()
    }
}

/// Who is meant by an address.
enum Candidate {
    User(UserRow),
    Invited(InvitationRow),
}

impl Work {
    /// The user of an account: the one it is linked to, else the one its address means, who is linked now.
    async fn user_of_account(
        &mut self,
        provider: &Provider,
        account: &Returned,
        organization: Option<OrganizationId>,
    ) -> ServiceResult<UserRow> {
        let meant =
            |id: OrganizationId| provider.serves(id) && organization.is_none_or(|organization| organization == id);
        let mut linked = self.identities_of_account(provider.issuer(), &account.subject).await?;
        linked.retain(|row| meant(row.organization));
        match linked.as_slice() {
            [] => {}
            [row] => {
                let now = self.now;
                self.identity_used(row.id, now).await?;
                return self.user(row.user).await?.ok_or(ServiceError::Internal("an identity without user"));
            }
            _ => return Err(ServiceError::OidcOrganization),
        }
        let address = match &account.address {
            Ok(address) => address,
            Err(why) => return Err(ProviderError::Refused(why.clone()).into()),
        };
        let user = match self.candidate(address, provider, organization).await? {
            Candidate::User(user) => user,
            Candidate::Invited(invitation) => self.accept_invited(invitation).await?,
        };
        self.link(provider, account, &user).await?;
        Ok(user)
    }

    /// The one whom an address means.
    async fn candidate(
        &mut self,
        address: &str,
        provider: &Provider,
        organization: Option<OrganizationId>,
    ) -> ServiceResult<Candidate> {
        let now = self.now;
        let organizations: Vec<_> = match organization {
            Some(named) => provider.serves(named).then_some(named).into_iter().collect(),
            None => provider.organizations().iter().copied().collect(),
        };
        let (mut users, mut invitations) = (Vec::new(), Vec::new());
        if organization.is_none() && organizations.is_empty() {
            users = self.users_with_address(address, CANDIDATES).await?;
            invitations = self.invitations_to_address(address, now, CANDIDATES).await?;
        }
        // Asked one by one: an address that is in many other organizations hides none of these.
        for id in organizations {
            users.extend(self.user_of(id, address).await?);
            invitations.extend(self.invitation_to(id, address).await?.filter(|row| row.expires_at > now));
        }
        let mut candidates =
            users.into_iter().map(Candidate::User).chain(invitations.into_iter().map(Candidate::Invited));
        match (candidates.next(), candidates.next()) {
            (None, _) => Err(nobody()),
            (Some(candidate), None) => Ok(candidate),
            (Some(_), Some(_)) => Err(ServiceError::OidcOrganization),
        }
    }

    /// Makes the user whom an invitation is for, without a password.
    async fn accept_invited(&mut self, row: InvitationRow) -> ServiceResult<UserRow> {
        let user = self.user_of_invitation(&row, PasswordHash(String::new())).await?.ok_or_else(nobody)?;
        self.audit(&[row.organization], "invitation.accept", row.id, format!("user {}, without a password", user.id))
            .await?;
        Ok(user)
    }

    async fn link(&mut self, provider: &Provider, account: &Returned, user: &UserRow) -> ServiceResult<()> {
        let (ms, random) = self.seed();
        let row = IdentityRow {
            id: IdentityId::new(ms, random),
            issuer: provider.issuer().to_owned(),
            subject: account.subject.clone(),
            organization: user.organization,
            user: user.id,
            linked_at: self.now,
            last_used_at: self.now,
        };
        match self.insert_identity(&row).await {
            Ok(()) => {}
            // An address that changed hands at the provider: its user is still the one who had it.
            Err(StorageError::Duplicate) => {
                return Err(ServiceError::OidcUnknown(format!(
                    "the user with your address is linked to another account at '{}'; an administrator can unlink it",
                    provider.name()
                )));
            }
            Err(error) => return Err(error.into()),
        }
        let detail = format!("{} with account {} of '{}'", user.email, row.subject, provider.name());
        self.audit(&[user.organization], "user.link", user.id, detail).await
    }
}

fn nobody() -> ServiceError {
    ServiceError::OidcUnknown(
        "no user and no invitation belongs to your address at the sign-in provider; ask for an invitation".to_owned(),
    )
}
