//! The form of a sign-in, read strictly: what another server could read in another way is no form. The account that is
//! recorded, and that is looked at, is the one that the engine signs in.

use data_encoding::HEXLOWER_PERMISSIVE;

/// Whether a content type is that of a form, with nothing beside it but that it is in UTF-8.
pub(super) fn is_form(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    media.eq_ignore_ascii_case("application/x-www-form-urlencoded") && parts.all(says_utf8)
}

/// Whether a content type says nothing of a text but that it is in UTF-8, if that.
pub(super) fn is_in_utf8(content_type: &str) -> bool {
    content_type.split(';').skip(1).map(str::trim).all(says_utf8)
}

/// Whether a form can be read in one way only: printable ASCII, and every `%` begins an escape of two digits. What the
/// escapes stand for is UTF-8 without control characters.
pub fn has_one_reading(form: &[u8]) -> bool {
    let text = std::str::from_utf8(form).ok().filter(|text| text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    text.and_then(percent_decoded).is_some_and(|text| !text.contains(char::is_control))
}

/// Decodes `%` and two digits; none: a `%` begins something else, or what comes out is not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (pair, after) = rest.split_at_checked(2)?;
        bytes.push(*HEXLOWER_PERMISSIVE.decode(pair).ok()?.first()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn says_utf8(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return parameter.is_empty() };
    name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_in_utf_8_whether_it_says_so_or_not_and_in_nothing_else() {
        let form = "application/x-www-form-urlencoded";
        for parameters in ["", ";", "; charset=UTF-8", ";charset=utf-8", "; Charset=\"utf-8\""] {
            assert!(is_form(&format!("{form}{parameters}")), "{parameters}");
        }
        for parameters in [
            "; charset=UTF-16",
            "; charset=utf-16be",
            "; charset=iso-8859-1",
            "; charset=IBM037",
            "; charset=utf-8; charset=utf-16",
            "; charset =utf-16",
            "; charset= utf-8",
            "; charset",
            "; charset=",
            "; boundary=x",
            "; x=y",
        ] {
            assert!(!is_form(&format!("{form}{parameters}")), "{parameters}");
        }
        assert!(!is_form("") && !is_form("application/xml") && !is_form("multipart/form-data; boundary=b"));
    }

    #[test]
    fn a_form_that_hides_another_one_from_one_of_two_readers_has_two_readings() {
        for form in ["username=admin&password=x", "username=m%C3%BCller&password=a+b%26%25 c;d", ""] {
            assert!(has_one_reading(form.as_bytes()), "{form}");
        }
        let wide: Vec<u8> = "&username=admin&password=x".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(!has_one_reading(&[b"username=bob1".as_slice(), &wide].concat()));
        for form in [
            b"username=m\xc3\xbcller".as_slice(),
            b"username=m\xfcller",
            b"username=m%FCller",
            // Overlong, as some servers decode it; and as some decode a `%` that begins no two digits.
            b"username=%C1%A2ypass",
            b"username=%u0062ypass",
            b"username=bob%",
            b"username=bob%zz",
            b"username=bob\0",
            b"username=bob%00",
            b"username=bob\r\n",
            b"username=bob%0A",
        ] {
            assert!(!has_one_reading(form), "{}", String::from_utf8_lossy(form));
        }
    }
}
