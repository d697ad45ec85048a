//! Random acts of random users, and time that passes: the platform and the reference model end in the same states after every
//! single one, and each gateway's policy says exactly what the model allows.

mod calls;
mod choice;
mod party;
mod policies;

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use gateway_control::clock::Clock;
use gateway_proto::{
    api::{gateway::EnrollmentCode, platform::CreatedEnrollmentCode},
    identity::GatewayKey,
    policy::Secret,
};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy},
    prop_oneof,
    strategy::Union,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::{Value, json};

use self::{
    calls::Ids,
    choice::{KINDS, Kind},
    party::Party,
    policies::Place,
};
use super::{
    harness::{Control, Gateway},
    model::{Caller, LARGE, Model, ORGS, Org, Outcome, Role, Rotation, Try},
};

const FAST: &str = "registration = 'open'\n[limits]\nrequests_per_second = 100000\nlogins_per_minute = 100000\n";

/// Longer than what is limited may last; longer than an offer waits, and twice of it longer than a request does. However they are
/// added up, no end is met to the minute, and between them the clock moves by some milliseconds only.
const SHORT_SECS: u64 = 11 * 60;
const LONG_SECS: u64 = 8 * 24 * 3600;

/// How often a list is looked at again until it shows what gateways have just confirmed.
const LOOKS: usize = 150;

/// Who tries what; the numbers choose among the objects that exist then.
type Step = (Org, Role, Kind, [usize; 3]);

fn step() -> impl Strategy<Value = Step> {
    let org = prop_oneof![6 => Just(0), 6 => Just(1), 2 => Just(2)];
    let role = prop_oneof![
        10 => Just(Role::Owner),
        3 => Just(Role::Admin),
        2 => Just(Role::Operator),
        1 => Just(Role::Viewer),
        1 => Just(Role::Auditor),
        2 => Just(Role::Token),
    ];
    let kind = Union::new_weighted(KINDS.iter().map(|(weight, kind)| (*weight, Just(*kind))).collect());
    (org, role, kind, [0..64usize, 0..64usize, 0..64usize])
}

struct Case<'a> {
    control: &'a Control,
    parties: Vec<Party<'a>>,
    /// The servers with their gateways, in the order of their making.
    places: Vec<Place>,
    model: Model,
    ids: Ids,
    /// The secrets that policies had, of each connection in the order of their making.
    secrets: RefCell<BTreeMap<usize, Vec<Secret>>>,
    /// The connection whose secret has just been replaced at once: until both policies have come its ends differ.
    at_once: Option<usize>,
    /// How many people there were.
    people: usize,
    /// The server whose gateway refuses the next policy that introduces a connection.
    refusing: Option<usize>,
}

impl<'a> Case<'a> {
    /// Three organizations with a server, its gateway and a channel each.
    async fn new(control: &'a Control, number: u32) -> Result<Self, String> {
        let (parties, places, people) = (Vec::new(), Vec::new(), 0);
        let (model, ids, secrets) = (Model::default(), Ids::default(), RefCell::default());
        let mut case = Self { control, parties, places, model, ids, secrets, at_once: None, people, refusing: None };
        for own in 0..ORGS {
            let party = Party::new(control, &format!("Case {number} organization {own}"), &mut case.people).await;
            if own != LARGE {
                let path = format!("/organizations/{}/tier", party.id);
                let answer = control.as_operator("PUT", &path, json!({"tier": "free"})).await;
                assert!(answer.status().is_success(), "{:?}", answer.text().await);
            }
            case.parties.push(party);
            case.act(own, Role::Owner, Try::AddServer).await?;
            case.enroll(own).await?;
            case.act(own, Role::Owner, Try::AddChannel(own)).await?;
        }
        Ok(case)
    }

    async fn step(&mut self, (own, role, kind, numbers): Step) -> Result<(), String> {
        // The third one has nobody else: each user costs two password hashes.
        let role = if own == ORGS - 1 { Role::Owner } else { role };
        self.model.pass(self.control.clock.unix_secs());
        if kind == Kind::Pass {
            let secs = if numbers[0] % 3 == 0 { LONG_SECS } else { SHORT_SECS };
            self.control.clock.advance(Duration::from_secs(secs));
            self.model.pass(self.control.clock.unix_secs());
            let before = self.entries();
            self.settle(before).await?;
        } else if kind == Kind::Refuse {
            self.refusing = self.watched(numbers[0]);
        } else if kind == Kind::Enroll {
            let bare = |n: &usize| self.model.servers[*n].lives && !self.model.servers[*n].gateway;
            let Some(server) = (0..self.places.len()).find(bare) else { return Ok(()) };
            self.enroll(server).await?;
        } else {
            let Some(what) = self.chosen(own, role, kind, numbers) else { return Ok(()) };
            self.act(own, role, what).await?;
        }
        self.compare(own).await
    }

    /// Somebody tries something.
    async fn act(&mut self, own: Org, role: Role, what: Try) -> Result<(), String> {
        let (user, person) = self.parties[own].user(role, &mut self.people).await;
        self.beat().await;
        let now = self.control.clock.unix_secs();
        self.model.pass(now);
        self.confirm().await?;
        let before = self.entries();
        let (method, path, body) = self.call(what, own, now);
        let expected = self.model.attempt(Caller { org: own, role, person }, what, now);
        let answer = user.send(method, &path, body).await;
        let status = answer.status();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap_or_default()).unwrap_or_default();
        let agrees = match expected {
            Outcome::Done => status.is_success(),
            Outcome::Refused(code) => answer["code"] == code,
        };
        if !agrees {
            return Err(format!("{own} {role:?} {what:?} at {path}: {status} {answer}, the model says {expected:?}"));
        }
        if expected == Outcome::Done {
            self.learn(what, own, &answer).await?;
        }
        self.settle(before).await
    }

    /// What somebody did has made.
    async fn learn(&mut self, what: Try, own: Org, answer: &Value) -> Result<(), String> {
        self.ids.learn(answer);
        if what == Try::AddServer {
            self.places.push(Place::default());
        }
        if let Try::RemoveServer(server) = what {
            self.refusing = self.refusing.filter(|refusing| *refusing != server);
            self.places[server].removed().await?;
        }
        if let Try::Rotate { connection, at_once } = what {
            let shown = &answer["secret_rotation"];
            let shown = shown["new_from"].as_u64().zip(shown["old_until"].as_u64());
            self.model.rotation_began(connection, shown.map(|(turns_at, until)| Rotation { turns_at, until }))?;
            self.at_once = at_once.then_some(connection);
        }
        if let Try::RemoveUser(role) = what {
            self.parties[own].removed(role).await?;
        }
        Ok(())
    }

    /// A gateway comes to a server, by the hand of an owner.
    async fn enroll(&mut self, server: usize) -> Result<(), String> {
        self.confirm().await?;
        let before = self.entries();
        let own = self.model.servers[server].owner;
        let (owner, _) = self.parties[own].user(Role::Owner, &mut self.people).await;
        let path = format!("/servers/{}/enrollment-codes", self.ids.servers[server]);
        let created: CreatedEnrollmentCode = owner.post(&path, json!({})).await;
        let code: EnrollmentCode = created.code.0.parse().unwrap();
        let gateway = Gateway::of(GatewayKey::from_seed(&gateway_net::random()));
        gateway.enroll(self.control, &code.secret).await.map_err(|problem| format!("enrolment: {}", problem.detail))?;
        self.model.enroll(server);
        self.places[server] = Place::watched(gateway.key.public(), gateway.watch_for_deltas(self.control, None).await);
        self.settle(before).await
    }

    /// What one organization is shown, against the model.
    async fn compare(&mut self, own: Org) -> Result<(), String> {
        let (owner, _) = self.parties[own].user(Role::Owner, &mut self.people).await;
        self.beat().await;
        let mut looks = 0;
        loop {
            self.model.pass(self.control.clock.unix_secs());
            let (shown, expected) = (self.ids.shown_to(&owner).await?, self.model.shown(own));
            if shown.iter().map(|(row, status)| (*row, status.as_str())).eq(expected.iter().map(|(row, s)| (*row, *s)))
            {
                return Ok(());
            }
            looks += 1;
            if looks > LOOKS {
                return Err(format!("{own} is shown {shown:#?}, the model says {expected:#?}"));
            }
            // What gateways confirmed is written beside: a connection may become active a moment later.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// `PROPTEST_CASES` makes it longer.
#[test]
fn random_acts_of_random_users_end_as_in_the_reference_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Its clock stands: however slow the machine is, no end comes between two looks of one step.
    let start = Control::start_at(tempfile::tempdir().unwrap(), FAST, Clock::standing());
    let control = runtime.block_on(start);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let config = Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let number = std::cell::Cell::new(0u32);
    let outcome = TestRunner::new(config).run(&vec(step(), 30..90), |steps| {
        // Names of their own for every case.
        number.set(number.get() + 1);
        let run = async {
            let mut case = Case::new(&control, number.get()).await?;
            for step in steps {
                case.step(step).await?;
            }
            for own in 0..ORGS {
                case.compare(own).await?;
            }
            Ok::<(), String>(())
        };
        runtime.block_on(run).map_err(TestCaseError::fail)
    });
    drop(runtime);
    outcome.unwrap();
}
