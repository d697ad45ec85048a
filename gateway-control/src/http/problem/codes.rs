//! Every code an error answer may carry, with its cause and its remedy: the content of `docs/errors.md`.

use std::fmt::Write;

/// What a code means.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    /// The code.
    pub code: &'static str,
    /// The HTTP status it comes with.
    pub status: &'static str,
    /// Why it is answered.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

macro_rules! codes {
    ($($code:literal ($status:literal): $cause:literal => $remedy:literal;)*) => {
        /// All of them.
        pub const CODES: &[Code] = &[$(Code { code: $code, status: $status, cause: $cause, remedy: $remedy }),*];
    };
}

codes! {
    "not_found" ("404"): "There is nothing at this path, or the object belongs to others: the two look the same."
        => "Check the id and the path; ask the organization that owns the object.";
    "forbidden" ("403"): "The role of the user does not allow it (permissions.md), or registration is not open."
        => "Ask a user with one of the roles that the answer names.";
    "unauthenticated" ("401"): "No session or token, one that has ended, or a wrong password."
        => "Sign in again. A gateway shows in its status what is not accepted: its clock, its enrolment, or the policy key that it trusts.";
    "totp_required" ("401"): "The password is right, and the user has a second factor."
        => "Sign in with the code that the authenticator shows now, or with a recovery code.";
    "oidc_attempt" ("401"): "The sign-in through a provider is unknown, was used, took longer than ten minutes, or was finished by somebody who did not start it."
        => "Start again; finish within ten minutes, on the machine where it was started.";
    "oidc_provider" ("502"): "The sign-in provider cannot be reached, or answers in a way that cannot be used; the answer says how."
        => "Try again; if it goes on, the operator of the platform compares `[[oidc]]` with the provider's discovery document.";
    "oidc_token" ("403"): "The provider's ID token is not accepted: signature, issuer, audience, time or nonce do not fit."
        => "Compare the clocks, and `issuer` and `client_id` with the provider. None of it is for the person who signs in to mend.";
    "oidc_refused" ("403"): "The provider signs the person in, but not well enough, not with a verified address, not in the required group, or not at all."
        => "The answer says what is missing; the provider's administrator can give it.";
    "oidc_unknown" ("403"): "No user and no invitation belongs to the address that the provider names, or the user is linked to another account there."
        => "Ask an administrator of the organization for an invitation to exactly that address, or to unlink the other account.";
    "oidc_organization" ("409"): "The person has users or invitations in more than one organization."
        => "Name the organization; `gateway-ctl login --oidc --organization NAME`.";
    "oidc_required" ("403"): "The user is linked to a provider, and the operator wants linked users to sign in through it."
        => "Sign in through the provider: `gateway-ctl login --oidc`.";
    "invalid" ("400, 405, 413, 415, 422"): "The request cannot be understood, or a value is not what is accepted; the answer names the field."
        => "Correct the request; the OpenAPI document has every field.";
    "conflict" ("409"): "It contradicts what exists: a name is taken, the same thing waits already, the last owner would go."
        => "The answer names what is in the way; change one of the two.";
    "wrong_state" ("409"): "The act is not possible in this status, not for this side, or what it stands on is suspended or over (state-machines.md)."
        => "Get the object, and do what its status allows; the answer lists it.";
    "tier_limit" ("409"): "The subscription tier has no room for one more, or does not have the feature."
        => "Remove one, or ask the operator of the platform for a larger tier; GET /organization/usage has the figures.";
    "idempotency_key" ("409"): "The Idempotency-Key was used for another request, or the request was done and its answer is not kept."
        => "Use a new key for a new request; look at what the first one made.";
    "key_not_kept" ("422"): "Idempotency-Key came with a request that is no change of a signed-in user or the operator: nothing was done."
        => "Send it without Idempotency-Key.";
    "changed" ("412"): "If-Match names another state of the object than the one it is in."
        => "Get the object again, and decide anew.";
    "unconditional" ("422"): "If-Match came with a request that changes no object with a tag: nothing was done."
        => "Send it without If-Match.";
    "enrollment_code" ("403"): "The enrolment code is unknown, used or over."
        => "Make a new code for the server.";
    "replay" ("401"): "A gateway's assertion was used before, or is older than this process of the control plane."
        => "None for people: the gateway signs a new one. If it goes on, compare the clocks.";
    "rate_limited" ("429"): "Too many requests of this user, address or account, or too many peering requests in vain."
        => "Wait for the time in Retry-After.";
    "busy" ("429"): "As many requests of the organization as may (64) wait for their turn at this replica already: at each replica one organization has one change, two reading requests and one computation of a password at work at once."
        => "Send fewer at the same time, and this one again after Retry-After; nothing was changed.";
    "unavailable" ("408, 503"): "The platform is busy, starting or stopping, one of its replicas is being replaced by a newer version, its storage cannot be reached, or the disk of its database is full, fails or became read-only (the answer says which)."
        => "Try again after a moment; nothing was changed, unless the answer was lost: an Idempotency-Key makes that safe.";
    "internal" ("500"): "Something that should not happen."
        => "Tell the operator of the platform the request id: the log has the cause under it.";
}

/// The document, generated; a test compares it with the file.
pub fn errors_document() -> String {
    let mut text = String::from(
        "# Errors\n\nGenerated from the codes of `gateway-control` (`http/problem/codes.rs`); do not edit. To bring it up to date: `UPDATE_DOCS=1 \
         cargo test -p gateway-control codes`.\n\nEvery error answer is `application/problem+json` with a stable `code` for programs, a `detail` for \
         people that says what happened and what to do, the HTTP `status`, and the `request_id` under which the log of the control plane and, \
         for changes, the audit log have it. What is no HTTP request, or has a head above 16 KiB, gets a bare 400 or 431 from the parser, before \
         anything knows of a request: no body, no request id, and the connection ends.\n\n| code | status | cause | remedy |\n|---|---|---|---|\n",
    );
    for code in CODES {
        writeln!(text, "| `{}` | {} | {} | {} |", code.code, code.status, code.cause, code.remedy)
            .expect("invariant: writing to a String does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_in_use_is_documented_once_with_cause_and_remedy() {
        let source = include_str!("../problem.rs");
        // Every arm that makes a code: its first text is the code.
        let used = source.lines().filter_map(|line| line.split_once("=> (")?.1.split('"').nth(1));
        let mut found = 0;
        for code in used {
            found += 1;
            assert_eq!(CODES.iter().filter(|known| known.code == code).count(), 1, "{code} is not documented");
        }
        assert!(found > 10, "{found} codes found in the source");
    }

    #[test]
    fn the_document_shows_the_codes_as_they_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, errors_document()).unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        assert!(text == errors_document(), "docs/errors.md is out of date: run with UPDATE_DOCS=1");
    }
}
