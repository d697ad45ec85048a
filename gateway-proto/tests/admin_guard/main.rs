//! The guard against servers that read paths in their own ways: whatever passes as a read is a read for each of them.
//!
//! The engine drops matrix parameters from every segment, decodes percent-encoding, and takes a trailing slash. Other servers, and
//! later engines, also decode twice, fold dot segments and empty ones, ignore upper and lower case, or take a full-width
//! or overlong character for the ASCII one. For requests made of pieces of real ones and of everything that ever got past
//! a filter, the guard's verdict is compared with what each of these readers would do. The same is done for heads: what
//! is written to the engine is one request with one body, however lines, folds and lengths are read.
//!
//! `GATEWAY_FUZZ_CASES` sets how many requests are tried.

mod stream;

use gateway_proto::{
    admin::{
        forward::engine_head,
        guard::Guard,
        head::{Framing, RequestHead, head_len},
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
    /// Whether overlong UTF-8 and characters that resemble ASCII ones are taken for them.
    best_fit: bool,
}

fn readers() -> impl Iterator<Item = Reader> {
    (0..48u8).map(|n| {
        let (kind, best_fit) = (n % 24, n >= 24);
        Reader {
            decodes: kind % 3,
            folds: kind & 4 != 0,
            ignores_case: kind & 8 != 0,
            cuts_matrix_late: kind >= 12,
            best_fit,
        }
    })
}

fn cases(default: u32) -> ProptestConfig {
    let wanted = std::env::var("GATEWAY_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: wanted.unwrap_or(default), max_local_rejects: u32::MAX, ..ProptestConfig::default() }
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
            path = decode(&path, self.best_fit);
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

fn decode(text: &str, best_fit: bool) -> String {
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
    if !best_fit {
        return String::from_utf8_lossy(&plain).into_owned();
    }
    let ascii = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{2044}' | '\u{2215}' => '/',
        '\u{2024}' => '.',
        c => c,
    };
    // The one overlong form of every ASCII character that has two bytes.
    let mut shortened = Vec::new();
    let mut rest = plain.as_slice();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (0xc0 | 0xc1, [second @ 0x80..=0xbf, after @ ..]) => {
                shortened.push(((first & 1) << 6) | (second & 0x3f));
                rest = after;
            }
            _ => {
                shortened.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&shortened).chars().map(ascii).collect()
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
        1 => Just("%c0%af_stop".to_owned()),
        1 => Just("%c1%9fstop".to_owned()),
        1 => Just("%ef%bc%8f_stop".to_owned()),
        1 => Just("/%ef%bc%bfstop".to_owned()),
        1 => Just("%e2%88%95_stop".to_owned()),
        1 => Just("/..;/_stop".to_owned()),
        1 => Just("/%2e%2e;x/_stop".to_owned()),
        1 => Just("%3f".to_owned()),
        1 => Just("%23/_stop".to_owned()),
        1 => Just("/_stop.".to_owned()),
        1 => Just(".json".to_owned()),
        1 => Just(".html".to_owned()),
        1 => "[a-zA-Z_;./%0-9]{1,6}",
    ];
    let value = prop_oneof![
        4 => Just("a0000000-0000-0000-0000-000000000001".to_owned()),
        1 => Just("_stop".to_owned()),
        1 => Just("_STOP".to_owned()),
        1 => Just("JMS%20Sender".to_owned()),
        1 => Just("a%2F_stop".to_owned()),
        1 => Just("%EF%BC%BFstop".to_owned()),
        1 => Just("%C1%9Fstop".to_owned()),
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
    #![proptest_config(cases(40_000))]

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

/// Servers that negotiate by the ending of a path take it off before they look for what it names.
#[test]
fn an_ending_makes_no_page_of_an_operation_and_nothing_milder() {
    let guard = Guard::new(ConnectionKind::AdminReadOnly, AdminScope::default(), "");
    for operation in operations() {
        let value = |segment: &'static str| if segment.starts_with('{') { "1" } else { segment };
        let path = operation.template.split('/').map(value).collect::<Vec<_>>().join("/");
        for ending in [".json", ".xml", ".yaml", ".html", ".js", ".css", ".png", ".ico", ".map", ".txt", "."] {
            for (api, method) in [("/api", "GET"), ("/api/4.5.2", "GET"), ("/api", operation.method.name())] {
                let target = format!("{api}{path}{ending}");
                let text = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
                let head = RequestHead::parse(text.as_bytes()).unwrap();
                let Ok(pass) = guard.judge(&head) else { continue };
                // It passes as a value of a parameter: as an operation, with all that is done to its answer.
                assert!(pass.api.is_some(), "{method} {target} passes as {}", pass.template);
                if method != operation.method.name() {
                    continue;
                }
                match operation.class {
                    Class::Read | Class::Session | Class::Audit => {}
                    Class::ReadSecrets => assert!(pass.redaction.is_some(), "{method} {target}"),
                    Class::ReadPatients | Class::Probe | Class::Write => panic!("{method} {target} passes"),
                }
            }
        }
    }
}

/// One way of reading a head: what ends a line, whether a line that begins with a blank goes on, and which of two lines
/// with one name counts.
#[derive(Debug, Clone, Copy)]
struct HeadReader {
    ends: &'static [&'static str],
    folds: bool,
    last_counts: bool,
}

fn head_readers() -> impl Iterator<Item = HeadReader> {
    let ends: [&[&str]; 3] = [&["\r\n"], &["\r\n", "\n"], &["\r\n", "\n", "\r"]];
    ends.into_iter()
        .flat_map(|ends| (0..4u8).map(move |n| HeadReader { ends, folds: n & 1 != 0, last_counts: n & 2 != 0 }))
}

type Fields = Vec<(String, String)>;

impl HeadReader {
    /// The request line, the fields, and how many bytes the head has.
    fn read(self, mut text: &str) -> Option<(String, Fields, usize)> {
        let whole = text.len();
        let mut lines: Vec<String> = Vec::new();
        loop {
            let found = self.ends.iter().filter_map(|end| text.find(end).map(|at| (at, end.len())));
            let (at, length) = found.min_by_key(|(at, length)| (*at, usize::MAX - length))?;
            let line = &text[..at];
            text = &text[at + length..];
            if line.is_empty() && !lines.is_empty() {
                break;
            }
            match lines.last_mut() {
                Some(last) if self.folds && line.starts_with([' ', '\t']) => last.push_str(line),
                Some(_) | None => lines.push(line.to_owned()),
            }
        }
        let first = lines.remove(0);
        let fields = lines.iter().filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        Some((first, fields.collect(), whole - text.len()))
    }

    fn field<'f>(self, fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
        let mut found = fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str());
        if self.last_counts { found.next_back() } else { found.next() }
    }
}

/// The lines of a head, plain and bent, with every end a line ever had.
fn head() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "Content-Length: 5",
        "Content-Length: 0",
        "Content-Length : 5",
        "Content-Length: 5, 6",
        "content-length:5",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked, chunked",
        " Transfer-Encoding: chunked",
        "\tContent-Length: 7",
        "Host: other",
        "Cookie: JSESSIONID=a",
        "Cookie: JSESSIONID=b",
        "Accept: */*",
        "Content-Type: application/xml",
        "X-Requested-With: x\rContent-Length: 9",
        "X-Requested-With: x\nTransfer-Encoding: chunked",
        "User-Agent: x y",
        "User-Agent: \u{1}",
        "Referer: https://h/\tx",
        "Authorization: Basic YTpi",
        "Expect: 100-continue",
        "Connection: close",
        "X-Forwarded-For: 127.0.0.1",
        "X-HTTP-Method-Override: DELETE",
        ": x",
        "x",
        "",
    ]);
    let end =
        prop_oneof![30 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\r\n"), 1 => Just(" \r\n")];
    let start = prop::sample::select(vec![
        "GET /api/server/id HTTP/1.1",
        "POST /api/channels/_getSummary HTTP/1.1",
        "POST /api/channels/_getSummary?x=1 HTTP/1.1",
        "HEAD /api/channels HTTP/1.1",
        "POST /api/users/_logout HTTP/1.1",
        "GET  /api/server/id HTTP/1.1",
        "GET /api/server/id HTTP/1.0",
    ]);
    (start, end.clone(), prop::collection::vec((line, end), 0..6)).prop_map(|(start, end, lines)| {
        let fields: String = lines.iter().map(|(line, end)| format!("{line}{end}")).collect();
        format!("{start}{end}Host: h\r\n{fields}\r\n")
    })
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn what_is_written_to_the_engine_is_one_request_however_it_is_read(text in head()) {
        let Ok(Some(length)) = head_len(text.as_bytes()) else { return Ok(()) };
        let Ok(head) = RequestHead::parse(&text.as_bytes()[..length]) else { return Ok(()) };
        let Ok(pass) = Guard::new(ConnectionKind::AdminReadOnly, AdminScope::default(), "").judge(&head) else { return Ok(()) };
        let written = String::from_utf8(engine_head(&head, &pass, "maria@north.clinic")).unwrap();
        for reader in head_readers() {
            let (line, fields, read) = reader.read(&written).expect("a whole head");
            prop_assert_eq!(read, written.len(), "{:?} finds an end within {:?}", reader, written);
            prop_assert_eq!(line, format!("{} {} HTTP/1.1", head.method.name(), head.target));
            let names: std::collections::BTreeSet<_> = fields.iter().map(|(name, _)| name).collect();
            for name in ["host", "content-length", "transfer-encoding", "cookie", "authorization", "content-type", "x-forwarded-for"] {
                let times = fields.iter().filter(|(other, _)| other == name).count();
                prop_assert!(times <= 1, "{} stands {} times: {:?}", name, times, written);
            }
            let expected = match head.framing {
                Framing::Length(length) => (Some(length.to_string()), None),
                Framing::Chunked => (None, Some("chunked".to_owned())),
                Framing::None | Framing::UntilClose => (head.method.has_body().then(|| "0".to_owned()), None),
            };
            let found = (reader.field(&fields, "content-length"), reader.field(&fields, "transfer-encoding"));
            prop_assert_eq!((found.0.map(str::to_owned), found.1.map(str::to_owned)), expected, "{:?}", written);
            prop_assert_eq!(reader.field(&fields, "x-forwarded-for"), Some("maria@north.clinic"));
            prop_assert_eq!(reader.field(&fields, "host"), Some("h"));
            prop_assert!(!names.iter().any(|name| name.contains("override")));
        }
    }
}

#[test]
fn the_readers_do_what_was_measured_on_the_engine() {
    let engine = Reader { decodes: 1, folds: false, ignores_case: false, cuts_matrix_late: false, best_fit: false };
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
    assert_eq!(folding.class("POST", "/api/alerts/..;/channels/_stop"), Some(Class::Write));
    let tolerant = readers().find(|reader| reader.best_fit && reader.decodes == 1).unwrap();
    for target in ["/api/channels/%ef%bc%bfstop", "/api/channels/%c1%9fstop", "/api/channels%c0%af_stop"] {
        assert_eq!(tolerant.class("POST", target), Some(Class::Write), "{target}");
    }
    let lenient = HeadReader { ends: &["\r\n", "\n"], folds: true, last_counts: true };
    let (_, fields, _) = lenient.read("GET / HTTP/1.1\nContent-Length: 1\n a\nContent-Length: 2\n\n").unwrap();
    assert_eq!(lenient.field(&fields, "content-length"), Some("2"));
}
