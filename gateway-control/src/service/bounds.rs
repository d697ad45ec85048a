//! What is accepted from clients, where the types of the API do not say it. Said once: the service refuses by it, and the OpenAPI
//! document is made from it.

pub(crate) use gateway_proto::api::values::MAX_TEXT;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A length of time in seconds: the least, what counts where nothing is said, and the most.
type Secs = (u64, u64, u64);

/// How long a token for automation is valid: a leap year at most.
pub(crate) const API_TOKEN_SECS: Secs = (MINUTE, 90 * DAY, 366 * DAY);
/// How long an invitation is valid.
pub(crate) const INVITATION_SECS: Secs = (MINUTE, 7 * DAY, 30 * DAY);
/// How long an enrolment code is valid.
pub(crate) const ENROLLMENT_CODE_SECS: Secs = (MINUTE, HOUR, 7 * DAY);
/// For how long a person enters an admin connection.
pub(crate) const ENTERED_SECS: Secs = (MINUTE, 8 * HOUR, DAY);
/// How long a policy key is known before it signs.
pub(crate) const POLICY_KEY_LEAD_SECS: Secs = (MINUTE, DAY, 30 * DAY);
/// How long the platform's old token counts beside the new one.
pub(crate) const PLATFORM_TOKEN_OVERLAP_SECS: Secs = (0, DAY, 30 * DAY);
/// How long the old secret of a connection is accepted, the least and the most: the shortest time that two policies can be expected
/// to arrive in, and twice the longest staleness budget there is.
pub(crate) const SECRET_OVERLAP_SECS: (u64, u64) = (MINUTE, 2 * STALENESS_SECS.1);
/// The staleness budget of a connection, the least and the most.
pub(crate) const STALENESS_SECS: (u64, u64) = (MINUTE, 30 * DAY);
/// The same of an admin connection.
pub(crate) const ADMIN_STALENESS_SECS: (u64, u64) = (MINUTE, DAY);
/// No token of a device lives for less, seconds.
pub(crate) const MIN_DEVICE_TOKEN_SECS: u64 = MINUTE;

/// Characters of a password at least, and its bytes at most.
pub(crate) const PASSWORD: (usize, usize) = (12, 1_024);
/// Bytes of an e-mail address at most.
pub(crate) const MAX_EMAIL: usize = 254;
/// Characters of the word about an alarm that is acknowledged, at most.
pub(crate) const MAX_NOTE: usize = 300;
/// Characters of a program's version at most.
pub(crate) const MAX_VERSION: usize = 60;
/// Characters that are looked for in the directory, at most.
pub(crate) const MAX_SEARCH: usize = 120;
/// Bytes of a device token's audience at most.
pub(crate) const MAX_AUDIENCE: usize = 120;
/// Characters of a region of relays, and of the name of a tier, at most.
pub(crate) const MAX_WORD: usize = 40;
/// STUN listeners of a relay, and the bytes of each, at most.
pub(crate) const MAX_STUN: (usize, usize) = (4, 260);
/// Scopes of a token for automation at most; there are fewer.
pub(crate) const MAX_SCOPES: usize = 64;
/// Behaviors of a device at most.
pub(crate) const MAX_BEHAVIORS_OF_DEVICE: usize = 50;
/// Hex digits of the challenge that a sign-in through a provider begins with.
pub(crate) const CHALLENGE: usize = 64;
