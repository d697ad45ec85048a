//! The link that an invited person is given.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;

use super::platform::Hidden;

/// The page of the control plane that says what to do with a link; it does not learn the code.
pub const INVITATION_PATH: &str = "/invitation";

const CODE_PREFIX: &str = "gwi_";
/// Hex digits of a code behind its prefix, and of a pin.
const DIGITS: usize = 64;

/// A fresh code of an invitation, from 32 random bytes.
pub fn invitation_code(random: &[u8; 32]) -> Hidden {
    Hidden(format!("{CODE_PREFIX}{}", HEXLOWER.encode(random)))
}

/// What a link holds: where to go, whom to trust, and the one-time code.
///
/// Code and pin stand behind the `#`: a browser keeps that part to itself, so that neither the control plane nor a proxy before it
/// has the code in a log. Nothing in it means something to a shell or a mail program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationLink {
    /// Base URL of the control plane, `https://host:port`.
    pub control: String,
    /// SHA-256 of the control plane's TLS public key, 64 hex digits; none: the web PKI vouches for it.
    pub pin: Option<String>,
    /// The code, good once.
    pub code: Hidden,
}

/// The text is not the link of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the complete link of an invitation: it has the form https://HOST:PORT{INVITATION_PATH}#{CODE_PREFIX}…; copy it \
     again, whole, with what stands behind the '#'"
)]
pub struct InvitationLinkError;

impl fmt::Display for InvitationLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{INVITATION_PATH}#{}", self.control, self.code.0)?;
        self.pin.as_ref().map_or(Ok(()), |pin| write!(f, ".{pin}"))
    }
}

impl FromStr for InvitationLink {
    type Err = InvitationLinkError;

    fn from_str(text: &str) -> Result<Self, InvitationLinkError> {
        let (page, fragment) = text.trim().split_once('#').ok_or(InvitationLinkError)?;
        let control = page.strip_suffix(INVITATION_PATH).ok_or(InvitationLinkError)?;
        let (code, pin) = match fragment.split_once('.') {
            Some((code, pin)) => (code, Some(pin)),
            None => (fragment, None),
        };
        let is_whole = control.strip_prefix("https://").is_some_and(is_host)
            && code.strip_prefix(CODE_PREFIX).is_some_and(is_hex)
            && pin.is_none_or(is_hex);
        if !is_whole {
            return Err(InvitationLinkError);
        }
        Ok(Self { control: control.to_owned(), pin: pin.map(str::to_owned), code: Hidden(code.to_owned()) })
    }
}

/// Host and port without anything around them; whether there is such a host is for whoever goes there.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b'?' | b'@'))
}

fn is_hex(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(pin: Option<String>) -> InvitationLink {
        InvitationLink { control: "https://control.example:8443".into(), pin, code: invitation_code(&[0xab; 32]) }
    }

    #[test]
    fn a_link_round_trips_and_its_secret_is_behind_the_fragment_only() {
        for link in [link(None), link(Some("cd".repeat(32)))] {
            let text = link.to_string();
            assert_eq!(format!(" {text}\n").parse(), Ok(link.clone()));
            let (page, fragment) = text.split_once('#').unwrap();
            assert_eq!(page, "https://control.example:8443/invitation");
            assert!(fragment.starts_with(&link.code.0), "{fragment}");
            assert!(!format!("{link:?}").contains("abab"));
        }
    }

    #[test]
    fn a_link_that_was_cut_or_leads_elsewhere_is_refused() {
        let text = link(Some("cd".repeat(32))).to_string();
        let code = link(None).code.0.clone();
        let whole = link(None).to_string().len();
        for end in (0..text.len()).filter(|end| *end != whole) {
            assert_eq!(text[..end].parse::<InvitationLink>(), Err(InvitationLinkError), "{end}");
        }
        for page in [
            "http://control.example/invitation",
            "https:///invitation",
            "https://user@control.example/invitation",
            "https://control.example/elsewhere/invitation",
            "https://control.example?x=/invitation",
            "https://control.example/invitation?code=x",
        ] {
            assert_eq!(format!("{page}#{code}").parse::<InvitationLink>(), Err(InvitationLinkError), "{page}");
        }
    }
}
