//! `[acme]`: how certificates are ordered, and the account at the authority's operator that ours is bound to.

use std::{net::SocketAddr, path::PathBuf};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use gateway_net::{
    causes::with_causes,
    document::Section,
    secret_file::{self, SecretFileError},
};
use zeroize::Zeroizing;

use super::check::{ADDRESS, collide, path};

/// Let's Encrypt.
const DEFAULT_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Bytes of an HMAC key: less protects nothing, more is no key.
const KEY_LEN: std::ops::RangeInclusive<usize> = 16..=1024;
/// Characters of a key id at most.
const MAX_KEY_ID: usize = 1024;

/// How certificates are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The names in the certificate, all of which lead to this relay.
    pub domains: Vec<String>,
    /// Addresses the authority may write to, as `mailto:` URLs.
    pub contact: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// PEM file with the authorities that the directory's own TLS certificate may be from; none: the public web PKI.
    pub root: Option<PathBuf>,
    /// What the account at the directory is bound to; none: to nothing.
    pub external_account: Option<ExternalAccount>,
    /// Where challenges of HTTP-01 are answered; none: TLS-ALPN-01 on the relay's own port.
    pub http_listen: Option<SocketAddr>,
}

/// External account binding (RFC 8555 §7.3.4): who pays for our certificates, and the proof that we may say so. The key is
/// read when an account is made and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key id that the operator of the authority gave.
    pub key_id: String,
    /// The file with the HMAC key, base64, mode 0600.
    pub key_file: PathBuf,
}

/// Why there is no HMAC key. Never repeats what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum ExternalAccountError {
    /// The file cannot be read, or others can.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// It holds something else.
    #[error("{} does not hold base64 of 16 to 1024 bytes and nothing else", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl ExternalAccount {
    /// The HMAC key. Blocking.
    ///
    /// # Errors
    /// When the file cannot be read, may be read by others, or holds no key.
    pub fn key(&self) -> Result<Zeroizing<Vec<u8>>, ExternalAccountError> {
        let text = secret_file::read(&self.key_file)?;
        decode(&text).ok_or_else(|| ExternalAccountError::Form { path: self.key_file.clone() })
    }
}

/// Authorities hand it out in either alphabet, with padding or without.
fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim_ascii();
    let text = match text.iter().rposition(|byte| *byte != b'=') {
        Some(last) if text.len() - last <= 3 => &text[..=last],
        _ => return None,
    };
    let is_standard = text.iter().any(|byte| matches!(byte, b'+' | b'/'));
    let encoding = if is_standard { BASE64_NOPAD } else { BASE64URL_NOPAD };
    let key = Zeroizing::new(encoding.decode(text).ok()?);
    KEY_LEN.contains(&key.len()).then_some(key)
}

impl Acme {
    /// None: the section is not there, or lacks what it needs. `taken` are the other ports of TCP.
    pub(super) fn read(mut section: Section<'_, '_>, taken: &[SocketAddr]) -> Option<Self> {
        const DOMAINS: &str = "a list of 1 to 100 DNS names without `*`, all of which lead to this relay, such as [\"relay.example.org\"]";
        const DIRECTORY: &str = "an https:// URL, such as \"https://acme-v02.api.letsencrypt.org/directory\"";
        const CONTACT: &str = "a list of at most 10 addresses, such as [\"mailto:ops@example.org\"]";
        const TERMS: &str =
            "true, once you have read the terms of service of the certificate authority and agree to them";
        if !section.is_there() {
            return None;
        }
        let domains = section.required("domains", DOMAINS, |value| {
            let fits =
                |domains: &Vec<String>| (1..=100).contains(&domains.len()) && domains.iter().all(|d| is_domain(d));
            value.texts().filter(fits)
        });
        let contact = section.value("contact", CONTACT, Vec::new(), |value| {
            let is_address = |text: &String| text.starts_with("mailto:") && text.contains('@');
            value.texts().filter(|texts| texts.len() <= 10 && texts.iter().all(is_address))
        });
        section.required("terms_agreed", TERMS, |value| value.flag().filter(|agreed| *agreed));
        let directory = section.value("directory", DIRECTORY, DEFAULT_DIRECTORY.to_owned(), |value| {
            let text = value.text()?;
            text.strip_prefix("https://").filter(|rest| rest.len() > 1 && !rest.contains('@'))?;
            Some(text.to_owned())
        });
        let root = section.optional("root", "the path of a PEM file", path);
        if let Some(error) = root.as_deref().and_then(|root| std::fs::metadata(root).err()) {
            section.reject("root", &format!("a PEM file with the authorities; this one: {error}"));
        }
        let external_account = ExternalAccount::read_in(&mut section);
        let http_listen = section.optional("http_listen", ADDRESS, |value| value.text()?.parse().ok());
        if http_listen.is_some_and(|own: SocketAddr| taken.iter().any(|taken| collide(own, *taken))) {
            section.reject("http_listen", "another port than those of listen and metrics_listen");
        }
        section.finish();
        Some(Self { domains: domains?, contact, directory, root, external_account, http_listen })
    }
}

impl ExternalAccount {
    /// The file is looked into here: a key that cannot be used is found by `check`, and not when the authority is asked.
    fn read_in(section: &mut Section<'_, '_>) -> Option<Self> {
        const BOTH: &str = "eab_key_id and eab_key_file together, as the authority gave the two, or neither";
        const KEY_ID: &str = "the key id that the authority gave, visible ASCII characters without spaces";
        const FILE: &str = "an absolute path of a file with mode 0600 that holds the HMAC key as the authority gave it, in base64; the key itself has no place in the configuration";
        let key_id = section.optional("eab_key_id", KEY_ID, |value| {
            let is_id =
                |id: &&str| (1..=MAX_KEY_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
            value.text().filter(is_id).map(str::to_owned)
        });
        // Whoever writes the key in here by mistake does not find it in the journal.
        let written = section.optional("eab_key_file", FILE, |value| value.text().map(PathBuf::from));
        let key_file = written.filter(|file| {
            let is_path = file.is_absolute();
            if !is_path {
                section.reject_unseen("eab_key_file", FILE);
            }
            is_path
        });
        match (section.has("eab_key_id"), section.has("eab_key_file")) {
            (false, true) => section.missing("eab_key_id", BOTH),
            (true, false) => section.missing("eab_key_file", BOTH),
            (true, true) | (false, false) => {}
        }
        let account = Self { key_id: key_id?, key_file: key_file? };
        if let Err(error) = account.key() {
            section.reject("eab_key_file", &format!("{FILE}; {}", with_causes(&error)));
        }
        Some(account)
    }
}

fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_either_alphabet_with_padding_or_without() {
        let key = [0xfb_u8, 0xff, 0xbe].repeat(6);
        for text in ["-_--".repeat(6), "+/++".repeat(6), format!("{}\n", "-_--".repeat(6))] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(&key), "{text:?}");
        }
        let padded = decode(b"AAAAAAAAAAAAAAAAAAAAAA==\n");
        assert_eq!(padded.as_deref(), Some(&vec![0; 16]));
        assert_eq!(padded, decode(b"AAAAAAAAAAAAAAAAAAAAAA"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "AAAA".repeat(342);
        let mixed = "-_--+/++".repeat(3);
        let named = "kid: AAAAAAAAAAAAAAAAAAAAAAAA";
        for text in ["", "=", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA===", named, mixed.as_str(), long.as_str()] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
