//! The people of one organization: made when one is needed first, and signed in again when time has ended their session.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{
    harness::{Control, Org, PASSWORD},
    model::{Role, SCOPES},
};

/// Sessions are renewed after so long, before their 12 hours are over; tokens before their 90 days.
const SESSION_SECS: u64 = 11 * 3600;
const TOKEN_SECS: u64 = 60 * 24 * 3600;

struct Person<'a> {
    user: Org<'a>,
    number: usize,
    /// Unix seconds.
    since: u64,
}

pub(super) struct Party<'a> {
    control: &'a Control,
    pub(super) id: String,
    people: BTreeMap<Role, Person<'a>>,
}

impl<'a> Party<'a> {
    /// An organization with its owner; `people` counts everybody.
    pub(super) async fn new(control: &'a Control, name: &str, people: &mut usize) -> Self {
        let owner = control.organization(name).await;
        let mut party = Self { control, id: owner.id.clone(), people: BTreeMap::new() };
        party.enter(Role::Owner, owner, people);
        party
    }

    /// Whoever has a role, who can ask now, and the number of the person behind.
    pub(super) async fn user(&mut self, role: Role, people: &mut usize) -> (Org<'a>, usize) {
        if role == Role::Token { self.token(people).await } else { self.person(role, people).await }
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.people.contains_key(&role)
    }

    /// The path of the user with this role.
    pub(super) fn path_of(&self, role: Role) -> String {
        self.people.get(&role).map_or_else(String::new, |person| format!("/users/{}", person.user.session.user.id))
    }

    /// A user is gone: signed out at once, and what asked in its name with it.
    pub(super) async fn removed(&mut self, role: Role) -> Result<(), String> {
        let token = if role == Role::Admin { self.people.remove(&Role::Token) } else { None };
        for person in self.people.remove(&role).into_iter().chain(token) {
            let status = person.user.send("GET", "/me", None).await.status();
            if status != 401 {
                return Err(format!("{role:?} was removed, and is answered with {status}"));
            }
        }
        Ok(())
    }

    async fn person(&mut self, role: Role, people: &mut usize) -> (Org<'a>, usize) {
        if let Some(known) = self.known(role).await {
            return known;
        }
        let (owner, _) = self.known(Role::Owner).await.expect("the owner stays");
        let word = word(role);
        let user = owner.person(word, &format!("{word} {people}")).await.detached(self.control);
        self.enter(role, user, people)
    }

    async fn token(&mut self, people: &mut usize) -> (Org<'a>, usize) {
        let (mut user, number) = self.person(Role::Admin, people).await;
        let now = self.control.clock.unix_secs();
        if let Some(known) = self.people.get(&Role::Token)
            && now < known.since + TOKEN_SECS
        {
            return (known.user.detached(self.control), known.number);
        }
        let made: Value = user.post("/api-tokens", json!({"name": "automation", "scopes": SCOPES})).await;
        user.token = made["token"].as_str().expect("a token").to_owned();
        let person = Person { user: user.detached(self.control), number, since: now };
        self.people.insert(Role::Token, person);
        (user, number)
    }

    /// Whoever has the role already, signed in.
    async fn known(&mut self, role: Role) -> Option<(Org<'a>, usize)> {
        let now = self.control.clock.unix_secs();
        let person = self.people.get_mut(&role)?;
        if now >= person.since + SESSION_SECS {
            person.user = match role {
                Role::Owner => person.user.sign_in().await.detached(self.control),
                Role::Admin | Role::Operator | Role::Viewer | Role::Auditor | Role::Token => {
                    self.control.sign_in(&person.user.session.user.email, PASSWORD).await
                }
            };
            person.since = now;
        }
        Some((person.user.detached(self.control), person.number))
    }

    fn enter(&mut self, role: Role, user: Org<'a>, people: &mut usize) -> (Org<'a>, usize) {
        *people += 1;
        let (again, since) = (user.detached(self.control), self.control.clock.unix_secs());
        self.people.insert(role, Person { user, number: *people, since });
        (again, *people)
    }
}

/// The role in the words of the API; a token is its admin's.
fn word(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin | Role::Token => "admin",
        Role::Operator => "operator",
        Role::Viewer => "viewer",
        Role::Auditor => "auditor",
    }
}
