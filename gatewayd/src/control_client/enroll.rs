//! Enrolment: one code is exchanged for an identity at the control plane, a policy and a relay token.
//!
//! Nothing is saved before everything in the answer is verified, and after a crash or a lost answer the same code may be
//! used again by the same gateway: the control plane gives the same answer to the same key.

use std::time::Duration;

use gateway_net::{
    https::{HttpsError, HttpsRequest, StatusCode, exchange},
    proxy::Proxy,
    tls::{PinError, PinMismatch},
};
use gateway_proto::{
    api::{
        Problem,
        gateway::{ENROLL_PATH, EnrollAnswer, EnrollRequest, EnrollmentCode, EnrollmentCodeError},
        local::Enrolled,
    },
    identity::{GatewayPublicKey, NoiseBinding},
    policy::MAX_POLICY_LEN,
    succession::follow,
};
use tokio::task::JoinError;
use url::Url;

use crate::{
    authority::{Authority, EnrollmentError},
    store::{self, Enrollment},
};

/// From the first byte of the request to the last of the answer.
const ENROLL_TIMEOUT: Duration = Duration::from_secs(60);
/// A first policy of the largest size in base64, with room around it.
const MAX_ANSWER: usize = MAX_POLICY_LEN / 3 * 4 + (1 << 20);
/// Characters of the control plane's own words that are repeated.
const MAX_DETAIL: usize = 500;

/// Why the gateway is not enrolled. Unless it says otherwise, the code may be used again.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Not a code at all.
    #[error("the enrolment code cannot be read")]
    Code(#[from] EnrollmentCodeError),
    /// The address in it is unusable.
    #[error(
        "the enrolment code names '{0}' as the control plane, which is not an https:// address; ask for another code"
    )]
    Address(String),
    /// The pin in it is unusable.
    #[error("the enrolment code holds an unusable pin; ask for another code")]
    Pin(#[from] PinError),
    /// The code is unknown, expired, or was used by another gateway; the control plane says which.
    #[error("the control plane does not accept the code: {0}")]
    CodeRefused(String),
    /// Refused for another reason.
    #[error("the control plane refused the enrolment with HTTP status {status}: {detail}")]
    Refused {
        /// The status.
        status: u16,
        /// The control plane's words.
        detail: String,
    },
    /// The control plane shows another TLS key than the code names.
    #[error("the server at '{control}' is not the control plane that made this code")]
    Intercepted {
        /// The address.
        control: String,
        /// Both fingerprints.
        source: PinMismatch,
    },
    /// It cannot be reached.
    #[error("cannot reach the control plane at '{control}'; check the address, DNS and that a firewall lets us out")]
    Network {
        /// The address.
        control: String,
        /// What went wrong.
        source: Box<HttpsError>,
    },
    /// It cannot be reached through the proxy.
    #[error(
        "cannot reach the control plane at '{control}' through the proxy '{proxy}'; check that the proxy is up, takes \
         our user and password and lets us connect to this address"
    )]
    Proxy {
        /// The address.
        control: String,
        /// Host and port of the proxy.
        proxy: String,
        /// What went wrong.
        source: Box<HttpsError>,
    },
    /// Not the answer of a control plane.
    #[error("the answer of '{control}' is not that of a control plane: {detail}")]
    Answer {
        /// The address.
        control: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It signs with another key than the code names.
    #[error(
        "the control plane has the policy key {answered:?}, but the code names {expected:?}, which does not vouch for it; \
         nothing was saved"
    )]
    PolicyKey {
        /// The key in the code.
        expected: GatewayPublicKey,
        /// The key in the answer.
        answered: GatewayPublicKey,
    },
    /// The policy or the disk.
    #[error(transparent)]
    NotInForce(#[from] EnrollmentError),
    /// The work was cut off.
    #[error("the enrolment was cut off; repeat it with the same code")]
    Task(#[from] JoinError),
}

/// Enrols this gateway with a code, through `proxy` where that covers the control plane's host. Cancel-safe: repeat it with
/// the same code.
pub async fn enroll(code: &str, authority: &Authority, proxy: Option<&Proxy>) -> Result<Enrolled, EnrollError> {
    let code: EnrollmentCode = code.parse()?;
    let answer = request(&code, authority, proxy).await?;
    // The code may be older than the key that signs now.
    if !follow(&[code.policy_key], &answer.succession).contains(&answer.policy_key) {
        return Err(EnrollError::PolicyKey { expected: code.policy_key, answered: answer.policy_key });
    }
    let now = authority.now();
    let enrollment = Enrollment {
        control: code.control,
        pin: code.pin,
        policy_key: answer.policy_key,
        trusted_keys: vec![answer.policy_key],
        server_id: answer.server_id.clone(),
        server_name: answer.server_name.clone(),
        organization_name: answer.organization_name.clone(),
        enrolled_at: now,
    };
    let key = authority.gateway_key().public();
    let shared = authority.clone();
    let work = move || shared.enroll(enrollment, answer.policy, answer.relay_token, now);
    tokio::task::spawn_blocking(work).await??;
    tracing::info!(server = answer.server_id, gateway = key.short(), "enrolled");
    Ok(Enrolled {
        server_id: answer.server_id,
        server_name: answer.server_name,
        organization_name: answer.organization_name,
        key,
    })
}

/// The base URL of a control plane, if that is what the text is.
pub(super) fn base_url(control: &str) -> Option<Url> {
    let url = Url::parse(control).ok()?;
    let is_base = url.scheme() == "https"
        && url.host_str().is_some()
        && url.path() == "/"
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    is_base.then_some(url)
}

async fn request(
    code: &EnrollmentCode,
    authority: &Authority,
    proxy: Option<&Proxy>,
) -> Result<EnrollAnswer, EnrollError> {
    let control = &code.control;
    let mut url = base_url(control).ok_or_else(|| EnrollError::Address(control.clone()))?;
    url.set_path(ENROLL_PATH);
    let proxy = proxy.filter(|proxy| proxy.covers_url(&url));
    let trust = store::trust(code.pin.as_deref())?;
    let noise = NoiseBinding::new(authority.gateway_key(), authority.noise_key());
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let body = EnrollRequest::new(code.secret.clone(), authority.gateway_key(), noise, version);

    let json = serde_json::to_vec(&body).expect("invariant: the request has no map, and nothing that is not text");
    let request = HttpsRequest {
        url,
        trust,
        proxy: proxy.cloned(),
        json: Some(json),
        max_body: MAX_ANSWER,
        limit: ENROLL_TIMEOUT,
    };
    let answer = exchange(request).await.map_err(|source| failure(control.clone(), proxy, source))?;
    if !answer.status.is_success() {
        return Err(refusal(answer.status, &answer.body));
    }
    serde_json::from_slice(&answer.body).map_err(|error| EnrollError::Answer {
        control: control.clone(),
        detail: format!("line {} column {} is not as agreed", error.line(), error.column()),
    })
}

/// Why there was no answer.
fn failure(control: String, proxy: Option<&Proxy>, source: HttpsError) -> EnrollError {
    match (PinMismatch::find_in(&source), &source, proxy) {
        (Some(mismatch), _, _) => EnrollError::Intercepted { control, source: *mismatch },
        (None, HttpsError::TooLong { .. }, _) => EnrollError::Answer { control, detail: "it has no end".to_owned() },
        (None, _, Some(proxy)) => EnrollError::Proxy { control, proxy: proxy.to_string(), source: Box::new(source) },
        (None, _, None) => EnrollError::Network { control, source: Box::new(source) },
    }
}

fn refusal(status: StatusCode, content: &[u8]) -> EnrollError {
    let Ok(problem) = serde_json::from_slice::<Problem>(content) else {
        return EnrollError::Refused { status: status.as_u16(), detail: "no reason was given".to_owned() };
    };
    let detail: String = problem.detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    match problem.code.as_str() {
        "enrollment_code" => EnrollError::CodeRefused(detail),
        _ => EnrollError::Refused { status: status.as_u16(), detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_without_anything_behind_the_host_is_a_control_plane() {
        assert!(base_url("https://control.example").is_some());
        assert!(base_url("https://192.0.2.1:8443/").is_some());
        for text in [
            "http://control.example",
            "https://control.example/path",
            "https://user@control.example",
            "https://control.example/?q",
            "control.example",
            "",
        ] {
            assert!(base_url(text).is_none(), "{text}");
        }
    }
}
