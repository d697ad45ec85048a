//! What verified claims must say: an address, a group, how the person was recognised.

use std::collections::BTreeMap;

use openidconnect::{UserInfoClaims, core::CoreGenderClaim};
use serde_json::Value;

use super::{Claims, MoreClaims};
use crate::config::{AddressClaim, OidcConfig, RequiredGroup};

/// The longest address that a user can have.
const MAX_ADDRESS: usize = 254;

/// What a provider says about a person, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    email: Option<String>,
    email_verified: bool,
    preferred_username: Option<String>,
    acr: Option<String>,
    amr: Vec<String>,
    more: BTreeMap<String, Value>,
}

impl Facts {
    /// What an ID token says.
    pub(super) fn of(claims: &Claims) -> Self {
        Self {
            email: claims.email().map(|email| email.as_str().to_owned()),
            email_verified: claims.email_verified().unwrap_or_default(),
            preferred_username: claims.preferred_username().map(|name| name.as_str().to_owned()),
            acr: claims.auth_context_ref().map(|acr| acr.as_str().to_owned()),
            amr: claims.auth_method_refs().into_iter().flatten().map(|amr| amr.as_str().to_owned()).collect(),
            more: claims.additional_claims().all.clone(),
        }
    }

    /// Adds what the userinfo endpoint says; the signed token has the last word.
    pub(super) fn add(&mut self, claims: &UserInfoClaims<MoreClaims, CoreGenderClaim>) {
        if self.email.is_none() {
            self.email = claims.email().map(|email| email.as_str().to_owned());
            self.email_verified = claims.email_verified().unwrap_or_default();
        }
        if self.preferred_username.is_none() {
            self.preferred_username = claims.preferred_username().map(|name| name.as_str().to_owned());
        }
        for (name, value) in &claims.additional_claims().all {
            self.more.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// Whether every claim that is looked at is there.
    pub(super) fn suffice(&self, config: &OidcConfig) -> bool {
        let address = match config.address {
            AddressClaim::VerifiedEmail => self.email.is_some(),
            AddressClaim::PreferredUsername => self.preferred_username.is_some(),
        };
        address && config.group.as_ref().is_none_or(|group| self.more.contains_key(&group.claim))
    }

    /// Refuses who is not in the group, or was not recognised well enough.
    pub(super) fn check(&self, config: &OidcConfig) -> Result<(), String> {
        if let Some(group) = &config.group
            && !self.is_in(group)
        {
            return Err(format!("the sign-in provider does not count you to the group '{}'", group.group));
        }
        let acr = &config.required_acr;
        if !acr.is_empty() && !self.acr.as_ref().is_some_and(|own| acr.contains(own)) {
            return Err(weak("acr", acr));
        }
        let amr = &config.required_amr;
        if !amr.is_empty() && !self.amr.iter().any(|own| amr.contains(own)) {
            return Err(weak("amr", amr));
        }
        Ok(())
    }

    /// The address that counts, or why there is none.
    pub(super) fn address(&self, config: &OidcConfig) -> Result<String, String> {
        let text = match config.address {
            AddressClaim::VerifiedEmail if self.email.is_some() && !self.email_verified => {
                return Err("the sign-in provider does not say that your e-mail address was verified".to_owned());
            }
            AddressClaim::VerifiedEmail => self.email.as_deref(),
            AddressClaim::PreferredUsername => self.preferred_username.as_deref(),
        };
        let text = text.map(|text| text.trim().to_lowercase());
        text.filter(|text| !text.is_empty() && text.len() <= MAX_ADDRESS && !text.contains(char::is_control))
            .ok_or_else(|| "the sign-in provider names no address of yours".to_owned())
    }

    fn is_in(&self, required: &RequiredGroup) -> bool {
        let is_group = |value: &Value| value.as_str() == Some(&required.group);
        match self.more.get(&required.claim) {
            Some(Value::Array(groups)) => groups.iter().any(is_group),
            Some(one) => is_group(one),
            None => false,
        }
    }
}

fn weak(claim: &str, wanted: &[String]) -> String {
    format!(
        "the sign-in provider did not recognise you well enough: {claim} must be one of {} (a second factor, for example)",
        wanted.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    fn config(more: &str) -> OidcConfig {
        let text = format!(
            "listen = '127.0.0.1:0'\ndata_dir = 'x'\n[[oidc]]\nname = 'a'\nissuer = 'https://a.example'\nclient_id = 'c'\n{more}"
        );
        Config::parse(&text).unwrap().oidc.remove(0)
    }

    fn facts() -> Facts {
        Facts {
            email: Some(" Maria@Clinic.example".to_owned()),
            email_verified: true,
            preferred_username: Some("maria@clinic.example".to_owned()),
            ..Facts::default()
        }
    }

    #[test]
    fn an_address_counts_only_when_it_is_verified_or_the_operator_says_that_nobody_chooses_it() {
        assert_eq!(facts().address(&config("")), Ok("maria@clinic.example".to_owned()));
        let unverified = Facts { email_verified: false, ..facts() };
        assert!(unverified.address(&config("")).unwrap_err().contains("verified"));
        let by_name = config("address_claim = 'preferred_username'");
        assert_eq!(unverified.address(&by_name), Ok("maria@clinic.example".to_owned()));
        for text in ["", "  ", "a\nb", &"x".repeat(255)] {
            let facts = Facts { email: Some(text.to_owned()), ..facts() };
            assert!(facts.address(&config("")).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_group_is_found_in_a_list_or_alone_and_in_no_part_of_a_word() {
        let config = config("required_group = 'users'\ngroups_claim = 'roles'");
        let with = |value: Value| Facts { more: [("roles".to_owned(), value)].into(), ..facts() };
        for value in [json!("users"), json!(["x", "users"])] {
            assert_eq!(with(value).check(&config), Ok(()));
        }
        for value in [json!("users2"), json!("x users"), json!([["users"]]), json!({"users": true}), json!([])] {
            assert!(with(value.clone()).check(&config).is_err(), "{value}");
        }
        assert!(facts().check(&config).is_err() && !facts().suffice(&config));
    }

    #[test]
    fn a_weak_sign_in_at_the_provider_is_refused_where_a_strong_one_is_asked_for() {
        let config = config("required_acr = ['strong']\nrequired_amr = ['mfa', 'hwk']");
        let strong = Facts { acr: Some("strong".to_owned()), amr: vec!["pwd".to_owned(), "hwk".to_owned()], ..facts() };
        assert_eq!(strong.check(&config), Ok(()));
        let one_factor = Facts { amr: vec!["pwd".to_owned()], ..strong.clone() };
        assert!(one_factor.check(&config).unwrap_err().contains("amr"));
        let silent = Facts { acr: None, ..strong };
        assert!(silent.check(&config).unwrap_err().contains("acr"));
    }
}
