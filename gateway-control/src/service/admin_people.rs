//! The people behind an admin connection: a user of the side that uses it says which account or address is his, for a while.
//!
//! The gateway of that side knows a client by its account or its address and no more; the owner's gateway learns from its own
//! signed policy which person that is, writes the name into its log, and lets nobody else through where the offer says so.
//! Only a person who is signed in can do it, so the role that is needed is looked at by the platform and not by the partner.

use std::net::IpAddr;

use gateway_proto::{
    admin::opening::{ActingUser, KnownBy},
    api::platform::{Connection, EnterAdmin},
    id::{ConnectionId, OrganizationId, UserId},
    peering::{ConnectionStatus, Side},
    policy::{AdminPerson, MAX_PEOPLE},
};

use super::{Actor, Service, ServiceError, ServiceResult, Work, bounds, permission::Act, validate, work::changes};
use crate::storage::{AdminPersonRow, ConnectionFilter, ConnectionRow, Slice};

impl Service {
    /// Names the user as the person behind an account or address of the own side.
    pub async fn enter_admin(&self, actor: &Actor, id: ConnectionId, body: EnterAdmin) -> ServiceResult<Connection> {
        let (min, default, max) = bounds::ENTERED_SECS;
        let valid = validate::range("valid_secs", body.valid_secs.unwrap_or(default), min, max)?;
        let acting = acting(&body)?;
        let entered = |people: &mut Vec<AdminPersonRow>, now: u64| {
            people.retain(|row| row.entry.acting != acting && now < row.entry.until);
            if people.len() >= MAX_PEOPLE {
                return Err(ServiceError::Conflict(format!("{MAX_PEOPLE} people are at this connection already")));
            }
            let entry = AdminPerson { person: actor.user.email.clone(), acting: acting.clone(), until: now + valid };
            people.push(AdminPersonRow { user: actor.user.id, entry });
            Ok(())
        };
        self.change_people(actor, id, "admin.enter", entered).await
    }

    /// Takes the user's name from an admin connection.
    pub async fn leave_admin(&self, actor: &Actor, id: ConnectionId) -> ServiceResult<Connection> {
        let left = |people: &mut Vec<AdminPersonRow>, _: u64| {
            people.retain(|row| row.user != actor.user.id);
            Ok(())
        };
        self.change_people(actor, id, "admin.leave", left).await
    }

    async fn change_people(
        &self,
        actor: &Actor,
        id: ConnectionId,
        act: &str,
        change: impl FnOnce(&mut Vec<AdminPersonRow>, u64) -> ServiceResult<()>,
    ) -> ServiceResult<Connection> {
        actor.may(Act::EnterAdmin)?;
        actor.in_person()?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (mut row, side) = self.connection_to_change(actor, &mut work, id).await?;
        let is_open =
            matches!(row.status, ConnectionStatus::Ready | ConnectionStatus::Active | ConnectionStatus::Paused);
        let Some(admin) = row.admin.as_mut().filter(|_| is_open && side != Side::Owner) else {
            return Err(ServiceError::Blocked(
                "people of the side that uses an accepted admin connection name themselves there".to_owned(),
            ));
        };
        let before = admin.people.clone();
        change(&mut admin.people, work.now)?;
        if admin.people == before {
            return self.unchanged_connection(work, own, row).await;
        }
        if act == "admin.leave" {
            self.disturbs(actor, row.agreement);
            work.cuts();
        } else {
            self.may_disturb(actor, row.agreement)?;
        }
        let what = comings_and_goings(&before, &admin.people);
        work.put_people(&row).await?;
        work.audit(&[row.sender.organization, row.listener.organization], act, id, what).await?;
        self.changed_connection(work, own, row).await
    }
}

impl Work {
    /// The name of a user who is removed, or may not enter any more, is taken from every admin connection; both sides find it in
    /// their logs as if the user had left.
    pub(super) async fn forget_person(&mut self, organization: OrganizationId, user: UserId) -> ServiceResult<()> {
        let filter = ConnectionFilter { admin: Some(true), ..ConnectionFilter::default() };
        let all = Slice { after: String::new(), limit: u32::MAX };
        // As it is written down: what time has ended meanwhile has the name as well.
        for mut row in self.connections(organization, &filter, &all, 0).await? {
            let Some(admin) = &mut row.admin else { continue };
            let before = admin.people.clone();
            admin.people.retain(|person| person.user != user);
            if admin.people.len() != before.len() {
                let what = comings_and_goings(&before, &admin.people);
                self.cuts();
                self.put_people(&row).await?;
                self.audit(&[row.sender.organization, row.listener.organization], "admin.leave", row.id, what).await?;
            }
        }
        Ok(())
    }

    /// Only the owner's gateway is told.
    async fn put_people(&mut self, row: &ConnectionRow) -> ServiceResult<()> {
        self.update_connection(row).await?;
        if let Some(server) = row.listener.server {
            self.touch(server);
        }
        Ok(())
    }
}

/// Who is behind which account or address, before and after, as far as it differs. By what the other side's gateway is told of
/// them, not by their names: a log names nobody of another organization.
fn comings_and_goings(before: &[AdminPersonRow], after: &[AdminPersonRow]) -> String {
    let only = |of: &[AdminPersonRow], not: &[AdminPersonRow]| {
        let rows = of.iter().filter(|row| !not.contains(row)).map(|row| &row.entry);
        let told: Vec<_> = rows.map(|entry| format!("behind {} until {}", entry.acting.name, entry.until)).collect();
        if told.is_empty() { "none".to_owned() } else { told.join(", ") }
    };
    changes(&[("person", &only(before, after), &only(after, before))])
}

/// What the gateway of the side that uses it will call the client.
fn acting(body: &EnterAdmin) -> ServiceResult<ActingUser> {
    let invalid = |why: &str| Err(ServiceError::Invalid(why.to_owned()));
    match (&body.account, &body.address) {
        (Some(account), None) => {
            let acting = ActingUser::new(account, KnownBy::LocalAccount);
            if acting.name != *account {
                return invalid("account is 1-64 letters, digits and . _ - @ : [ ] \\ +");
            }
            Ok(acting)
        }
        (None, Some(address)) => match address.parse::<IpAddr>() {
            Ok(address) => Ok(ActingUser::new(&address.to_canonical().to_string(), KnownBy::Address)),
            Err(_) => invalid("address is an IP address"),
        },
        (Some(_), Some(_)) | (None, None) => invalid("name either account or address"),
    }
}
