//! `[[oidc]]`: providers of OpenID Connect.

use std::{collections::BTreeSet, path::PathBuf};

use gateway_proto::id::OrganizationId;
use serde::Deserialize;
use url::Url;

use super::Mistakes;

/// Providers of one platform: each is an entry in a list that people choose from.
const MAX_PROVIDERS: usize = 20;

/// A provider of OpenID Connect.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// Its name on this platform.
    pub name: String,
    /// Its issuer, exactly as its discovery document and its tokens write it.
    pub issuer: String,
    /// Who we are there.
    pub client_id: String,
    /// File with our secret there, mode 0600; none: a public client.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// Which claim is the address that users are invited by.
    pub address: AddressClaim,
    /// Who is in this group only.
    pub group: Option<RequiredGroup>,
    /// One of these, if there are any, must be the token's `acr`.
    pub required_acr: Vec<String>,
    /// One of these, if there are any, must be among the token's `amr`.
    pub required_amr: Vec<String>,
    /// For users of these organizations only; empty: of all.
    pub organizations: BTreeSet<OrganizationId>,
    /// Whether users who are linked to it may still sign in with a password.
    pub password_for_linked: bool,
    /// PEM file with the authorities that vouch for its servers; none: the public web PKI.
    pub ca_file: Option<PathBuf>,
}

/// Which claim is the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClaim {
    /// `email`, where the provider says that it was verified.
    VerifiedEmail,
    /// `preferred_username`: for providers whose users cannot choose it.
    PreferredUsername,
}

/// A group that people must be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredGroup {
    /// The claim that lists the groups.
    pub claim: String,
    /// The group.
    pub group: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    name: String,
    issuer: String,
    client_id: String,
    client_secret_file: Option<PathBuf>,
    scopes: Option<Vec<String>>,
    address_claim: Option<String>,
    required_group: Option<String>,
    groups_claim: Option<String>,
    #[serde(default)]
    required_acr: Vec<String>,
    #[serde(default)]
    required_amr: Vec<String>,
    #[serde(default)]
    organizations: Vec<String>,
    #[serde(default = "yes")]
    password_for_linked: bool,
    ca_file: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

impl Mistakes {
    pub(super) fn oidc(&mut self, sections: Vec<Section>) -> Vec<OidcConfig> {
        if sections.len() > MAX_PROVIDERS {
            self.add("oidc", format!("{} providers", sections.len()), &format!("{MAX_PROVIDERS} at most"));
        }
        let (mut names, mut issuers) = (BTreeSet::new(), BTreeSet::new());
        for section in &sections {
            if !names.insert(&section.name) {
                self.add("oidc.name", &section.name, "each name once");
            }
            // Identities are known by issuer and subject: two providers with one issuer could not be told apart.
            if !issuers.insert(&section.issuer) {
                self.add("oidc.issuer", &section.issuer, "each issuer once");
            }
        }
        sections.into_iter().map(|section| self.provider(section)).collect()
    }

    fn provider(&mut self, section: Section) -> OidcConfig {
        let name = section.name;
        let key = |field: &str| format!("oidc '{}': {field}", name.chars().take(40).collect::<String>());
        let named = |name: &str| {
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=40).contains(&name.len()) && name.bytes().all(good)
        };
        if !named(&name) {
            self.add("oidc.name", &name, "1 to 40 of a-z, 0-9 and -");
        }
        let is_issuer = |url: &Url| {
            let bare = url.query().is_none() && url.fragment().is_none();
            url.scheme() == "https" && url.has_host() && bare && url.username().is_empty() && url.password().is_none()
        };
        if !Url::parse(&section.issuer).is_ok_and(|url| is_issuer(&url)) {
            let accepted = "the issuer of the discovery document: https://host or https://host/path, without a query";
            self.add(&key("issuer"), &section.issuer, accepted);
        }
        let is_word = |text: &str| !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_word(&section.client_id) {
            self.add(&key("client_id"), &section.client_id, "1 to 255 visible ASCII characters");
        }
        let scopes = section.scopes.unwrap_or_else(|| vec!["email".to_owned(), "profile".to_owned()]);
        let words =
            [("scopes", &scopes), ("required_acr", &section.required_acr), ("required_amr", &section.required_amr)];
        for (field, texts) in words {
            for text in texts.iter().filter(|text| !is_word(text)) {
                self.add(&key(field), text, "words of 1 to 255 visible ASCII characters");
            }
        }
        let address = match section.address_claim.as_deref().unwrap_or("email") {
            "email" => AddressClaim::VerifiedEmail,
            "preferred_username" => AddressClaim::PreferredUsername,
            other => {
                self.add(&key("address_claim"), other, "`email` or `preferred_username`");
                AddressClaim::VerifiedEmail
            }
        };
        if let (None, Some(claim)) = (&section.required_group, &section.groups_claim) {
            self.add(&key("groups_claim"), claim, "nothing without `required_group`");
        }
        let claim = section.groups_claim.unwrap_or_else(|| "groups".to_owned());
        let group = section.required_group.map(|group| RequiredGroup { claim, group });
        if let Some(RequiredGroup { claim, group }) = &group {
            for (field, text) in [("required_group", group), ("groups_claim", claim)] {
                if text.is_empty() || text.len() > 255 {
                    self.add(&key(field), text, "1 to 255 characters");
                }
            }
        }
        let mut organizations = BTreeSet::new();
        for text in section.organizations {
            match text.parse() {
                Ok(id) => _ = organizations.insert(id),
                Err(_) => self.add(&key("organizations"), text, "ids of organizations, like org_0198…"),
            }
        }
        OidcConfig {
            name,
            issuer: section.issuer,
            client_id: section.client_id,
            client_secret_file: section.client_secret_file,
            scopes,
            address,
            group,
            required_acr: section.required_acr,
            required_amr: section.required_amr,
            organizations,
            password_for_linked: section.password_for_linked,
            ca_file: section.ca_file,
        }
    }
}
