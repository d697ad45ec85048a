//! The guard against servers that read paths in their own ways: whatever passes as a read is a read for each of them.
//!
//! The engine drops matrix parameters from every segment, decodes percent-encoding, and takes a trailing slash. Other servers, and
//! later engines, also decode twice, fold dot segments and empty ones, or ignore upper and lower case. For requests made of
//! pieces of real ones and of everything that ever got past a filter, the guard's verdict is compared with what each of
//! these readers would do.

use gateway_proto::{
    admin::{
        guard::Guard,
        head::{RequestHead, head_len},
        operation::{Class, operations},
    },
    policy::{AdminScope, ConnectionKind},
};
use proptest::prelude::*;

/// Ways of reading a path.
#[derive(Debug, Clone, Copy)]
struct Reader {
    decodes: u8,
    folds: bool,
    ignores_case: bool,
    /// Whether `;…` is cut before or after decoding.
    cuts_matrix_late: bool,
}

fn readers() -> impl Iterator<Item = Reader> {
    (0..24u8).map(|n| Reader { decodes: n % 3, folds: n & 4 != 0, ignores_case: n & 8 != 0, cuts_matrix_late: n >= 12 })
}

impl Reader {
    fn path(self, target: &str) -> Vec<String> {
        let target = target.split(['?', '#']).next().unwrap_or_default();
        let target = target.split_once("://").map_or(target, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let cut = |path: &str| -> String {
            let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
            segments.collect::<Vec<_>>().join("/")
        };
        let mut path = if self.cuts_matrix_late { target.to_owned() } else { cut(target) };
        for _ in 0..self.decodes {
            path = decode(&path);
        }
        if self.cuts_matrix_late {
            path = cut(&path);
        }
        let mut segments: Vec<String> = Vec::new();
        for segment in path.replace('\\', "/").split('/').skip(1) {
            match segment {
                "" | "." if self.folds => {}
                ".." if self.folds => {
                    segments.pop();
                }
                segment => segments.push(if self.ignores_case { segment.to_lowercase() } else { segment.to_owned() }),
            }
        }
        if segments.last().is_some_and(String::is_empty) {
            segments.pop();
        }
        segments
    }

    /// The class of what this reader would do; none: nothing.
    fn class(self, method: &str, target: &str) -> Option<Class> {
        let path = self.path(target);
        let same =
            |one: &str, other: &str| if self.ignores_case { one.eq_ignore_ascii_case(other) } else { one == other };
        let rest = path.split_first().filter(|(first, _)| same(first, "api"))?.1;
        let rest = match rest.split_first() {
            Some((version, rest)) if version.starts_with(|c: char| c.is_ascii_digit()) => rest,
            _ => rest,
        };
        let method = if method == "HEAD" { "GET" } else { method };
        let fits = |template: &str| {
            let wanted: Vec<_> = template.split('/').skip(1).collect();
            wanted.len() == rest.len() && wanted.iter().zip(rest).all(|(w, s)| w.starts_with('{') || same(w, s))
        };
        let found = operations().iter().filter(|o| o.method.name() == method && fits(o.template));
        found.min_by_key(|operation| operation.template.matches('{').count()).map(|operation| operation.class)
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let pair =
            bytes.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (bytes[at], pair) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 3;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// A real operation's path, bent.
fn target() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => Just(String::new()),
        1 => Just(";x=1".to_owned()),
        1 => Just("%3Bx".to_owned()),
        1 => Just("/".to_owned()),
        1 => Just("/.".to_owned()),
        1 => Just("/..".to_owned()),
        1 => Just("%2f".to_owned()),
        1 => Just("/%2e%2e".to_owned()),
        1 => Just("%252e".to_owned()),
        1 => Just("/_stop".to_owned()),
        1 => Just("/%5Fstop".to_owned()),
        1 => Just("%00".to_owned()),
        1 => Just("\\..\\_stop".to_owned()),
        1 => Just("?_method=DELETE".to_owned()),
        1 => Just("%20x".to_owned()),
        1 => "[a-zA-Z_;./%0-9]{1,6}",
    ];
    let value = prop_oneof![
        4 => Just("a0000000-0000-0000-0000-000000000001".to_owned()),
        1 => Just("_stop".to_owned()),
        1 => Just("_STOP".to_owned()),
        1 => Just("JMS%20Sender".to_owned()),
        1 => Just("a%2F_stop".to_owned()),
        1 => "[a-z0-9_%;.]{1,8}",
    ];
    let api = prop_oneof![4 => Just("/api"), 2 => Just("/api/4.5.2"), 1 => Just("/API"), 1 => Just("//api"), 1 => Just("https://h/api")];
    let which = 0..operations().len();
    (api, which, prop::collection::vec((piece, value), 8), any::<u32>()).prop_map(|(api, which, bends, bits)| {
        let mut text = api.to_owned();
        for (at, segment) in operations()[which].template.split('/').skip(1).enumerate() {
            let (piece, value) = &bends[at % bends.len()];
            text.push('/');
            let literal = if bits & (1 << at) == 0 { segment.to_owned() } else { bend(segment, bits >> 8) };
            text.push_str(if segment.starts_with('{') { value } else { &literal });
            if bits & (1 << (at + 16)) != 0 {
                text.push_str(piece);
            }
        }
        text
    })
}

/// Another spelling of a literal segment.
fn bend(segment: &str, bits: u32) -> String {
    match bits % 5 {
        0 => segment.to_uppercase(),
        1 => segment.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        2 => segment.replacen('_', "%5F", 1),
        3 => segment.replacen('_', "%255F", 1),
        _ => segment.to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_passes_as_a_read_is_a_read_however_it_is_read(
        method in prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE"]),
        target in target(),
    ) {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let Ok(Some(length)) = head_len(text.as_bytes()) else { return Ok(()) };
        let Ok(head) = RequestHead::parse(&text.as_bytes()[..length]) else { return Ok(()) };
        let scope = AdminScope { patient_data: true, ..AdminScope::default() };
        let Ok(pass) = Guard::new(ConnectionKind::AdminReadOnly, scope, "").judge(&head) else { return Ok(()) };
        prop_assert!(!matches!(pass.class, Class::Write | Class::Probe));
        for reader in readers() {
            let class = reader.class(method, &target);
            prop_assert!(
                !matches!(class, Some(Class::Write | Class::Probe)),
                "{method} {target} passes as {} and is {class:?} for {reader:?}", pass.class
            );
            // A value in other letters than a literal is another resource to the engine.
            if let (Some(class), Some(_), false) = (class, &pass.api, reader.ignores_case) {
                prop_assert_eq!(class, pass.class, "{} {} for {:?}", method, target, reader);
            }
        }
    }

    #[test]
    fn no_head_makes_the_guard_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), start in any::<bool>()) {
        let mut head = if start { b"GET /api/ HTTP/1.1\r\nHost: h\r\n".to_vec() } else { Vec::new() };
        head.extend(bytes);
        head.extend(b"\r\n\r\n");
        if let Ok(Some(length)) = head_len(&head)
            && let Ok(head) = RequestHead::parse(&head[..length])
        {
            let _ = Guard::new(ConnectionKind::AdminReadWrite, AdminScope::default(), "").judge(&head);
        }
    }
}

#[test]
fn the_readers_do_what_was_measured_on_the_engine() {
    let engine = Reader { decodes: 1, folds: false, ignores_case: false, cuts_matrix_late: false };
    for (method, target, class) in [
        ("POST", "/api/channels/ID;x=1/_stop", Some(Class::Write)),
        ("POST", "/api/channels;v=1/ID/_start", Some(Class::Write)),
        ("POST", "/api/channels/ID/_stop;y", Some(Class::Write)),
        ("POST", "/api/4.5.2/channels/_stop/", Some(Class::Write)),
        ("GET", "/api/extensions/JMS%20Sender/enabled", Some(Class::Read)),
        ("GET", "/api//channels", None),
        ("GET", "/api/CHANNELS", None),
    ] {
        assert_eq!(engine.class(method, target), class, "{method} {target}");
    }
    let folding = readers().find(|reader| reader.folds && reader.decodes == 2).unwrap();
    assert_eq!(folding.class("POST", "/api/alerts/%252e%252e/channels/_stop"), Some(Class::Write));
}
