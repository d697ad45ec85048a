//! Random acts on tenants, devices and links: the platform and a reference model show the same after every single one.

mod model;

use std::collections::BTreeSet;

use gateway_proto::api::platform::{Device, Link, LinkableDevice, Organization};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy},
    prop_oneof,
    test_runner::{Config, TestCaseError, TestRunner},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use self::model::{LINKABLE, Model, Outcome, Try};
use super::{
    harness::{Control, Org},
    tenants::sub,
};

const FAST: &str = "registration = 'open'\n[limits]\nrequests_per_second = 100000\nlogins_per_minute = 100000\n";
/// Organizations of a case at most: each costs a password hash.
const MOST: usize = 6;

fn step() -> impl Strategy<Value = (usize, Try)> {
    let number = 0..64usize;
    let pair = (0..64usize, 0..64usize);
    let linkable = 0..LINKABLE.len();
    let what = prop_oneof![
        4 => number.clone().prop_map(Try::Peer),
        2 => number.clone().prop_map(Try::Suspend),
        2 => number.clone().prop_map(Try::Lift),
        1 => number.clone().prop_map(Try::End),
        4 => linkable.clone().prop_map(Try::AddDevice),
        2 => (number.clone(), linkable).prop_map(|(device, linkable)| Try::Open(device, linkable)),
        1 => number.clone().prop_map(Try::RemoveDevice),
        9 => pair.prop_map(|(source, target)| Try::Link(source, target)),
        1 => number.clone().prop_map(Try::Unlink),
        2 => Just(Try::AddOrganization),
        1 => number.prop_map(Try::RemoveOrganization),
        1 => Just(Try::Leave),
    ];
    (0..64usize, what)
}

/// The ids of what the model counts, in the order of their making.
#[derive(Default)]
struct Ids {
    agreements: Vec<String>,
    devices: Vec<String>,
    links: Vec<String>,
}

struct Case<'a> {
    control: &'a Control,
    name: String,
    owners: Vec<Org<'a>>,
    model: Model,
    ids: Ids,
}

impl<'a> Case<'a> {
    async fn new(control: &'a Control, name: String) -> Self {
        let mut case = Self { control, name, owners: Vec::new(), model: Model::default(), ids: Ids::default() };
        for tenant in 0..2 {
            case.owners.push(control.organization(&format!("{} tenant {tenant}", case.name)).await);
            case.model.organizations.push(model::Organization { tenant, itself: true, lives: true });
        }
        case
    }

    /// The attempt with its objects chosen; none: there is nothing to try it on.
    fn chosen(&self, own: usize, what: Try) -> Option<Try> {
        let model = &self.model;
        let among = |n: usize, all: usize| n.checked_rem(all);
        Some(match what {
            Try::Peer(n) => Try::Peer(among(n, self.owners.len()).filter(|other| *other != own)?),
            Try::Suspend(n) => Try::Suspend(among(n, model.agreements.len())?),
            Try::Lift(n) => Try::Lift(among(n, model.agreements.len())?),
            Try::End(n) => Try::End(among(n, model.agreements.len())?),
            Try::AddDevice(_) => what,
            Try::Open(n, linkable) => Try::Open(among(n, model.devices.len())?, linkable),
            Try::RemoveDevice(n) => Try::RemoveDevice(among(n, model.devices.len())?),
            Try::Link(source, target) => {
                // Mostly from an own device, or hardly any link would come about.
                let (own, all) = (model.devices_of(own), model.devices.len());
                let source = match among(source, own.len()) {
                    Some(n) if source % 5 > 0 => own[n],
                    _ => among(source, all)?,
                };
                Try::Link(source, among(target, all)?)
            }
            Try::Unlink(n) => Try::Unlink(among(n, model.links.len())?),
            Try::AddOrganization => Some(what).filter(|_| self.owners.len() < MOST)?,
            Try::RemoveOrganization(n) => Try::RemoveOrganization(among(n, self.owners.len())?),
            Try::Leave => Some(what).filter(|_| !model.organizations[own].itself)?,
        })
    }

    fn call(&self, what: Try) -> (&'static str, String, Option<Value>) {
        let ids = &self.ids;
        let agreement = |n: usize, verb: &str| ("POST", format!("/agreements/{}/{verb}", ids.agreements[n]), None);
        match what {
            Try::Peer(other) => {
                ("POST", "/peering-requests".to_owned(), Some(json!({"organization_id": self.owners[other].id})))
            }
            Try::Suspend(n) => agreement(n, "suspend"),
            Try::Lift(n) => agreement(n, "resume"),
            Try::End(n) => agreement(n, "end"),
            Try::AddDevice(linkable) => {
                let name = format!("device {}", ids.devices.len());
                let body = json!({"kind": "application", "name": name, "linkable_by": LINKABLE[linkable]});
                ("POST", "/devices".to_owned(), Some(body))
            }
            Try::Open(n, linkable) => {
                ("PATCH", format!("/devices/{}", ids.devices[n]), Some(json!({"linkable_by": LINKABLE[linkable]})))
            }
            Try::RemoveDevice(n) => ("DELETE", format!("/devices/{}", ids.devices[n]), None),
            Try::Link(source, target) => {
                let body = json!({"source_device_id": ids.devices[source], "target_device_id": ids.devices[target]});
                ("POST", "/links".to_owned(), Some(body))
            }
            Try::Unlink(n) => ("DELETE", format!("/links/{}", ids.links[n]), None),
            Try::AddOrganization => {
                let name = format!("{} organization {}", self.name, self.owners.len());
                let body = json!({"name": name, "owner_email": "x@y.example", "owner_name": "O"});
                ("POST", "/tenant/organizations".to_owned(), Some(body))
            }
            Try::RemoveOrganization(n) => ("DELETE", format!("/tenant/organizations/{}", self.owners[n].id), None),
            Try::Leave => ("DELETE", "/organization".to_owned(), None),
        }
    }

    async fn step(&mut self, (own, what): (usize, Try)) -> Result<(), String> {
        let living: Vec<_> = (0..self.owners.len()).filter(|n| self.model.organizations[*n].lives).collect();
        let own = living[own % living.len()];
        let Some(what) = self.chosen(own, what) else { return Ok(()) };
        if what == Try::AddOrganization && self.model.organizations[own].itself {
            // With its owner, who accepts the invitation.
            let name = format!("{}-organization-{}", self.name.replace(' ', "-"), self.owners.len());
            let made = sub(self.control, &self.owners[own], &name).await;
            let body = json!({"discoverable": true});
            let answer = made.send("PATCH", "/organization", Some(body)).await;
            assert_eq!(answer.status(), StatusCode::OK);
            self.owners.push(made);
            self.model.attempt(own, what);
            return self.compare().await;
        }
        let expected = self.model.attempt(own, what);
        let (method, path, body) = self.call(what);
        let answer = self.owners[own].send(method, &path, body).await;
        let status = answer.status();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        let agrees = match expected {
            Outcome::Done => status.is_success(),
            Outcome::Refused(code) => answer["code"] == code,
        };
        if !agrees {
            return Err(format!("{own} {what:?} at {path}: {status} {answer}, the model says {expected:?}"));
        }
        if expected == Outcome::Done {
            self.learn(what, &answer).await;
        }
        self.compare().await
    }

    async fn learn(&mut self, what: Try, answer: &Value) {
        let id = || answer["id"].as_str().unwrap().to_owned();
        match what {
            Try::Peer(other) => {
                let path = format!("/peering-requests/{}/accept", id());
                let accepted: Value = self.owners[other].post(&path, json!({})).await;
                self.ids.agreements.push(accepted["agreement_id"].as_str().unwrap().to_owned());
            }
            Try::AddDevice(_) => self.ids.devices.push(id()),
            Try::Link(..) => self.ids.links.push(id()),
            Try::Suspend(_)
            | Try::Lift(_)
            | Try::End(_)
            | Try::Open(..)
            | Try::RemoveDevice(_)
            | Try::Unlink(_)
            | Try::AddOrganization
            | Try::RemoveOrganization(_)
            | Try::Leave => {}
        }
    }

    /// What each living organization is shown, against the model; whoever is removed is nobody any more.
    async fn compare(&self) -> Result<(), String> {
        for (own, org) in self.owners.iter().enumerate() {
            if !self.model.organizations[own].lives {
                let status = org.send("GET", "/me", None).await.status();
                if status != StatusCode::UNAUTHORIZED {
                    return Err(format!("the removed organization {own} is answered with {status}"));
                }
                continue;
            }
            let devices: Vec<Device> = org.list("/devices?limit=200").await;
            let links: Vec<Link> = org.list("/links?limit=200").await;
            let linkable: Vec<LinkableDevice> = org.list("/linkable-devices?limit=200").await;
            let known = &self.ids.devices;
            same("devices", own, devices.iter().map(|row| row.id.to_string()), known, self.model.devices_of(own))?;
            same("links", own, links.iter().map(|row| row.id.to_string()), &self.ids.links, self.model.links_of(own))?;
            let shown = linkable.iter().map(|row| row.id.to_string());
            same("linkable devices", own, shown, known, self.model.linkable_for(own))?;
            if self.model.organizations[own].itself {
                let kin: Vec<Organization> = org.list("/tenant/organizations?limit=200").await;
                let ids: Vec<_> = self.owners.iter().map(|org| org.id.clone()).collect();
                let expected = self.model.kin(self.model.organizations[own].tenant);
                same("organizations", own, kin.iter().map(|row| row.id.to_string()), &ids, expected)?;
            }
        }
        Ok(())
    }
}

/// What is shown, but for what the case did not make (an organization is a device, too), is what the model says.
fn same(
    what: &str,
    own: usize,
    shown: impl Iterator<Item = String>,
    ids: &[String],
    expected: Vec<usize>,
) -> Result<(), String> {
    let shown: BTreeSet<_> = shown.filter_map(|id| ids.iter().position(|known| *known == id)).collect();
    let expected: BTreeSet<_> = expected.into_iter().collect();
    if shown == expected { Ok(()) } else { Err(format!("{what} of {own}: {shown:?}, the model says {expected:?}")) }
}

/// `PROPTEST_CASES` makes it longer.
#[test]
fn random_acts_on_tenants_devices_and_links_end_as_in_the_reference_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let control = runtime.block_on(Control::start_with(FAST));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let config = Config { cases, max_shrink_iters: 30, failure_persistence: None, ..Config::default() };
    let number = std::cell::Cell::new(0u8);
    let outcome = TestRunner::new(config).run(&vec(step(), 30..80), |steps| {
        number.set(number.get().wrapping_add(1));
        let name = format!("Case {}", number.get());
        let run = async {
            let mut case = Case::new(&control, name).await;
            for step in steps {
                case.step(step).await?;
            }
            Ok::<(), String>(())
        };
        runtime.block_on(run).map_err(TestCaseError::fail)
    });
    drop(runtime);
    outcome.unwrap();
}
