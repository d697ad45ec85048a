//! `[[oidc]]`: providers of OpenID Connect.

use std::{collections::BTreeSet, path::PathBuf};

use gateway_net::document::{Section, Value};
use gateway_proto::id::OrganizationId;
use url::Url;

use super::{FILE, path};

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

const ISSUER: &str = "the issuer of the discovery document: \"https://host\" or \"https://host/path\", without a query";
const WORDS: &str = "a list of words of 1 to 255 visible ASCII characters";
const GROUP: &str = "1 to 255 characters";

/// All of them; those with a mistake are left out.
pub(super) fn read(root: &mut Section<'_, '_>) -> Vec<OidcConfig> {
    let sections = root.sections("oidc");
    if sections.len() > MAX_PROVIDERS {
        root.mistake("oidc", &format!("{} providers", sections.len()), &format!("{MAX_PROVIDERS} at most"));
    }
    let (mut names, mut issuers) = (BTreeSet::new(), BTreeSet::new());
    let mut providers = Vec::with_capacity(sections.len());
    for mut section in sections {
        let name =
            section.required("name", "1 to 40 of a-z, 0-9 and -", |value| value.text().filter(|name| is_name(name)));
        if name.is_some_and(|name| !names.insert(name)) {
            section.mistake("name", name.unwrap_or_default(), "each name once");
        }
        let issuer = section.required("issuer", ISSUER, |value| value.text().filter(|text| is_issuer(text)));
        // Identities are known by issuer and subject: two providers with one issuer could not be told apart.
        if issuer.is_some_and(|issuer| !issuers.insert(issuer)) {
            section.mistake("issuer", issuer.unwrap_or_default(), "each issuer once");
        }
        providers.extend(provider(&mut section, name, issuer));
        section.finish();
    }
    providers
}

/// Reads the rest of a provider.
fn provider(section: &mut Section<'_, '_>, name: Option<&str>, issuer: Option<&str>) -> Option<OidcConfig> {
    let client_id = section.required("client_id", "1 to 255 visible ASCII characters", |value| {
        value.text().filter(|text| is_word(text)).map(str::to_owned)
    });
    let client_secret_file = section.optional("client_secret_file", FILE, path);
    let scopes = section.value("scopes", WORDS, vec!["email".to_owned(), "profile".to_owned()], words);
    let address =
        section.value("address_claim", "\"email\" or \"preferred_username\"", AddressClaim::VerifiedEmail, |value| {
            match value.text()? {
                "email" => Some(AddressClaim::VerifiedEmail),
                "preferred_username" => Some(AddressClaim::PreferredUsername),
                _ => None,
            }
        });
    let group = section.optional("required_group", GROUP, group_name);
    let claim = section.optional("groups_claim", GROUP, group_name);
    if let Some(claim) = claim.as_deref().filter(|_| !section.has("required_group")) {
        section.mistake("groups_claim", claim, "nothing without required_group");
    }
    let required_acr = section.value("required_acr", WORDS, Vec::new(), words);
    let required_amr = section.value("required_amr", WORDS, Vec::new(), words);
    let organizations = section.value(
        "organizations",
        "a list of ids of organizations, like [\"org_0198…\"]",
        BTreeSet::new(),
        |value| value.texts()?.iter().map(|text| text.parse().ok()).collect::<Option<BTreeSet<OrganizationId>>>(),
    );
    let password_for_linked = section.flag("password_for_linked", true);
    let ca_file = section.optional("ca_file", FILE, path);
    Some(OidcConfig {
        name: name?.to_owned(),
        issuer: issuer?.to_owned(),
        client_id: client_id?,
        client_secret_file,
        scopes,
        address,
        group: group.map(|group| RequiredGroup { claim: claim.unwrap_or_else(|| "groups".to_owned()), group }),
        required_acr,
        required_amr,
        organizations,
        password_for_linked,
        ca_file,
    })
}

fn is_name(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=40).contains(&text.len()) && text.bytes().all(good)
}

fn is_issuer(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let bare = url.query().is_none() && url.fragment().is_none();
        url.scheme() == "https" && url.has_host() && bare && url.username().is_empty() && url.password().is_none()
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic())
}

fn words(value: Value<'_, '_>) -> Option<Vec<String>> {
    value.texts().filter(|texts| texts.iter().all(|text| is_word(text)))
}

fn group_name(value: Value<'_, '_>) -> Option<String> {
    value.text().filter(|text| (1..=255).contains(&text.len())).map(str::to_owned)
}
