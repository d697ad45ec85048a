//! What a step is about: mostly something that is there and may be done, now and then anything.

use super::{
    super::model::{Level, Org, Role, Try},
    Case,
};

/// What a step does, before its objects are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Time passes.
    Pass,
    /// A gateway is going to refuse what its next policy introduces.
    Refuse,
    /// A server that has none gets a gateway.
    Enroll,
    RequestPeering,
    AcceptPeering,
    DeclinePeering,
    WithdrawPeering,
    Suspend,
    Lift,
    End,
    Grant,
    Approve,
    Deny,
    Withdraw,
    Revoke,
    Surrender,
    OfferAdmin,
    ApproveAdmin,
    AcceptAdmin,
    DeclineAdmin,
    Activate,
    Pause,
    Resume,
    Retry,
    Terminate,
    Rotate,
    Share,
    OpenShare,
    EndShare,
    DemandTwoPersons,
    AddServer,
    RemoveServer,
    AddChannel,
    RemoveChannel,
    RemoveUser,
}

/// All of them, and how often each is done.
pub(super) const KINDS: &[(u32, Kind)] = &[
    (4, Kind::Pass),
    (2, Kind::Refuse),
    (4, Kind::Enroll),
    (6, Kind::RequestPeering),
    (8, Kind::AcceptPeering),
    (1, Kind::DeclinePeering),
    (1, Kind::WithdrawPeering),
    (2, Kind::Suspend),
    (6, Kind::Lift),
    (1, Kind::End),
    (11, Kind::Grant),
    (12, Kind::Approve),
    (1, Kind::Deny),
    (1, Kind::Withdraw),
    (2, Kind::Revoke),
    (2, Kind::Surrender),
    (7, Kind::OfferAdmin),
    (4, Kind::ApproveAdmin),
    (8, Kind::AcceptAdmin),
    (1, Kind::DeclineAdmin),
    (6, Kind::Activate),
    (6, Kind::Pause),
    (6, Kind::Resume),
    (4, Kind::Retry),
    (2, Kind::Terminate),
    (8, Kind::Rotate),
    (5, Kind::Share),
    (4, Kind::OpenShare),
    (2, Kind::EndShare),
    (3, Kind::DemandTwoPersons),
    (4, Kind::AddServer),
    (2, Kind::RemoveServer),
    (4, Kind::AddChannel),
    (2, Kind::RemoveChannel),
    (1, Kind::RemoveUser),
];

/// Servers and channels of a case at most: each server has a gateway that watches.
const MOST: usize = 10;

/// One of the numbers that fit; now and then, and where none does, one of all.
fn pick(n: usize, all: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let fitting: Vec<_> = (0..all).filter(|n| fits(*n)).collect();
    match (n % 7, fitting.len()) {
        (0, _) | (_, 0) => n.checked_rem(all),
        (_, number) => Some(fitting[n % number]),
    }
}

impl Case<'_> {
    /// The attempt with its objects; none: there is nothing to try it on.
    pub(super) fn chosen(&self, own: Org, role: Role, kind: Kind, [a, b, c]: [usize; 3]) -> Option<Try> {
        let model = &self.model;
        let request = || pick(a, model.requests.len(), |n| model.requests[n].status == "pending");
        let agreement = || {
            let fits = |n: usize| !model.agreements[n].ended && model.agreements[n].sides.contains(&own);
            pick(a, model.agreements.len(), fits)
        };
        let grant = |status: &[&str]| pick(a, model.grants.len(), |n| status.contains(&model.grants[n].status));
        let connection = |status: &[&str]| {
            let fits = |n: usize| model.connections[n].has(own) && status.contains(&model.connections[n].status);
            pick(a, model.connections.len(), fits)
        };
        let server = |n: usize| pick(n, model.servers.len(), |server| model.has_server(own, server));
        Some(match kind {
            Kind::Pass | Kind::Refuse | Kind::Enroll => return None,
            Kind::RequestPeering => Try::RequestPeering(match a % 8 {
                0 | 1 => own,
                2 => (own + 2) % 3,
                _ => (own + 1) % 2,
            }),
            Kind::AcceptPeering => Try::AcceptPeering(request()?),
            Kind::DeclinePeering => Try::DeclinePeering(request()?),
            Kind::WithdrawPeering => Try::WithdrawPeering(request()?),
            Kind::Suspend => Try::Suspend(agreement()?),
            Kind::Lift => Try::Lift(agreement()?),
            Kind::End => Try::End(agreement()?),
            Kind::Grant => self.chosen_grant(own, agreement()?, b, c)?,
            Kind::Approve => {
                let grant = grant(&["pending", "requested"])?;
                let sender = if model.grants[grant].peer == own { self.sender(own, b) } else { None };
                Try::Approve { grant, sender, auto: c % 2 == 0 }
            }
            Kind::Deny => Try::Deny(grant(&["pending", "requested"])?),
            Kind::Withdraw => Try::Withdraw(grant(&["pending", "requested"])?),
            Kind::Revoke => Try::Revoke(grant(&["active"])?),
            Kind::Surrender => Try::Surrender(grant(&["active"])?),
            Kind::OfferAdmin => {
                let agreement = agreement()?;
                let within = model.agreements[agreement].sides == [own, own];
                let user = if within { self.sender(own, c) } else { None };
                let (writes, boxed) = (b % 3 == 0, c % 3 == 0);
                Try::OfferAdmin { agreement, server: server(b)?, user, writes, boxed }
            }
            Kind::ApproveAdmin => Try::ApproveAdmin(connection(&["provisioning"])?),
            Kind::AcceptAdmin => Try::AcceptAdmin {
                connection: connection(&["offered"])?,
                server: self.sender(own, b),
                auto: c % 2 == 0,
            },
            Kind::DeclineAdmin => Try::DeclineAdmin(connection(&["offered"])?),
            Kind::Activate => Try::Activate(connection(&["ready"])?),
            Kind::Pause => Try::Pause(connection(&["active", "paused"])?),
            Kind::Resume => Try::Resume(connection(&["paused"])?),
            Kind::Retry => Try::Retry(connection(&["failed"])?),
            Kind::Terminate => Try::Terminate(connection(&["ready", "active", "paused", "failed", "provisioning"])?),
            Kind::Rotate => {
                Try::Rotate { connection: connection(&["ready", "active", "paused"])?, at_once: b % 3 == 0 }
            }
            Kind::Share => {
                let level = [Level::Operator, Level::Viewer, Level::Viewer, Level::Metrics][c % 4];
                Try::Share { agreement: agreement()?, server: server(b)?, level, boxed: c % 3 == 0 }
            }
            Kind::OpenShare => {
                let fits = |n: usize| model.shares[n].open && model.shares[n].peer == own;
                Try::OpenShare { share: pick(a, model.shares.len(), fits)?, server: self.sender(own, b) }
            }
            Kind::EndShare => Try::EndShare(pick(a, model.shares.len(), |n| model.shares[n].open)?),
            Kind::DemandTwoPersons => Try::DemandTwoPersons(a % 2 == 0),
            Kind::AddServer => Some(Try::AddServer).filter(|_| model.servers.len() < MOST)?,
            Kind::RemoveServer => Try::RemoveServer(server(a)?),
            Kind::AddChannel => Try::AddChannel(server(a).filter(|_| model.channels.len() < MOST)?),
            Kind::RemoveChannel => {
                let fits = |n: usize| model.channels[n].lives && model.channels[n].owner == own;
                Try::RemoveChannel(pick(a, model.channels.len(), fits)?)
            }
            Kind::RemoveUser => {
                let gone = [Role::Admin, Role::Operator, Role::Viewer, Role::Auditor][a % 4];
                let there = self.parties[own].has(gone) && gone != role;
                Try::RemoveUser(Some(gone).filter(|_| there)?)
            }
        })
    }

    /// A channel of one of the two sides; who is going to send names its server.
    fn chosen_grant(&self, own: Org, agreement: usize, b: usize, c: usize) -> Option<Try> {
        let model = &self.model;
        let sides = model.agreements[agreement].sides;
        let fits = |n: usize| model.channels[n].lives && sides.contains(&model.channels[n].owner);
        let channel = pick(b, model.channels.len(), fits)?;
        let offered = model.channels[channel].owner == own && sides != [own, own];
        let sender = if offered { None } else { self.sender(own, c) };
        Some(Try::Grant { agreement, channel, sender, limited: c.is_multiple_of(3) })
    }

    /// An own server to name; now and then none is named.
    fn sender(&self, own: Org, n: usize) -> Option<usize> {
        let servers = self.model.servers_of(own);
        servers.get(n.checked_rem(servers.len())?).copied().filter(|_| !n.is_multiple_of(5))
    }
}
