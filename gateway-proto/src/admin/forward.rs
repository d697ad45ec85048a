//! The head that the owner's gateway writes to the engine: built anew from what was understood, never copied.

use std::fmt::Write as _;

use super::{
    guard::Pass,
    head::{Framing, RequestHead},
};

/// Fields that reach the engine. Whatever else a client sends is dropped: method overrides, ranges, forwarding headers.
const PASSED: [&str; 15] = [
    "accept",
    "accept-language",
    "accept-encoding",
    "cache-control",
    "content-type",
    "cookie",
    "if-modified-since",
    "if-none-match",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "x-requested-with",
    "x-mirth-server-url",
    "x-mirth-login-data",
];
/// The engine stores the address of an event in a column of this many characters.
const MAX_FORWARDED_LEN: usize = 40;

/// The value of `X-Forwarded-For`: the engine writes it into its own audit trail, so it names the person and the partner.
pub fn forwarded_for(user: &str, server: &str, organization: &str) -> String {
    let clean = |text: &str, limit: usize| -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        text.chars().take(limit).map(plain).collect()
    };
    let mut text = format!("{}@{}", clean(user, 16), clean(server, 12));
    let left = MAX_FORWARDED_LEN.saturating_sub(text.len() + 1);
    text.push('.');
    text.push_str(&clean(organization, left));
    text
}

/// The request head for the engine. `host` is the client's, so that what the engine builds from it leads back here.
pub fn engine_head(head: &RequestHead, pass: &Pass, forwarded_for: &str) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", head.method.name(), head.target, head.host);
    for field in &head.fields {
        let masked_answer = pass.redaction.is_some() || pass.start_file;
        // What is changed on the way must come uncompressed.
        if field.name == "accept-encoding" && masked_answer {
            continue;
        }
        if PASSED.contains(&field.name.as_str()) || (field.name == "authorization" && pass.api.is_some()) {
            let _ = write!(text, "{}: {}\r\n", field.name, field.value);
        }
    }
    match head.framing {
        Framing::Length(length) => {
            let _ = write!(text, "Content-Length: {length}\r\n");
        }
        Framing::Chunked => text.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::None if head.method.has_body() => text.push_str("Content-Length: 0\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
    let _ = write!(text, "X-Forwarded-For: {forwarded_for}\r\n\r\n");
    text.into_bytes()
}

/// A request of our own that asks the engine whether it knows the session of `head`: without a body, so that nothing
/// is deserialized before the answer.
pub fn session_check(head: &RequestHead, api: &str, forwarded_for: &str) -> Vec<u8> {
    let mut text = format!("GET {api}/users/current HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n", head.host);
    text.push_str("X-Requested-With: gateway\r\n");
    for field in head.fields.iter().filter(|field| ["cookie", "authorization"].contains(&field.name.as_str())) {
        let _ = write!(text, "{}: {}\r\n", field.name, field.value);
    }
    let _ = write!(text, "X-Forwarded-For: {forwarded_for}\r\n\r\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::guard::Guard,
        policy::{AdminScope, ConnectionKind},
    };

    #[test]
    fn only_known_fields_reach_the_engine_and_the_partner_is_named() {
        let head = "POST /api/channels/_getSummary?x=1 HTTP/1.1\r\nHost: gw:1\r\nX-Requested-With: a\r\nX-Forwarded-For: 10.0.0.1\r\n\
            Forwarded: for=1\r\nX-HTTP-Method-Override: DELETE\r\nX-Forwarded-Host: e\r\nConnection: close\r\nRange: bytes=0-1\r\n\
            Accept-Encoding: gzip\r\nCookie: JSESSIONID=1\r\nContent-Length: 5\r\n\r\n";
        let head = RequestHead::parse(head.as_bytes()).unwrap();
        let pass = Guard::new(ConnectionKind::AdminReadOnly, AdminScope::default(), "").judge(&head).unwrap();
        let identity = forwarded_for("maria", "main server", "St. Anna Hospital of the North");
        assert_eq!(identity, "maria@main_server.St._Anna_Hospital_of_t");
        let expected = format!(
            "POST /api/channels/_getSummary?x=1 HTTP/1.1\r\nHost: gw:1\r\nx-requested-with: a\r\ncookie: JSESSIONID=1\r\n\
             Content-Length: 5\r\nX-Forwarded-For: {identity}\r\n\r\n"
        );
        assert_eq!(String::from_utf8(engine_head(&head, &pass, &identity)).unwrap(), expected);
        let check = String::from_utf8(session_check(&head, "/api", &identity)).unwrap();
        assert!(check.starts_with("GET /api/users/current HTTP/1.1\r\n") && check.contains("cookie: JSESSIONID=1\r\n"));
    }

    #[test]
    fn the_identity_fits_the_column_of_the_engine() {
        assert!(forwarded_for(&"u".repeat(64), &"s".repeat(99), &"o".repeat(99)).len() <= MAX_FORWARDED_LEN);
    }
}
