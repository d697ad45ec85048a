//! The issuer's name in an X.509 certificate (RFC 5280 §4.1), as far as people need it.
//!
//! The bytes come from whoever answered: every length is checked, nothing recurses, and what is not printable is left out.

/// Common name and organization, OIDs 2.5.4.3 and 2.5.4.10 in DER.
const NAMES: [&[u8]; 2] = [&[0x55, 4, 3], &[0x55, 4, 10]];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 6;
const INTEGER: u8 = 2;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;
/// Longer names are cut.
const MAX_CHARS: usize = 100;

/// The issuer's common name, or its organization; none: there is neither, or the bytes are no certificate.
pub(super) fn issuer(certificate: &[u8]) -> Option<String> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    let (_, rest) = expect(rest, INTEGER)?;
    let (_, rest) = expect(rest, SEQUENCE)?;
    let (name, _) = expect(rest, SEQUENCE)?;
    NAMES.into_iter().find_map(|wanted| attribute(name, wanted))
}

/// The text of an attribute of a Name: a sequence of sets of (type, value).
fn attribute(mut name: &[u8], wanted: &[u8]) -> Option<String> {
    while let Some((mut set, after)) = expect(name, SET) {
        name = after;
        while let Some((pair, after)) = expect(set, SEQUENCE) {
            set = after;
            let (oid, value) = expect(pair, OBJECT_IDENTIFIER)?;
            if oid == wanted {
                let (_, text, _) = element(value)?;
                let text = String::from_utf8_lossy(text);
                let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
                return Some(text).filter(|text| !text.trim().is_empty());
            }
        }
    }
    None
}

/// The content of an element with this tag, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        // Also 0x80, the indefinite length: longer than any certificate of ours, or not DER.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The same certificate as version 1 would have it: no version and no extensions. Its signature fits no more.
#[cfg(test)]
pub(super) fn version_1(certificate: &[u8]) -> Vec<u8> {
    /// `[3] EXPLICIT Extensions`.
    const EXTENSIONS: u8 = 0xa3;
    let wrapped = |content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[SEQUENCE, 0x82][..], length.as_slice(), content].concat()
    };
    let (whole, _) = expect(certificate, SEQUENCE).unwrap();
    let (mut rest, signature) = expect(whole, SEQUENCE).unwrap();
    let mut kept = Vec::new();
    while let Some((tag, _, after)) = element(rest) {
        if tag != VERSION && tag != EXTENSIONS {
            kept.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    wrapped(&[wrapped(&kept), signature.to_vec()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "An Organization");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_of_the_issuer_is_found() {
        assert_eq!(issuer(&certificate("Inspection CA")).as_deref(), Some("Inspection CA"));
        assert_eq!(issuer(&certificate("bad\u{1b}[31m")).as_deref(), Some("bad[31m"), "no terminal codes");
        assert_eq!(issuer(&certificate("")).as_deref(), Some("An Organization"));
    }

    #[test]
    fn cut_or_bent_bytes_are_no_certificate_and_no_panic() {
        let whole = certificate("Inspection CA");
        for length in 0..whole.len().min(200) {
            issuer(&whole[..length]);
        }
        for index in 0..whole.len().min(200) {
            let mut bent = whole.clone();
            bent[index] ^= 0xff;
            issuer(&bent);
        }
        assert_eq!(issuer(&[]), None);
        assert_eq!(issuer(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
