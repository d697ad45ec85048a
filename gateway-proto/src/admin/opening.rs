//! The opening of an admin stream: after the stream header, before any HTTP, the user's gateway says who acts.
//!
//! It travels inside the tunnel, on a stream that proved its connection, so the owner knows which gateway vouches for
//! the name; the organization and the server come from the owner's own policy, never from the peer. Layout:
//! `docs/protocol.md` §6.

use serde::{Deserialize, Serialize};

/// The longest body of an opening, in bytes.
pub const MAX_OPENING_LEN: usize = 512;
/// The longest name of an acting user, in characters.
pub const MAX_USER_LEN: usize = 64;

/// How the user's gateway knows who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// The operating system's account that owns the client's socket on the gateway's machine.
    LocalAccount,
    /// Nothing but the client's network address; the name is that address.
    Address,
}

/// Who acts on an admin stream, as the user's gateway vouches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ActingUser {
    /// The name: letters, digits and `. _ - @ : [ ] \ +`, at most 64.
    pub name: String,
    /// How it is known.
    pub known_by: KnownBy,
}

/// Why an opening was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the opening of the admin stream is malformed or names nobody")]
pub struct OpeningError;

impl ActingUser {
    /// A user of that name; characters that are not accepted become `_`, what is too long is cut.
    pub fn new(name: &str, known_by: KnownBy) -> Self {
        let clean = |c: char| if accepted(c) { c } else { '_' };
        let mut name: String = name.chars().take(MAX_USER_LEN).map(clean).collect();
        if name.is_empty() {
            name.push('_');
        }
        Self { name, known_by }
    }

    /// The wire form: length u16, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a short text serializes");
        let length = u16::try_from(body.len()).expect("names are at most 64 characters");
        [&length.to_be_bytes()[..], &body].concat()
    }

    /// Reads a body (without its length). A name that [`new`](Self::new) would change is refused.
    pub fn decode(body: &[u8]) -> Result<Self, OpeningError> {
        let (user, rest): (Self, _) = postcard::take_from_bytes(body).map_err(|_| OpeningError)?;
        let fits = (1..=MAX_USER_LEN).contains(&user.name.len()) && user.name.chars().all(accepted);
        if fits && rest.is_empty() { Ok(user) } else { Err(OpeningError) }
    }
}

fn accepted(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-@:[]\\+".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_survives_the_wire_and_garbage_is_refused() {
        let user = ActingUser::new("maria", KnownBy::LocalAccount);
        let bytes = user.encode();
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), "0007056d6172696100");
        assert_eq!(ActingUser::decode(&bytes[2..]).unwrap(), user);
        assert_eq!(ActingUser::decode(&[]), Err(OpeningError));
        assert_eq!(ActingUser::decode(&[&bytes[2..], b"x"].concat()), Err(OpeningError));
    }

    #[test]
    fn names_that_could_break_a_header_or_a_log_never_pass() {
        for name in ["", "a\r\nX-Evil: 1", "a b", "ä", &"x".repeat(65)] {
            let raw = ActingUser { name: name.into(), known_by: KnownBy::Address };
            assert_eq!(ActingUser::decode(&raw.encode()[2..]), Err(OpeningError), "{name:?}");
            let clean = ActingUser::new(name, KnownBy::Address);
            assert_eq!(ActingUser::decode(&clean.encode()[2..]).unwrap(), clean);
        }
    }
}
