//! Signing in through a provider of OpenID Connect, and what users sign in with.
//!
//! Who starts keeps a verifier and sends its [`oidc_challenge`]; the browser brings a code back, and only code and verifier
//! together are a session. So whoever was talked into opening somebody else's address gives nothing away with it.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Hidden;
use crate::id::IdentityId;

/// What a client sends of its verifier when it starts: SHA-256, 64 hex digits.
pub fn oidc_challenge(verifier: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(verifier.as_bytes()))
}

api_types! {
    /// A provider of OpenID Connect through which people may sign in.
    OidcProvider {
        /// Its name on this platform.
        name: String,
    }
    /// Begin to sign in through a provider.
    #[serde(deny_unknown_fields)]
    StartOidc {
        /// Name of the provider; left out: the only one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<String>,
        /// SHA-256 of the verifier that finishes it, 64 lower-case hex digits.
        challenge: String,
        /// Port of 127.0.0.1 where the client waits for the browser, at `/` and the challenge; left out: the browser shows
        /// the code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loopback_port: Option<u16>,
    }
    /// Where the person signs in.
    StartedOidc {
        /// Name of the provider.
        provider: String,
        /// To be opened in a browser.
        authorization_url: String,
        /// Until when, Unix seconds.
        expires_at: u64,
    }
    /// Finish signing in.
    #[serde(deny_unknown_fields)]
    FinishOidc {
        /// What the browser brought; good once.
        code: Hidden,
        /// Whose challenge started it.
        verifier: Hidden,
        /// Name or id of the organization, for an address or an account with users in several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        organization: Option<String>,
    }
    /// The session has ended here; the one at the provider that it was made through goes on.
    SignedOut {
        /// Name of the provider.
        provider: String,
        /// Where a browser ends that session, too. The provider may ask whether it is meant. It says who the person is: for nobody else.
        end_session_url: String,
    }
    /// A person's account at a provider, linked to a user.
    Identity {
        /// Id.
        id: IdentityId,
        /// Name of the provider on this platform; none: it is no longer configured.
        provider: Option<String>,
        /// Who issued the identity.
        issuer: String,
        /// The account there.
        subject: String,
        /// Unix seconds.
        linked_at: u64,
        /// When it last signed in, Unix seconds.
        last_used_at: u64,
    }
    /// What a user signs in with.
    SignInWays {
        /// Whether a password does.
        password: bool,
        /// Whether it needs a code beside it.
        second_factor: bool,
        /// Linked accounts at providers.
        identities: Vec<Identity>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_digest_in_hex() {
        assert_eq!(oidc_challenge("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
