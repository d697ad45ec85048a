//! Whom a site means. Organizations rename themselves, and the name that one gave up may be another's tomorrow: what a name meant when
//! the file was first applied is remembered in a file beside it, and is what the name means from then on.
//!
//! A name means, in this order: the own organization (`self`), what is remembered, the own name, the one that is called so now among
//! those with whom there is an agreement or an open request, or in the directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use gateway_net::{
    document::{Document, Mistake, Section},
    secret_file,
};
use gateway_proto::{api::values::SELF, id::OrganizationId, names::fold};
use serde::Serialize;

use super::{found::Found, site::unusable};
use crate::error::CtlError;

/// What the file begins with.
const HEAD: &str = "\
# Whom the names in the site beside this file mean, written by `gateway-ctl apply`. Keep the two together, in version control too.
# A name without an entry is looked up, and remembered from then on: remove an entry to have its name mean another organization.

";

/// What names mean.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    path: PathBuf,
    /// By whose name it is, and the name as the platform compares it.
    partners: BTreeMap<(OrganizationId, String), Partner>,
}

/// What a name means to one organization: a file may be applied at several, and at several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Partner {
    /// To whom.
    of: OrganizationId,
    name: String,
    id: OrganizationId,
}

/// The whole file.
#[derive(Serialize)]
struct Content<'a> {
    partner: Vec<&'a Partner>,
}

/// Whom a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// This one.
    One(OrganizationId),
    /// Nobody who can be found.
    Nobody,
    /// More than one that is called so.
    Several,
}

impl Remembered {
    /// What is remembered beside this site.
    pub(super) fn load(site: &Path) -> Result<Self, CtlError> {
        let path = site.with_extension("partners.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                String::new()
            }
            Err(source) => return Err(CtlError::File { path, source }),
        };
        let partners = parse(&text).map_err(|mistakes| unusable(&path, &mistakes))?;
        let partners = partners.into_iter().map(|partner| ((partner.of, fold(&partner.name)), partner)).collect();
        Ok(Self { path, partners })
    }

    fn id_of(&self, own: OrganizationId, name: &str) -> Option<OrganizationId> {
        self.partners.get(&(own, fold(name))).map(|partner| partner.id)
    }

    /// Writes down what these names mean, unless it is known.
    pub(super) fn learn(&mut self, own: OrganizationId, meant: &[(String, OrganizationId)]) -> Result<(), CtlError> {
        let known = self.partners.len();
        for (name, id) in meant {
            let key = fold(name);
            let is_name = key != SELF && name.parse::<OrganizationId>().is_err();
            if is_name && *id != own {
                let partner = || Partner { of: own, name: name.clone(), id: *id };
                self.partners.entry((own, key)).or_insert_with(partner);
            }
        }
        if self.partners.len() == known {
            return Ok(());
        }
        let text = toml::to_string(&Content { partner: self.partners.values().collect() });
        let text = text.map_err(|_| CtlError::No("the names of partners cannot be written as TOML".to_owned()))?;
        secret_file::write_public(&self.path, format!("{HEAD}{text}").as_bytes()).map_err(CtlError::Partners)
    }
}

fn parse(text: &str) -> Result<Vec<Partner>, Vec<Mistake>> {
    let document = Document::parse(text);
    let mut root = document.root();
    let read = |mut section: Section<'_, '_>| {
        let of = section.required("of", "the id of the own organization", |value| value.text()?.parse().ok());
        let name = section.required("name", "a name", |value| value.text().map(str::to_owned));
        let id = section.required("id", "the id of an organization", |value| value.text()?.parse().ok());
        section.finish();
        Some(Partner { of: of?, name: name?, id: id? })
    };
    let partners = root.sections("partner").into_iter().filter_map(read).collect();
    root.finish();
    let mistakes = document.into_mistakes();
    if mistakes.is_empty() { Ok(partners) } else { Err(mistakes) }
}

/// Whom the file means by this.
pub(super) fn meant(wanted: &str, found: &Found) -> Meant {
    if let Ok(id) = wanted.parse() {
        return Meant::One(id);
    }
    let (own, wanted_key) = (&found.own, fold(wanted));
    if wanted_key == SELF {
        return Meant::One(own.id);
    }
    if let Some(id) = found.remembered.id_of(own.id, wanted) {
        return Meant::One(id);
    }
    if fold(&own.name) == wanted_key {
        return Meant::One(own.id);
    }
    let mut ids = called(found, |name| name == wanted);
    if ids.is_empty() {
        ids = called(found, |name| fold(name) == wanted_key);
    }
    match ids.len() {
        0 => Meant::Nobody,
        1 => ids.first().map_or(Meant::Nobody, |id| Meant::One(*id)),
        _ => Meant::Several,
    }
}

fn called(found: &Found, is: impl Fn(&str) -> bool) -> BTreeSet<OrganizationId> {
    found.others().filter(|&(_, name)| is(name)).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization(n: u8) -> OrganizationId {
        OrganizationId::new(1, [n; 10])
    }

    #[test]
    fn what_a_name_meant_is_remembered_beside_the_site_and_for_each_organization_on_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let site = directory.path().join("site.toml");
        let mut remembered = Remembered::load(&site).unwrap();
        let odd = "Dr. \"O'Neill\" \\ Söhne".to_owned();
        let names = ["Clinic B".to_owned(), odd.clone(), organization(7).to_string(), "Self".to_owned()];
        let meant: Vec<_> = names.into_iter().zip([2, 3, 7, 8].map(organization)).collect();
        remembered.learn(organization(1), &meant).unwrap();
        let again = Remembered::load(&site).unwrap();
        assert_eq!(again.partners, remembered.partners);
        assert_eq!(again.partners.len(), 2, "an id says what it means itself");
        assert_eq!(again.id_of(organization(1), " CLINIC  b"), Some(organization(2)));
        assert_eq!(again.id_of(organization(1), &odd), Some(organization(3)));
        assert_eq!(again.id_of(organization(9), "Clinic B"), None);
        // What is known stays, and a file that would stay as it is is not written.
        fs::remove_file(directory.path().join("site.partners.toml")).unwrap();
        remembered.learn(organization(1), &[("clinic B".to_owned(), organization(5))]).unwrap();
        assert_eq!(remembered.id_of(organization(1), "Clinic B"), Some(organization(2)));
        assert!(Remembered::load(&site).unwrap().partners.is_empty());
    }

    #[test]
    fn a_file_that_was_damaged_is_told_with_its_lines_and_not_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("site.partners.toml"), "[[partner]]\nof = 'org_1'\nname = 'B'\n").unwrap();
        let error = Remembered::load(&directory.path().join("site.toml")).unwrap_err().to_string();
        assert!(error.contains("line 2: partner.of") && error.contains("line 1: partner.id is missing"), "{error}");
    }
}
