//! Tenants, devices and links, once more and as simply as possible. Shares no code with the platform.

/// Who may link to a device, in the words of the API.
pub(crate) const LINKABLE: [&str; 3] = ["organization", "tenant", "partners"];

/// What an owner tries. Numbers choose among what exists, removed things included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    /// Asks another organization for an agreement, which accepts at once.
    Peer(usize),
    Suspend(usize),
    Lift(usize),
    End(usize),
    AddDevice(usize),
    /// Device, and who may link to it from now on.
    Open(usize, usize),
    RemoveDevice(usize),
    Link(usize, usize),
    Unlink(usize),
    AddOrganization,
    RemoveOrganization(usize),
    /// The own organization, which is not the tenant itself.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused(&'static str),
}

use Outcome::{Done, Refused};

const NOT_FOUND: Outcome = Refused("not_found");
const CONFLICT: Outcome = Refused("conflict");
const FORBIDDEN: Outcome = Refused("forbidden");
const WRONG: Outcome = Refused("wrong_state");
const INVALID: Outcome = Refused("invalid");

#[derive(Debug, Clone)]
pub(crate) struct Organization {
    pub(crate) tenant: usize,
    /// It is the tenant.
    pub(crate) itself: bool,
    pub(crate) lives: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Agreement {
    sides: [usize; 2],
    suspends: [bool; 2],
    ended: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) owner: usize,
    linkable: &'static str,
    pub(crate) lives: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Link {
    source: usize,
    target: usize,
    lives: bool,
}

/// All organizations with what they have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) organizations: Vec<Organization>,
    pub(crate) agreements: Vec<Agreement>,
    pub(crate) devices: Vec<Device>,
    pub(crate) links: Vec<Link>,
}

impl Model {
    /// Does it, if it may be done.
    pub(crate) fn attempt(&mut self, own: usize, what: Try) -> Outcome {
        match what {
            Try::Peer(other) => {
                if !self.organizations[other].lives {
                    return NOT_FOUND;
                }
                if self.between(own, other).is_some() {
                    return CONFLICT;
                }
                self.agreements.push(Agreement { sides: [own, other], suspends: [false; 2], ended: false });
                Done
            }
            Try::Suspend(n) => self.suspend(own, n, true),
            Try::Lift(n) => self.suspend(own, n, false),
            Try::End(n) => {
                if !self.agreements[n].sides.contains(&own) {
                    return NOT_FOUND;
                }
                self.end(n);
                Done
            }
            Try::AddDevice(linkable) => {
                self.devices.push(Device { owner: own, linkable: LINKABLE[linkable], lives: true });
                Done
            }
            Try::Open(n, linkable) => {
                if !self.has(own, n) {
                    return NOT_FOUND;
                }
                self.devices[n].linkable = LINKABLE[linkable];
                self.review();
                Done
            }
            Try::RemoveDevice(n) => {
                if !self.has(own, n) {
                    return NOT_FOUND;
                }
                self.devices[n].lives = false;
                self.review();
                Done
            }
            Try::Link(source, target) => {
                if !self.has(own, source) || !self.may_link(own, target, true) {
                    return NOT_FOUND;
                }
                if source == target {
                    return INVALID;
                }
                if self.links.iter().any(|link| link.lives && (link.source, link.target) == (source, target)) {
                    return CONFLICT;
                }
                self.links.push(Link { source, target, lives: true });
                Done
            }
            Try::Unlink(n) => {
                if !self.links[n].lives || !self.concerns(own, n) {
                    return NOT_FOUND;
                }
                self.links[n].lives = false;
                Done
            }
            Try::AddOrganization => {
                let tenant = self.organizations[own].tenant;
                if !self.organizations[own].itself {
                    return FORBIDDEN;
                }
                self.organizations.push(Organization { tenant, itself: false, lives: true });
                Done
            }
            Try::RemoveOrganization(n) => {
                if !self.organizations[own].itself {
                    return FORBIDDEN;
                }
                let other = &self.organizations[n];
                if other.tenant != self.organizations[own].tenant || !other.lives {
                    return NOT_FOUND;
                }
                if n == own {
                    return CONFLICT;
                }
                self.remove(n);
                Done
            }
            Try::Leave => {
                self.remove(own);
                Done
            }
        }
    }

    /// Living devices of an organization.
    pub(crate) fn devices_of(&self, own: usize) -> Vec<usize> {
        (0..self.devices.len()).filter(|n| self.has(own, *n)).collect()
    }

    /// Living links from or to its devices.
    pub(crate) fn links_of(&self, own: usize) -> Vec<usize> {
        (0..self.links.len()).filter(|n| self.links[*n].lives && self.concerns(own, *n)).collect()
    }

    /// Devices of others that its own may be linked to.
    pub(crate) fn linkable_for(&self, own: usize) -> Vec<usize> {
        (0..self.devices.len()).filter(|n| self.devices[*n].owner != own && self.may_link(own, *n, true)).collect()
    }

    /// Living organizations of a tenant.
    pub(crate) fn kin(&self, tenant: usize) -> Vec<usize> {
        (0..self.organizations.len())
            .filter(|n| self.organizations[*n].lives && self.organizations[*n].tenant == tenant)
            .collect()
    }

    fn has(&self, own: usize, device: usize) -> bool {
        self.devices[device].lives && self.devices[device].owner == own
    }

    fn concerns(&self, own: usize, link: usize) -> bool {
        let Link { source, target, .. } = self.links[link];
        [source, target].iter().any(|device| self.devices[*device].owner == own)
    }

    fn between(&self, one: usize, other: usize) -> Option<&Agreement> {
        let open = |agreement: &&Agreement| {
            !agreement.ended && agreement.sides.contains(&one) && agreement.sides.contains(&other)
        };
        self.agreements.iter().find(open)
    }

    fn may_link(&self, own: usize, target: usize, anew: bool) -> bool {
        let device = &self.devices[target];
        if !device.lives {
            return false;
        }
        let kin = self.organizations[own].tenant == self.organizations[device.owner].tenant;
        let partner =
            self.between(own, device.owner).is_some_and(|agreement| !anew || agreement.suspends == [false; 2]);
        device.owner == own
            || match device.linkable {
                "tenant" => kin,
                "partners" => kin || partner,
                _ => false,
            }
    }

    fn suspend(&mut self, own: usize, n: usize, on: bool) -> Outcome {
        let agreement = &mut self.agreements[n];
        let Some(side) = agreement.sides.iter().position(|side| *side == own) else { return NOT_FOUND };
        if agreement.ended {
            return WRONG;
        }
        agreement.suspends[side] = on;
        Done
    }

    fn end(&mut self, n: usize) {
        self.agreements[n].ended = true;
        self.review();
    }

    /// A link lasts as long as its devices, and as long as it would be allowed anew, a suspension aside.
    fn review(&mut self) {
        for n in 0..self.links.len() {
            let Link { source, target, .. } = self.links[n];
            let stays = self.devices[source].lives && self.may_link(self.devices[source].owner, target, false);
            self.links[n].lives &= stays;
        }
    }

    fn remove(&mut self, n: usize) {
        for agreement in self.agreements.iter_mut().filter(|agreement| agreement.sides.contains(&n)) {
            agreement.ended = true;
        }
        for device in self.devices.iter_mut().filter(|device| device.owner == n) {
            device.lives = false;
        }
        self.organizations[n].lives = false;
        self.review();
    }
}
