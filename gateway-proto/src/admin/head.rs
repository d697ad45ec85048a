//! The head of an HTTP/1.1 request, read strictly: what another server could read in another way is an error.
//!
//! The owner's gateway never forwards the bytes it read. It writes a new head from what was understood here, so nothing
//! can be smuggled past it: no second length, no folded line, no bare CR or LF, no other version.

use super::operation::Method;

/// The longest head, in bytes, the empty line included.
pub const MAX_HEAD_LEN: usize = 16 << 10;
/// Header fields at most.
const MAX_FIELDS: usize = 64;

/// How the body of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything up to the end of the connection; answers only.
    UntilClose,
}

/// A header field. The name is in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value, without surrounding white space.
    pub value: String,
}

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target as sent, not judged yet.
    pub target: String,
    /// The value of `Host`.
    pub host: String,
    /// All fields, in the order sent.
    pub fields: Vec<Field>,
    /// The body.
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client closes after the answer.
    pub close: bool,
}

/// Why a head was refused. The connection ends with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Above [`MAX_HEAD_LEN`], or too many fields.
    #[error("the request head is too large")]
    TooLarge,
    /// Not a request line of HTTP/1.1.
    #[error("the request line is malformed")]
    RequestLine,
    /// Another version of HTTP.
    #[error("only HTTP/1.1 is spoken here")]
    Version,
    /// A method that never passes.
    #[error("the method is not permitted through the gateway")]
    Method,
    /// A field line that is not one, or has more than one reading.
    #[error("a header field is malformed")]
    Field,
    /// `Host` is missing, repeated or no host.
    #[error("the Host header is missing, repeated or malformed")]
    Host,
    /// The body's length is ambiguous.
    #[error("the length of the body is ambiguous")]
    Length,
    /// An upgrade to another protocol.
    #[error("upgrades are not permitted through the gateway")]
    Upgrade,
    /// An expectation other than `100-continue`.
    #[error("the expectation is not known")]
    Expectation,
}

impl HeadError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge => 431,
            Self::Version => 505,
            Self::Method => 405,
            Self::Expectation => 417,
            Self::Upgrade => 403,
            Self::RequestLine | Self::Field | Self::Host | Self::Length => 400,
        }
    }
}

/// The length of the head at the start of `bytes`, once it is complete. An error is found as soon as it can be.
pub fn head_len(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let seen = &bytes[..bytes.len().min(MAX_HEAD_LEN)];
    let mut line_start = true;
    let mut previous = 0;
    for (at, byte) in seen.iter().enumerate() {
        match byte {
            b'\n' if previous != b'\r' => return Err(HeadError::Field),
            b'\n' if at == 1 => return Err(HeadError::RequestLine),
            b'\n' if line_start => return Ok(Some(at + 1)),
            b'\n' => line_start = true,
            b'\r' if previous == b'\r' => return Err(HeadError::Field),
            b'\r' => {}
            _ if previous == b'\r' => return Err(HeadError::Field),
            _ => line_start = false,
        }
        previous = *byte;
    }
    if bytes.len() >= MAX_HEAD_LEN { Err(HeadError::TooLarge) } else { Ok(None) }
}

impl RequestHead {
    /// Reads a complete head, its empty line included.
    pub fn parse(head: &[u8]) -> Result<Self, HeadError> {
        let text = head.strip_suffix(b"\r\n\r\n").ok_or(HeadError::Field)?;
        let mut lines = split_lines(text);
        let line = lines.next().ok_or(HeadError::RequestLine)?;
        let (method, target) = request_line(line)?;
        let fields = fields(lines, false)?;
        let host = single(&fields, "host").map_err(|()| HeadError::Host)?.ok_or(HeadError::Host)?;
        if host.is_empty()
            || host.len() > 255
            || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b))
        {
            return Err(HeadError::Host);
        }
        let connection = tokens(&fields, "connection");
        let upgrades = ["upgrade", "http2-settings"].iter().any(|name| fields.iter().any(|f| f.name == *name));
        if upgrades || connection.iter().any(|token| token == "upgrade") {
            return Err(HeadError::Upgrade);
        }
        let expects_continue = match single(&fields, "expect").map_err(|()| HeadError::Expectation)? {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("100-continue") => true,
            Some(_) => return Err(HeadError::Expectation),
        };
        Ok(Self {
            method,
            target,
            host: host.to_owned(),
            framing: request_framing(&fields)?,
            expects_continue,
            close: connection.iter().any(|token| token == "close"),
            fields,
        })
    }

    /// The value of a field that may stand once; an error when it stands twice.
    pub fn single(&self, name: &str) -> Result<Option<&str>, HeadError> {
        single(&self.fields, name).map_err(|()| HeadError::Field)
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }
}

fn request_line(line: &[u8]) -> Result<(Method, String), HeadError> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::RequestLine);
    };
    if version != b"HTTP/1.1" {
        return Err(if version.starts_with(b"HTTP/") { HeadError::Version } else { HeadError::RequestLine });
    }
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return Err(HeadError::RequestLine);
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(HeadError::RequestLine);
    }
    let target = String::from_utf8_lossy(target).into_owned();
    Method::from_name(method).map(|method| (method, target)).ok_or(HeadError::Method)
}

/// Lines that end in CRLF; a bare CR or LF stays inside a line, where it is refused.
pub(super) fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        match memchr::memmem::find(current, b"\r\n") {
            Some(end) => {
                rest = Some(&current[end + 2..]);
                Some(&current[..end])
            }
            None => rest.take(),
        }
    })
}

/// Reads field lines. `lenient`: bytes above ASCII are taken in values, as the engine may send them.
pub(super) fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>, lenient: bool) -> Result<Vec<Field>, HeadError> {
    let mut fields = Vec::new();
    for line in lines {
        if fields.len() == MAX_FIELDS {
            return Err(HeadError::TooLarge);
        }
        let colon = memchr::memchr(b':', line).ok_or(HeadError::Field)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let visible = |b: &u8| matches!(b, 0x20..=0x7e | b'\t') || (lenient && *b >= 0x80);
        // A line that begins with white space is a folded one: its name is no token.
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) || !value.iter().all(visible) {
            return Err(HeadError::Field);
        }
        fields.push(Field {
            name: String::from_utf8_lossy(name).to_ascii_lowercase(),
            value: String::from_utf8_lossy(value).trim_matches([' ', '\t']).to_owned(),
        });
    }
    Ok(fields)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `Err` when the field stands more than once.
pub(super) fn single<'f>(fields: &'f [Field], name: &str) -> Result<Option<&'f str>, ()> {
    let mut found = fields.iter().filter(|field| field.name == name);
    let first = found.next();
    if found.next().is_some() { Err(()) } else { Ok(first.map(|field| field.value.as_str())) }
}

pub(super) fn tokens(fields: &[Field], name: &str) -> Vec<String> {
    let values = fields.iter().filter(|field| field.name == name);
    values.flat_map(|field| field.value.split(',')).map(|token| token.trim().to_ascii_lowercase()).collect()
}

/// A length: digits only, and not so many that a sum could overflow.
pub(super) fn length(text: &str) -> Option<u64> {
    ((1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn request_framing(fields: &[Field]) -> Result<Framing, HeadError> {
    let content_length = single(fields, "content-length").map_err(|()| HeadError::Length)?;
    let transfer_encoding = single(fields, "transfer-encoding").map_err(|()| HeadError::Length)?;
    match (content_length, transfer_encoding) {
        (None, None) => Ok(Framing::None),
        (Some(text), None) => length(text).map(Framing::Length).ok_or(HeadError::Length),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (None | Some(_), Some(_)) => Err(HeadError::Length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<RequestHead, HeadError> {
        match head_len(head.as_bytes())? {
            Some(length) => RequestHead::parse(&head.as_bytes()[..length]),
            None => Err(HeadError::RequestLine),
        }
    }

    #[test]
    fn a_plain_head_is_read() {
        let head = read(
            "POST /api/users/_login HTTP/1.1\r\nHost: gw:8443\r\nContent-Length: 12\r\nX-Requested-With: x\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (head.method, head.target.as_str(), head.host.as_str()),
            (Method::Post, "/api/users/_login", "gw:8443")
        );
        assert_eq!(head.framing, Framing::Length(12));
        assert_eq!(head.single("x-requested-with"), Ok(Some("x")));
        let chunked =
            read("PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n").unwrap();
        assert!(chunked.framing == Framing::Chunked && chunked.expects_continue);
    }

    #[test]
    fn whatever_has_a_second_reading_is_refused() {
        let get = |rest: &str| read(&format!("GET / HTTP/1.1\r\nHost: h\r\n{rest}\r\n"));
        for (rest, error) in [
            ("Content-Length: 1\r\nContent-Length: 1\r\n", HeadError::Length),
            ("Content-Length: 1, 1\r\n", HeadError::Length),
            ("Content-Length: +1\r\n", HeadError::Length),
            ("Content-Length: 0x1\r\n", HeadError::Length),
            ("Content-Length:\r\n", HeadError::Length),
            ("Content-Length: 9999999999999999\r\n", HeadError::Length),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", HeadError::Length),
            ("Transfer-Encoding: gzip, chunked\r\n", HeadError::Length),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HeadError::Length),
            ("Transfer-Encoding: xchunked\r\n", HeadError::Length),
            ("Transfer-Encoding : chunked\r\n", HeadError::Field),
            ("X: a\r\n b\r\n", HeadError::Field),
            ("X: a\rb\r\n", HeadError::Field),
            ("X: a\nb\r\n", HeadError::Field),
            ("X: a\0b\r\n", HeadError::Field),
            ("X: \u{e4}\r\n", HeadError::Field),
            ("no colon\r\n", HeadError::Field),
            (": empty\r\n", HeadError::Field),
            ("Host: other\r\n", HeadError::Host),
            ("Upgrade: websocket\r\n", HeadError::Upgrade),
            ("Connection: keep-alive, Upgrade\r\n", HeadError::Upgrade),
            ("HTTP2-Settings: x\r\n", HeadError::Upgrade),
            ("Expect: 200-ok\r\n", HeadError::Expectation),
        ] {
            assert_eq!(get(rest), Err(error), "{rest:?}");
        }
        for (head, error) in [
            ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", HeadError::Version),
            ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", HeadError::Version),
            ("GET /\r\nHost: h\r\n\r\n", HeadError::RequestLine),
            ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::RequestLine),
            ("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::RequestLine),
            ("GET / x HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::RequestLine),
            ("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::RequestLine),
            ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::Method),
            ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::Method),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::Method),
            ("get / HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::Method),
            ("GET / HTTP/1.1\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\nHost: h\n\n", HeadError::Field),
        ] {
            assert_eq!(read(head), Err(error), "{head:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit_and_not_before() {
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(MAX_HEAD_LEN));
        assert_eq!(head_len(&endless.as_bytes()[..MAX_HEAD_LEN - 1]), Ok(None));
        assert_eq!(head_len(endless.as_bytes()), Err(HeadError::TooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS));
        assert_eq!(read(&many), Err(HeadError::TooLarge));
    }
}
