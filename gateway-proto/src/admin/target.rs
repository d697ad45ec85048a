//! The target of a request, read so that the guard and the engine can only see the same path.
//!
//! The engine accepts more than one spelling of a path: it drops matrix parameters (`;x=1`) from every segment, and other
//! servers in front of it or later versions may decode twice or fold dots. Whatever has a second reading is refused here.

/// The longest target, in bytes.
pub const MAX_TARGET_LEN: usize = 8192;
/// Segments of a path at most.
const MAX_SEGMENTS: usize = 32;

/// A target with one reading only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The query as sent, without the question mark.
    pub query: Option<&'a str>,
    raw: Vec<&'a str>,
    decoded: Vec<String>,
}

/// Why a target was refused; the text completes "the path has …" for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Absolute, authority or asterisk form, or nothing.
    #[error("a target that is no path")]
    NotAPath,
    /// Too long, or too many segments.
    #[error("too many characters")]
    TooLong,
    /// A character that no URL has.
    #[error("a character that is not permitted in a URL")]
    Character,
    /// `;`, raw or encoded.
    #[error("matrix parameters")]
    Matrix,
    /// `//`.
    #[error("an empty segment")]
    EmptySegment,
    /// `.` or `..`, raw or encoded.
    #[error("a dot segment")]
    DotSegment,
    /// An encoded `/`, `\`, `%`, `?`, `#`, control character, an unreserved character that needs no encoding, or one
    /// that a tolerant server takes for an ASCII character.
    #[error("an encoding with a second reading")]
    Encoding,
}

impl<'a> Target<'a> {
    /// Reads a target in origin form.
    pub fn parse(target: &'a str) -> Result<Self, TargetError> {
        if target.len() > MAX_TARGET_LEN {
            return Err(TargetError::TooLong);
        }
        if !target.bytes().all(|b| b.is_ascii_graphic() && !b"#\\\"<>".contains(&b)) {
            return Err(TargetError::Character);
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let inner = path.strip_prefix('/').ok_or(TargetError::NotAPath)?;
        // One trailing slash changes nothing for the engine, and the Administrator sends it.
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let raw: Vec<_> = if inner.is_empty() && path == "/" { Vec::new() } else { inner.split('/').collect() };
        if raw.len() > MAX_SEGMENTS {
            return Err(TargetError::TooLong);
        }
        let decoded = raw.iter().map(|segment| decode(segment)).collect::<Result<_, _>>()?;
        Ok(Self { query, raw, decoded })
    }

    /// The segments as sent and without percent-encoding, after those of `prefix`; none: the path is not below it.
    pub(super) fn below(&self, prefix: &[String]) -> Option<(&[&'a str], &[String])> {
        let starts = self.raw.len() >= prefix.len() && self.raw.iter().zip(prefix).all(|(raw, wanted)| raw == wanted);
        starts.then(|| (&self.raw[prefix.len()..], &self.decoded[prefix.len()..]))
    }
}

fn decode(segment: &str) -> Result<String, TargetError> {
    if segment.is_empty() {
        return Err(TargetError::EmptySegment);
    }
    if segment.contains(';') {
        return Err(TargetError::Matrix);
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return Err(TargetError::Encoding) };
        let byte = (hex(*high)? << 4) | hex(*low)?;
        rest = after;
        match byte {
            b';' => return Err(TargetError::Matrix),
            b'/' | b'\\' | b'%' | b'?' | b'#' | 0..=0x1f | 0x7f => return Err(TargetError::Encoding),
            b'.' => return Err(TargetError::DotSegment),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => return Err(TargetError::Encoding),
            _ => bytes.push(byte),
        }
    }
    if bytes == b"." || bytes == b".." {
        return Err(TargetError::DotSegment);
    }
    let text = String::from_utf8(bytes).map_err(|_| TargetError::Encoding)?;
    if text.chars().any(|c| !c.is_ascii() && resembles_ascii(c)) { Err(TargetError::Encoding) } else { Ok(text) }
}

/// Whether a character is not a letter of some script but a form of another one: full-width, mathematical, enclosed. Some
/// servers fold these to ASCII ("best fit"), and a slash or an underscore appears where there was none.
fn resembles_ascii(c: char) -> bool {
    !c.is_alphanumeric()
        || matches!(c, '\u{2000}'..='\u{2bff}' | '\u{fb00}'..='\u{fb4f}' | '\u{fe00}'..='\u{ffff}' | '\u{1d400}'..='\u{1ffff}')
}

fn hex(digit: u8) -> Result<u8, TargetError> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(TargetError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_administrator_sends_is_read() {
        let target = Target::parse("/api/4.5.2/extensions/JMS%20Sender/enabled").unwrap();
        assert_eq!(target.decoded[3], "JMS Sender");
        assert_eq!(Target::parse("/api/users/?a=b%20c&x=%3B").unwrap().raw, ["api", "users"]);
        assert_eq!(Target::parse("/").unwrap().raw, [""; 0]);
        assert_eq!(Target::parse("/api/users/Zo%C3%AB").unwrap().decoded[2], "Zoë");
        assert_eq!(Target::parse("/api/users/%E5%B1%B1%E7%94%B0").unwrap().decoded[2], "山田");
    }

    #[test]
    fn every_second_reading_is_refused() {
        for (target, error) in [
            ("/api/channels/ID;x=1/_stop", TargetError::Matrix),
            ("/api/channels/ID/_stop;y", TargetError::Matrix),
            ("/api/channels%3Bv=1/ID", TargetError::Matrix),
            ("/api//channels", TargetError::EmptySegment),
            ("//api/channels", TargetError::EmptySegment),
            ("/api/channels//", TargetError::EmptySegment),
            ("//", TargetError::EmptySegment),
            ("/api/./channels", TargetError::DotSegment),
            ("/api/x/../channels", TargetError::DotSegment),
            ("/api/%2e%2E/channels", TargetError::DotSegment),
            ("/api/channels/a%2Fb", TargetError::Encoding),
            ("/api/channels/a%5Cb", TargetError::Encoding),
            ("/api/channels/a%252Fb", TargetError::Encoding),
            ("/api/channels/a%00", TargetError::Encoding),
            ("/api/channels/a%0D%0Ab", TargetError::Encoding),
            ("/api/channels/%5Fstop", TargetError::Encoding),
            ("/api/channels/%73top", TargetError::Encoding),
            ("/api/channels/%c0%af", TargetError::Encoding),
            ("/api/channels/%ef%bc%bfstop", TargetError::Encoding),
            ("/api/channels/x%e2%88%95_stop", TargetError::Encoding),
            ("/api/channels/x%3F", TargetError::Encoding),
            ("/api/channels/x%23", TargetError::Encoding),
            ("/api/channels/%", TargetError::Encoding),
            ("/api/channels/%2", TargetError::Encoding),
            ("/api/channels/%zz", TargetError::Encoding),
            ("http://engine/api/channels", TargetError::NotAPath),
            ("*", TargetError::NotAPath),
            ("engine:8443", TargetError::NotAPath),
            ("", TargetError::NotAPath),
            ("/api/a\\b", TargetError::Character),
            ("/api/a#b", TargetError::Character),
        ] {
            assert_eq!(Target::parse(target).map(|t| t.decoded), Err(error), "{target}");
        }
        assert_eq!(Target::parse(&format!("/{}", "a".repeat(MAX_TARGET_LEN))), Err(TargetError::TooLong));
    }
}
