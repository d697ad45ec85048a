//! Whose a session at the engine is: it is good on the admin connection that showed it first, and on no other one.
//!
//! The engine knows accounts and nothing of connections: a session that one partner began would work through every other
//! partner's connection, under the first one's account. So a cookie that belongs to another connection never reaches the
//! engine, which then answers as it does to somebody who is not signed in, and lets him sign in.
//!
//! A session that is not known belongs to the connection that shows it: its own, as soon as the engine begins it and before
//! the client has seen it. Only one that was begun before a restart of the gateway, or that was forgotten, belongs to
//! whoever shows it first.
//!
//! The engine takes a name in any case, quoted values, and an id with any suffix behind its last dot. What is a session's
//! cookie in another reading than the plain one does not pass, and everything behind the first dot is left out of account.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::head::RequestHead;
use crate::id::ConnectionId;

/// The cookie's name.
const NAME: &str = "JSESSIONID";
/// Sessions of one connection; the one that was used least recently is forgotten, so nobody makes another one's be forgotten.
const MAX_PER_CONNECTION: usize = 64;
/// Sessions of all connections: those of connections that have ended stay until their place is needed.
const MAX_SESSIONS: usize = 4096;

/// A session's id, as a hash: what is kept signs nobody in.
type IdHash = [u8; 32];

/// Sessions and the connections they belong to.
#[derive(Debug, Default)]
pub struct SessionOwners {
    known: BTreeMap<IdHash, Owner>,
    uses: u64,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    connection: ConnectionId,
    /// The number of its last use.
    used: u64,
}

impl SessionOwners {
    /// Takes session cookies out of a request that belong to another connection, or have no plain reading. Returns how many
    /// those were.
    pub fn keep_own(&mut self, head: &mut RequestHead, connection: ConnectionId) -> usize {
        let mut taken = 0;
        for field in head.fields.iter_mut().filter(|field| field.name == "cookie") {
            let cookies = field.value.split(';').map(str::trim);
            let (own, others): (Vec<&str>, Vec<&str>) = cookies.partition(|cookie| self.may_pass(cookie, connection));
            if !others.is_empty() {
                taken += others.len();
                field.value = own.join("; ");
            }
        }
        head.fields.retain(|field| field.name != "cookie" || !field.value.is_empty());
        taken
    }

    /// The engine sets a cookie on a connection.
    pub fn begun(&mut self, set_cookie: &str, connection: ConnectionId) {
        let cookie = set_cookie.split(';').next().unwrap_or_default().trim();
        if let Some(id) = id_in(cookie) {
            self.belongs(id, connection);
        }
    }

    fn may_pass(&mut self, cookie: &str, connection: ConnectionId) -> bool {
        !names_session(cookie) || id_in(cookie).is_some_and(|id| self.belongs(id, connection))
    }

    fn belongs(&mut self, id: IdHash, connection: ConnectionId) -> bool {
        self.uses = self.uses.saturating_add(1);
        if let Some(owner) = self.known.get_mut(&id) {
            // Who shows another one's does not keep it known.
            let is_own = owner.connection == connection;
            if is_own {
                owner.used = self.uses;
            }
            return is_own;
        }
        self.make_room(connection);
        self.known.insert(id, Owner { connection, used: self.uses });
        true
    }

    fn make_room(&mut self, connection: ConnectionId) {
        let own = self.known.values().filter(|owner| owner.connection == connection).count();
        let only = (own >= MAX_PER_CONNECTION).then_some(connection);
        if only.is_none() && self.known.len() < MAX_SESSIONS {
            return;
        }
        let candidates = self.known.iter().filter(|(_, owner)| only.is_none_or(|only| owner.connection == only));
        let oldest = candidates.min_by_key(|(_, owner)| owner.used).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.known.remove(&id);
        }
    }
}

/// Whether some server could take a cookie, or a part of it, for the session's.
fn names_session(text: &str) -> bool {
    text.to_ascii_uppercase().contains(NAME)
}

/// The session of a cookie that is one in the plain reading.
fn id_in(cookie: &str) -> Option<IdHash> {
    let value = cookie.strip_prefix(NAME)?.strip_prefix('=')?;
    // The characters of RFC 6265, section 4.1.1: no quotes, no space, nothing that ends a cookie.
    let plain = |b: u8| b.is_ascii_graphic() && !b"\",;\\".contains(&b);
    if !value.bytes().all(plain) || names_session(value) {
        return None;
    }
    let id = value.split('.').next().filter(|id| !id.is_empty())?;
    Some(Sha256::digest(id).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(number: u8) -> ConnectionId {
        ConnectionId::new(1, [number; 10])
    }

    /// The cookies that reach the engine.
    fn passed(owners: &mut SessionOwners, number: u8, cookies: &str) -> Option<String> {
        let head = format!("GET /api/channels HTTP/1.1\r\nHost: h\r\nCookie: {cookies}\r\n\r\n");
        let mut head = RequestHead::parse(head.as_bytes()).unwrap();
        owners.keep_own(&mut head, connection(number));
        head.fields.into_iter().find(|field| field.name == "cookie").map(|field| field.value)
    }

    #[test]
    fn a_session_is_good_on_the_connection_it_was_begun_on_and_on_no_other_one() {
        let mut owners = SessionOwners::default();
        owners.begun("JSESSIONID=node01abc.node0; Path=/api; Secure; HttpOnly", connection(1));
        let own = "theme=dark; JSESSIONID=node01abc.node0";
        assert_eq!(passed(&mut owners, 1, own).as_deref(), Some(own));
        assert_eq!(passed(&mut owners, 2, own).as_deref(), Some("theme=dark"));
        assert_eq!(passed(&mut owners, 2, "JSESSIONID=node01abc.node0"), None);
        // Beside its own one, as a browser sends the cookies of two paths.
        owners.begun("JSESSIONID=node02def.node0", connection(2));
        let both = "JSESSIONID=node01abc.node0; JSESSIONID=node02def.node0";
        assert_eq!(passed(&mut owners, 2, both).as_deref(), Some("JSESSIONID=node02def.node0"));
        assert_eq!(passed(&mut owners, 1, both).as_deref(), Some("JSESSIONID=node01abc.node0"));
    }

    #[test]
    fn no_other_spelling_brings_a_session_through_another_connection() {
        let mut owners = SessionOwners::default();
        owners.begun("JSESSIONID=abc.node0", connection(1));
        for cookie in [
            "JSESSIONID=abc",
            "JSESSIONID=abc.node1",
            "JSESSIONID=abc.node0.x",
            "jsessionid=abc.node0",
            "JSESSIONID =abc.node0",
            "JSESSIONID= abc.node0",
            "JSESSIONID=\"abc.node0\"",
            "$JSESSIONID=abc.node0",
            "a=b, JSESSIONID=abc.node0",
            "JSESSIONID=own,JSESSIONID=abc.node0",
            "JSESSIONID=own=JSESSIONID=abc.node0",
            "a=\"JSESSIONID=abc.node0\"",
            "JSESSIONID=",
            "JSESSIONID",
        ] {
            assert_eq!(passed(&mut owners, 2, cookie), None, "{cookie}");
        }
        assert_eq!(passed(&mut owners, 1, "JSESSIONID=abc.node0").as_deref(), Some("JSESSIONID=abc.node0"));
    }

    #[test]
    fn a_session_from_before_a_restart_belongs_to_the_first_connection_that_shows_it() {
        let mut owners = SessionOwners::default();
        assert!(passed(&mut owners, 1, "JSESSIONID=abc").is_some());
        assert!(passed(&mut owners, 2, "JSESSIONID=abc").is_none());
        assert!(passed(&mut owners, 1, "JSESSIONID=abc").is_some());
    }

    #[test]
    fn who_shows_sessions_without_end_makes_none_of_another_connection_be_forgotten() {
        let mut owners = SessionOwners::default();
        owners.begun("JSESSIONID=abc", connection(1));
        owners.begun("JSESSIONID=used", connection(2));
        for number in 0..2 * MAX_SESSIONS {
            assert!(passed(&mut owners, 2, &format!("JSESSIONID=made-up-{number}")).is_some());
            assert!(passed(&mut owners, 2, "JSESSIONID=used").is_some());
        }
        assert!(passed(&mut owners, 3, "JSESSIONID=abc").is_none());
        assert!(passed(&mut owners, 3, "JSESSIONID=used").is_none(), "what is in use stays known");
        assert_eq!(owners.known.len(), MAX_PER_CONNECTION + 1);
    }

    #[test]
    fn all_connections_together_fill_no_more_than_the_table() {
        let mut owners = SessionOwners::default();
        for number in 0..80 {
            for session in 0..MAX_PER_CONNECTION {
                owners.begun(&format!("JSESSIONID={number}-{session}"), connection(number));
            }
        }
        assert_eq!(owners.known.len(), MAX_SESSIONS);
    }
}
