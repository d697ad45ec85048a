//! The engine's answers: their head read and written anew, and the start file of the Administrator led back to the gateway.

use std::fmt::Write as _;

use super::head::{Field, Framing, HeadError, fields, head_len, length, single, split_lines, tokens};
use super::operation::Method;
use super::redact::{RedactError, Redaction, Redactor};

/// The longest body of an error that is masked, in bytes; the engine's stack traces have some ten thousand.
pub const MAX_ERROR_LEN: usize = 256 << 10;

/// Fields of an answer that do not reach the client: those of the hop, and the engine's invitation to every web page.
const DROPPED: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Fields of an answer that say where something else is.
const LEADING: [&str; 2] = ["location", "content-location"];

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerHead {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// All fields.
    pub fields: Vec<Field>,
    /// The body.
    pub framing: Framing,
    /// The engine closes after it.
    pub close: bool,
}

impl AnswerHead {
    /// The length of the head at the start of `bytes`, once it is complete.
    pub fn len(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        head_len(bytes)
    }

    /// Reads a complete head; `method` is that of the request.
    pub fn parse(head: &[u8], method: Method) -> Result<Self, HeadError> {
        let text = head.strip_suffix(b"\r\n\r\n").ok_or(HeadError::Field)?;
        let mut lines = split_lines(text);
        let line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let rest = line.strip_prefix("HTTP/1.1 ").ok_or(HeadError::Version)?;
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let status = status.parse().ok().filter(|status| (100..600).contains(status)).ok_or(HeadError::RequestLine)?;
        let fields = fields(lines, true)?;
        let framing = match status {
            100..=199 | 204 | 304 => Framing::None,
            _ if method == Method::Head => Framing::None,
            _ => body_framing(&fields)?,
        };
        let close =
            framing == Framing::UntilClose || tokens(&fields, "connection").iter().any(|token| token == "close");
        Ok(Self { status, reason: reason.to_owned(), fields, framing, close })
    }

    /// The value of a field that may stand once.
    pub fn single(&self, name: &str) -> Option<&str> {
        single(&self.fields, name).ok().flatten()
    }

    /// Whether the body is compressed, or otherwise not what its content type says.
    pub fn is_encoded(&self) -> bool {
        let mut codings = self.fields.iter().filter(|field| field.name == "content-encoding");
        codings.any(|field| !field.value.eq_ignore_ascii_case("identity"))
    }

    /// The head for the client, with the body delimited as told.
    pub fn for_client(&self, framing: Framing, close: bool) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason);
        for field in &self.fields {
            let of_a_head = field.name == "content-length" && framing == Framing::None && self.status >= 200;
            let dropped = DROPPED.contains(&field.name.as_str()) || field.name.starts_with("access-control-");
            if !dropped || of_a_head {
                let _ = write!(text, "{}: {}\r\n", field.name, field.value);
            }
        }
        match framing {
            Framing::Length(length) => {
                let _ = write!(text, "Content-Length: {length}\r\n");
            }
            Framing::Chunked => text.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        if close {
            text.push_str("Connection: close\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// For the client of a call whose answers are masked: of where it leads no more than the place. What follows `?` or `#` may be
    /// whatever a plug-in or proxy put there.
    pub fn without_queries(mut self) -> Self {
        for field in self.fields.iter_mut().filter(|field| LEADING.contains(&field.name.as_str())) {
            let place = field.value.find(['?', '#']).unwrap_or(field.value.len());
            field.value.truncate(place);
        }
        self
    }

    /// An error, whole, for the client of a call whose answers are masked: it may hold what the answer would have held. `body` is
    /// that of the engine; none: it is longer than [`MAX_ERROR_LEN`]. What cannot be masked is left out: the Administrator shows
    /// the status and its phrase all the same.
    pub fn masked_error(&self, redaction: Redaction, body: Option<&[u8]>) -> Vec<u8> {
        let Some(body) = body.and_then(|body| self.masked(redaction, body)) else {
            let mut bare = self.clone();
            bare.fields.retain(|field| !field.name.starts_with("content-"));
            return bare.for_client(Framing::Length(0), false);
        };
        let mut answer = self.for_client(Framing::Length(body.len() as u64), false);
        answer.extend_from_slice(&body);
        answer
    }

    fn masked(&self, redaction: Redaction, body: &[u8]) -> Option<Vec<u8>> {
        // With every value masked nothing of a stack trace is left that the Administrator could read.
        if self.is_encoded() || redaction == Redaction::Values {
            return None;
        }
        // An error is not the text that the call asks for.
        let redaction = if redaction == Redaction::Text { Redaction::Passwords } else { redaction };
        let mask = || -> Result<Vec<u8>, RedactError> {
            let mut redactor = Redactor::new(redaction, self.single("content-type").unwrap_or_default())?;
            let mut output = Vec::with_capacity(body.len());
            redactor.update(body, &mut output)?;
            redactor.finish(&mut output);
            Ok(output)
        };
        mask().ok()
    }
}

fn body_framing(fields: &[Field]) -> Result<Framing, HeadError> {
    match (single(fields, "content-length"), single(fields, "transfer-encoding")) {
        (Ok(None), Ok(None)) => Ok(Framing::UntilClose),
        (Ok(Some(text)), Ok(None)) => length(text).map(Framing::Length).ok_or(HeadError::Length),
        (Ok(None), Ok(Some(coding))) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        _ => Err(HeadError::Length),
    }
}

/// An answer of the gateway itself: the reason stands in the status line, which the Administrator shows, and in the body.
pub fn own_answer(status: u16, reason: &str, close: bool) -> Vec<u8> {
    let body = format!("{reason}\n");
    let close = if close { "Connection: close\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{close}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Leads a start file (JNLP) back to the gateway: the engine writes its own HTTPS port into the argument that names the
/// server, whatever port it was asked on. `host` is host and port the client used.
pub fn rewrite_start_file(text: &str, host: &str) -> String {
    let mut rewritten = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some((at, mark)) = next_mark(rest) {
        let (before, after) = rest.split_at(at + mark.len());
        rewritten.push_str(before);
        rest = after;
        let Some(address) = rest.strip_prefix("https://").or_else(|| rest.strip_prefix("http://")) else { continue };
        let end = address.find(['/', '<', '"', '\'', '?']).unwrap_or(address.len());
        let _ = write!(rewritten, "https://{host}");
        rest = &address[end..];
    }
    rewritten.push_str(rest);
    rewritten
}

/// Where the server's address stands in a start file.
fn next_mark(text: &str) -> Option<(usize, &'static str)> {
    ["<argument>", "codebase=\""].into_iter().filter_map(|mark| text.find(mark).map(|at| (at, mark))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_written_without_the_fields_of_the_hop() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\nAccess-Control-Allow-Origin: *\r\nSet-Cookie: a=b; Path=/api; Secure\r\n\r\n";
        let answer = AnswerHead::parse(head, Method::Get).unwrap();
        assert_eq!((answer.status, answer.framing, answer.close), (200, Framing::Chunked, false));
        let written = String::from_utf8(answer.for_client(Framing::Chunked, false)).unwrap();
        assert_eq!(
            written,
            "HTTP/1.1 200 OK\r\nserver: x\r\nset-cookie: a=b; Path=/api; Secure\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn answers_without_a_body_have_none() {
        let framing = |head: &[u8], method| AnswerHead::parse(head, method).map(|answer| answer.framing);
        assert_eq!(framing(b"HTTP/1.1 204 No Content\r\n\r\n", Method::Post), Ok(Framing::None));
        assert_eq!(framing(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Method::Get), Ok(Framing::None));
        assert_eq!(framing(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Method::Head), Ok(Framing::None));
        assert_eq!(framing(b"HTTP/1.1 200 OK\r\n\r\n", Method::Get), Ok(Framing::UntilClose));
        assert_eq!(
            framing(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get),
            Err(HeadError::Length)
        );
        let head = AnswerHead::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Method::Head).unwrap();
        assert!(String::from_utf8(head.for_client(Framing::None, false)).unwrap().contains("content-length: 9"));
    }

    #[test]
    fn a_body_is_plain_only_where_no_field_says_otherwise() {
        let is_encoded = |fields: &str| {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 9\r\n\r\n");
            AnswerHead::parse(head.as_bytes(), Method::Get).unwrap().is_encoded()
        };
        assert!(!is_encoded("") && !is_encoded("Content-Encoding: Identity\r\n"));
        assert!(is_encoded("Content-Encoding: gzip\r\n") && is_encoded("Content-Encoding: identity, gzip\r\n"));
        let twice = ["Content-Encoding: identity\r\n", "Content-Encoding: gzip\r\n"];
        assert!(is_encoded(&twice.concat()) && is_encoded(&[twice[1], twice[0]].concat()));
    }

    #[test]
    fn an_error_passes_masked_or_with_its_status_alone() {
        const SECRET: &str = "<error><message>no such channel</message><password>s3cret</password></error>";
        let passes = |fields: &str, redaction, body: Option<&str>| {
            let head = format!("HTTP/1.1 500 Server Error\r\n{fields}Content-Length: 9\r\n\r\n");
            let answer = AnswerHead::parse(head.as_bytes(), Method::Get).unwrap();
            String::from_utf8(answer.masked_error(redaction, body.map(str::as_bytes))).unwrap()
        };
        let xml = "Content-Type: application/xml\r\n";
        let masked = SECRET.replace("s3cret", "********");
        let length = masked.len();
        let head = "HTTP/1.1 500 Server Error\r\ncontent-type: application/xml";
        for redaction in [Redaction::Passwords, Redaction::Text] {
            let expected = format!("{head}\r\nContent-Length: {length}\r\n\r\n{masked}");
            assert_eq!(passes(xml, redaction, Some(SECRET)), expected, "{redaction:?}");
        }
        let packed = format!("{xml}Content-Encoding: gzip\r\n");
        for (fields, redaction, body) in [
            (xml, Redaction::Values, Some(SECRET)),
            (xml, Redaction::Passwords, None),
            (xml, Redaction::Passwords, Some("password=s3cret")),
            ("Content-Type: text/plain\r\n", Redaction::Text, Some("password=s3cret")),
            ("Content-Type: text/html\r\n", Redaction::Text, Some(SECRET)),
            (packed.as_str(), Redaction::Passwords, Some(SECRET)),
            ("Content-Type: text/html\r\n", Redaction::Events, Some(SECRET)),
            ("", Redaction::Passwords, Some(SECRET)),
        ] {
            let bare = "HTTP/1.1 500 Server Error\r\nContent-Length: 0\r\n\r\n";
            assert_eq!(passes(fields, redaction, body), bare, "{fields} {redaction:?}");
        }
    }

    #[test]
    fn a_redirect_of_a_masked_call_leads_to_its_place_and_tells_no_more() {
        let leads_to = |place: &str| {
            let head = format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nETag: a?b\r\n\r\n");
            let answer = AnswerHead::parse(head.as_bytes(), Method::Get).unwrap().without_queries();
            assert_eq!(answer.single("etag"), Some("a?b"));
            answer.single("location").map(str::to_owned)
        };
        for query in ["", "?password=s3cret", "#s3cret", "?a#b?c", "?"] {
            assert_eq!(leads_to(&format!("https://a.example/b{query}")).as_deref(), Some("https://a.example/b"));
        }
    }

    #[test]
    fn the_start_file_leads_back_to_the_gateway() {
        let file = "<jnlp codebase=\"https://gw.example:18443\" version=\"4.5.2\"><application-desc main-class=\"x\">\
            <argument>https://gw.example:8443</argument><argument>4.5.2</argument></application-desc></jnlp>";
        let rewritten = rewrite_start_file(file, "gw.example:18443");
        assert_eq!(rewritten, file.replace("gw.example:8443", "gw.example:18443"));
        let fixed = "<jnlp codebase=\"http://engine:8080/mirth\"><argument>https://engine:8443/mirth</argument></jnlp>";
        let expected = "<jnlp codebase=\"https://gw:1/mirth\"><argument>https://gw:1/mirth</argument></jnlp>";
        assert_eq!(rewrite_start_file(fixed, "gw:1"), expected);
    }

    #[test]
    fn the_reason_stands_where_the_administrator_shows_it() {
        let answer =
            String::from_utf8(own_answer(403, "read-only through gateway: stop channel is not permitted", false))
                .unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 read-only through gateway: stop channel is not permitted\r\n"));
    }
}
