//! Grants: what is offered, and what is told of those that there are.

use std::fmt::Display;

use gateway_proto::{
    api::{
        platform::{Agreement, Grant},
        values::between_clocks,
    },
    id::{AgreementId, ChannelId},
    peering::{AgreementStatus, GrantStatus},
    policy::HL7V2_MLLP,
};

use super::{Planner, Standing, Step, Which};
use crate::{
    args::Span,
    cmd::apply::{
        found::Found,
        partners::{Meant, meant},
        site::{ChannelName, SiteGrant},
    },
};

impl Planner<'_> {
    pub(super) fn grant(&mut self, wanted: &SiteGrant, standing: &[Option<Standing>]) {
        let (channel, name) = (&wanted.channel, &wanted.to);
        let partner = meant(name, self.found);
        let shown = match partner {
            Meant::One(id) => self.found.shown(name, id),
            Meant::Nobody | Meant::Several => format!("'{name}'"),
        };
        let waits = |why: &str| format!("the grant of '{channel}' to {shown} waits for {why}");
        let agreement = match partner {
            Meant::One(id) => self.found.agreement(id),
            Meant::Nobody | Meant::Several => None,
        };
        let standing = self.channel_meant(channel, standing);
        self.accept_kinds(wanted, &shown, standing.ok().map(|standing| standing.channel), agreement);
        let Standing { channel: which, published, is_renamed } = match standing {
            Ok(standing) => standing,
            Err(why) => return self.plan.waits.push(waits(why)),
        };
        let Some(agreement) = agreement else { return self.plan.waits.push(waits("an agreement")) };
        self.plan.meant.push((name.clone(), agreement.peer_id));
        if !self.grants.insert((which, agreement.id)) {
            return self.plan.refusals.push(format!("the grant of '{channel}' to {shown} stands in the file twice"));
        }
        if let Which::There(id) = which {
            match given(self.found, id, agreement.id, wanted) {
                Given::InForce => return,
                Given::Waits(words) => return self.plan.waits.push(format!("'{channel}' to {shown}: {words}")),
                Given::Not => {}
            }
        }
        let why = if agreement.peer_id == self.found.own.id {
            Some("`gateway-ctl grant offer`: inside the own organization both ends have to be named")
        } else if agreement.status == AgreementStatus::Suspended {
            Some("the suspension of the agreement to be lifted")
        } else if is_renamed {
            Some("the file to call its channel by its name")
        } else if !published {
            Some("its channel to be published")
        } else {
            None
        };
        if let Some(why) = why {
            return self.plan.waits.push(waits(why));
        }
        self.plan.steps.push(Step::OfferGrant {
            agreement_id: agreement.id,
            channel: which,
            shown,
            grant: wanted.clone(),
            expires_at: wanted.expires.map(|span| span.after(self.found.now)),
        });
    }

    /// The kinds of exchange that a grant is narrowed to are some that there are, its channel's among them: whatever else is done
    /// first, no other grant is ever taken. One that is there keeps a name that there is no more.
    fn accept_kinds(
        &mut self,
        wanted: &SiteGrant,
        shown: &str,
        which: Option<Which<ChannelId>>,
        agreement: Option<&Agreement>,
    ) {
        let is_it = |grant: &Grant| {
            which == Some(Which::There(grant.channel_id)) && agreement.is_some_and(|with| with.id == grant.agreement_id)
        };
        let is_there = |grant: &Grant| {
            let is_open = matches!(grant.status, GrantStatus::Pending | GrantStatus::Active);
            is_open && is_it(grant) && grant.behaviors == wanted.behaviors
        };
        if self.found.grants.iter().any(is_there) {
            return;
        }
        let what = format!("the grant of '{}' to {shown}", wanted.channel);
        self.accept_behaviors(&what, &wanted.behaviors);
        let behavior = match which {
            None => None,
            Some(Which::There(id)) => {
                self.found.channels.iter().find(|channel| channel.id == id).map(|channel| channel.behavior.as_str())
            }
            Some(Which::Made(place)) => {
                self.site.channels.get(place).map(|channel| channel.behavior.as_deref().unwrap_or(HL7V2_MLLP))
            }
        };
        if let Some(is) = behavior
            && !wanted.may_carry(behavior)
        {
            let words = format!("its channel's behavior is {is}: name it among `behaviors` too, or leave them out");
            self.plan.refusals.push(format!("{what}: {words}"));
        }
    }

    /// The channel that a grant is of: one of the file, or one that is there.
    fn channel_meant(&self, wanted: &ChannelName, standing: &[Option<Standing>]) -> Result<Standing, &'static str> {
        let mut may_be = Vec::new();
        let mut in_file = Vec::new();
        for ((channel, key), standing) in self.site.channels.iter().zip(&self.in_file).zip(standing) {
            if wanted.may_be(key) {
                in_file.push(key);
                // What the file keeps from partners is not what it grants them.
                if channel.publish.is_some() {
                    may_be.push(*standing);
                }
            }
        }
        for (channel, key) in self.found.channels.iter().zip(&self.there) {
            if wanted.may_be(key) && !in_file.contains(&key) {
                let (which, published) = (Which::There(channel.id), channel.published);
                may_be.push(Some(Standing { channel: which, published, is_renamed: false }));
            }
        }
        match may_be.as_slice() {
            [] => Err("a channel that the file does not name"),
            [standing] => standing.ok_or("its channel"),
            [_, _, ..] => Err("a name that fits one channel only: give the grant the `server` of its channel too"),
        }
    }
}

/// What there is of a grant.
enum Given {
    InForce,
    Not,
    Waits(String),
}

fn given(found: &Found, channel: ChannelId, agreement: AgreementId, wanted: &SiteGrant) -> Given {
    let of = |status: GrantStatus| {
        let is = move |grant: &&Grant| {
            grant.channel_id == channel && grant.agreement_id == agreement && grant.status == status
        };
        found.grants.iter().filter(is)
    };
    if of(GrantStatus::Active).any(|grant| unlike(grant, wanted).is_none()) {
        return Given::InForce;
    }
    let with = |grant: &Grant| unlike(grant, wanted).map_or_else(String::new, |terms| format!(" with {terms}"));
    if let Some(grant) = of(GrantStatus::Requested).next() {
        let (with, id) = (with(grant), grant.id);
        return Given::Waits(match tighter(grant, wanted, found.now) {
            Some(limits) => format!(
                "the partner asked for it itself{with}: decide with `gateway-ctl grant approve {id}{limits}`, or `grant deny` and \
                 apply again"
            ),
            None => format!(
                "the partner asked for it itself{with}, which an approval cannot make what the file says: `gateway-ctl grant deny \
                 {id}` and apply again to offer it as the file says"
            ),
        });
    }
    if let Some(grant) = of(GrantStatus::Pending).next() {
        return Given::Waits(match unlike(grant, wanted) {
            None => "the partner has not approved it yet".to_owned(),
            Some(terms) => format!(
                "it was offered with {terms}; `gateway-ctl grant withdraw {}` and apply again to offer it as the file says",
                grant.id
            ),
        });
    }
    match of(GrantStatus::Active).next() {
        None => Given::Not,
        Some(grant) => Given::Waits(format!(
            "it is in force{}; the terms of a grant never change: `gateway-ctl grant revoke {}` and apply again",
            with(grant),
            grant.id
        )),
    }
}

/// The limits that an approval of a request has to name to make of it what the file wants, as options; none: it cannot, as it may
/// be tighter than the request and no more. `now` in Unix seconds.
fn tighter(grant: &Grant, wanted: &SiteGrant, now: u64) -> Option<String> {
    let is_other = !wanted.behaviors.is_empty() && wanted.behaviors != grant.behaviors;
    if is_other || (wanted.require_post_quantum && !grant.require_post_quantum) {
        return None;
    }
    let end = match wanted.expires.filter(|span| other_end(grant, *span).is_some()) {
        Some(span) if grant.expires_at.is_some_and(|end| end < span.after(now)) => return None,
        Some(span) => format!(" --expires {span}"),
        None => String::new(),
    };
    let streams = option("max-streams", wanted.max_streams, Some(grant.max_streams), "")?;
    let rate = option("bytes-per-second", wanted.bytes_per_second, grant.bytes_per_second, "")?;
    let silence = option("receive-timeout", wanted.receive_timeout_secs, grant.receive_timeout_secs, "s")?;
    Some(format!("{end}{streams}{rate}{silence}"))
}

/// A limit that the file wants otherwise than it was asked for, as an option; none: it is a wider one.
fn option<T: PartialOrd + Display>(name: &str, wanted: Option<T>, asked: Option<T>, unit: &str) -> Option<String> {
    match (wanted, asked) {
        (Some(wanted), Some(asked)) if wanted > asked => None,
        (Some(wanted), asked) if asked.as_ref() != Some(&wanted) => Some(format!(" --{name} {wanted}{unit}")),
        (Some(_) | None, _) => Some(String::new()),
    }
}

/// What the file wants otherwise than it is. What it leaves out is not compared.
fn unlike(grant: &Grant, wanted: &SiteGrant) -> Option<String> {
    let end = wanted.expires.and_then(|span| other_end(grant, span));
    let streams = wanted.max_streams.filter(|max| *max != grant.max_streams);
    let streams = streams.map(|max| format!("max_streams {} instead of {max}", grant.max_streams));
    let rate = differs("bytes_per_second", wanted.bytes_per_second, grant.bytes_per_second);
    let silence = differs("receive_timeout_secs", wanted.receive_timeout_secs, grant.receive_timeout_secs);
    let is_other = !wanted.behaviors.is_empty() && wanted.behaviors != grant.behaviors;
    let of = || if grant.behaviors.is_empty() { "any".to_owned() } else { grant.behaviors.join(", ") };
    let behaviors = is_other.then(|| format!("behaviors {} instead of {}", of(), wanted.behaviors.join(", ")));
    let is_weaker = wanted.require_post_quantum && !grant.require_post_quantum;
    let tunnel = is_weaker.then(|| "no post-quantum tunnel required".to_owned());
    let terms: Vec<_> =
        end.into_iter().chain(streams).chain(rate).chain(silence).chain(behaviors).chain(tunnel).collect();
    (!terms.is_empty()).then(|| terms.join(" and "))
}

/// A limit that the file wants otherwise than it is, in words.
fn differs<T: PartialEq + Display>(name: &str, wanted: Option<T>, is: Option<T>) -> Option<String> {
    let wanted = wanted.filter(|wanted| is.as_ref() != Some(wanted))?;
    Some(match is {
        Some(is) => format!("{name} {is} instead of {wanted}"),
        None => format!("no {name} instead of {wanted}"),
    })
}

/// The end of a grant if it is not the one that the file wants, in words. Who offers a grant counts from the offer, and who approves a
/// request from the approval; one by our clock and one by the platform's.
fn other_end(grant: &Grant, wanted: Span) -> Option<String> {
    let Some(end) = grant.expires_at else { return Some(format!("no end instead of one after {wanted}")) };
    let since = |from: u64| end.saturating_sub(from);
    let (offered, approved) = (since(grant.created_at), since(grant.approved_at.unwrap_or(grant.created_at)));
    let is_nearer = approved.abs_diff(wanted.secs) < offered.abs_diff(wanted.secs);
    let secs = if is_nearer { approved } else { offered };
    // The time between the look at our clock and the offer is of no interest to people.
    let shown = Span { secs: if secs < 3600 { secs } else { secs.saturating_add(30) / 60 * 60 } };
    let is_other = secs.abs_diff(wanted.secs) > between_clocks(wanted.secs);
    is_other.then(|| format!("an end after {shown} instead of {wanted}"))
}
