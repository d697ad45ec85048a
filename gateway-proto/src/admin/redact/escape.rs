//! Escapes, as they are written in the texts of XML and JSON.

/// An entity that is longer is none.
const MAX_ENTITY_LEN: usize = 32;
/// What every character beyond ASCII reads as.
const BEYOND_ASCII: u8 = 0x80;

/// How a text is escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escaping {
    /// Not at all, as in CDATA.
    None,
    /// With entities.
    Xml,
    /// With backslashes.
    Json,
}

/// What the beginning of an escape says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It goes on.
    Open,
    /// It is complete and stands for this byte.
    Stands(u8),
    /// It is no escape: everything stands for itself.
    NoEscape,
}

impl Escaping {
    /// Whether a byte begins an escape.
    pub(super) fn begins(self, byte: u8) -> bool {
        match self {
            Self::None => false,
            Self::Xml => byte == b'&',
            Self::Json => byte == b'\\',
        }
    }

    /// Reads an escape as far as it came.
    pub(super) fn read(self, text: &[u8]) -> Reading {
        match self {
            Self::None => Reading::NoEscape,
            Self::Xml => entity(text),
            Self::Json => backslash(text),
        }
    }
}

fn entity(text: &[u8]) -> Reading {
    match text {
        [b'&', name @ .., b';'] if !name.is_empty() => named(name),
        [b'&'] => Reading::Open,
        [b'&', .., last] if text.len() < MAX_ENTITY_LEN && (last.is_ascii_alphanumeric() || *last == b'#') => {
            Reading::Open
        }
        _ => Reading::NoEscape,
    }
}

fn named(entity: &[u8]) -> Reading {
    match entity {
        b"lt" => Reading::Stands(b'<'),
        b"gt" => Reading::Stands(b'>'),
        b"amp" => Reading::Stands(b'&'),
        b"quot" => Reading::Stands(b'"'),
        b"apos" => Reading::Stands(b'\''),
        [b'#', b'x' | b'X', digits @ ..] => character(digits, 16),
        [b'#', digits @ ..] => character(digits, 10),
        // HTML has names for many, none of which is syntax.
        _ => Reading::Stands(BEYOND_ASCII),
    }
}

fn backslash(text: &[u8]) -> Reading {
    match text {
        [_] => Reading::Open,
        [_, b'u', digits @ ..] if !digits.iter().all(u8::is_ascii_hexdigit) => Reading::NoEscape,
        [_, b'u', digits @ ..] if digits.len() < 4 => Reading::Open,
        // Each half of a surrogate pair by itself: neither is ASCII.
        [_, b'u', digits @ ..] => character(digits, 16),
        [_, b'n'] => Reading::Stands(b'\n'),
        [_, b'r'] => Reading::Stands(b'\r'),
        [_, b't'] => Reading::Stands(b'\t'),
        [_, b'b' | b'f'] => Reading::Stands(b' '),
        [_, other] => Reading::Stands(*other),
        _ => Reading::NoEscape,
    }
}

fn character(digits: &[u8], radix: u32) -> Reading {
    let code = std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, radix).ok());
    let ascii = |code: u32| u8::try_from(code).ok().filter(u8::is_ascii).unwrap_or(BEYOND_ASCII);
    code.map_or(Reading::NoEscape, |code| Reading::Stands(ascii(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_stands_for_its_byte_as_soon_as_it_is_complete_and_what_is_none_for_itself() {
        for (text, byte) in [
            ("&lt;", b'<'),
            ("&amp;", b'&'),
            ("&#60;", b'<'),
            ("&#x3C;", b'<'),
            ("&#X00000000003c;", b'<'),
            ("&nbsp;", BEYOND_ASCII),
            ("&#228;", BEYOND_ASCII),
        ] {
            assert_eq!(Escaping::Xml.read(text.as_bytes()), Reading::Stands(byte), "{text}");
            assert_eq!(Escaping::Xml.read(&text.as_bytes()[..text.len() - 1]), Reading::Open, "{text}");
        }
        for (text, byte) in [("\\\"", b'"'), ("\\/", b'/'), ("\\u003c", b'<'), ("\\u003C", b'<'), ("\\ud83d", 0x80)] {
            assert_eq!(Escaping::Json.read(text.as_bytes()), Reading::Stands(byte), "{text}");
            assert_eq!(Escaping::Json.read(&text.as_bytes()[..text.len() - 1]), Reading::Open, "{text}");
        }
        for text in ["& ", "&<", "&&", "&;", "&#;", "&#x;", "&#xg;", "&#99999999999;"] {
            assert_eq!(Escaping::Xml.read(text.as_bytes()), Reading::NoEscape, "{text}");
        }
        let endless = format!("&{}", "a".repeat(MAX_ENTITY_LEN));
        assert_eq!(Escaping::Xml.read(endless.as_bytes()), Reading::NoEscape);
        assert_eq!(Escaping::Json.read(b"\\u00g"), Reading::NoEscape);
        assert!(!Escaping::None.begins(b'&') && Escaping::None.read(b"&lt;") == Reading::NoEscape);
    }
}
