//! Whole streams: what a client sends on one connection, with requests hidden in bodies, lengths that contradict each other
//! and chunks that are read in more than one way, against engines that read what the gateway writes in ways of their own.
//!
//! [`through`] is the owner's gateway without its sockets: heads are judged, bodies taken apart and framed anew. Each engine
//! must see the calls that passed, these and no others, whatever it believes about line ends, folds, lengths and chunks.

use gateway_proto::admin::body::{BodyDecoder, LAST_CHUNK, chunk};

use super::*;

/// Method, target and body of a call.
type Seen = (String, String, Vec<u8>);

/// What is written to the engine, and the calls that it should see. The last may be cut off.
fn through(mut input: &[u8], guard: &Guard) -> (Vec<u8>, Vec<Seen>) {
    let (mut written, mut passed) = (Vec::new(), Vec::new());
    while let Ok(Some(length)) = head_len(input) {
        let Ok(head) = RequestHead::parse(&input[..length]) else { break };
        input = &input[length..];
        let (mut decoder, mut content) = (BodyDecoder::new(head.framing), Vec::new());
        let used = decoder.decode(input, &mut content);
        if let Ok(pass) = guard.judge(&head) {
            written.extend(engine_head(&head, &pass, "maria@north.clinic"));
            if head.framing == Framing::Chunked {
                written.extend(chunk(&content));
                written.extend(if decoder.is_done() { LAST_CHUNK } else { b"" });
            } else {
                written.extend(&content);
            }
            passed.push((head.method.name().to_owned(), head.target.clone(), content));
        }
        match used {
            Ok(used) if decoder.is_done() && !head.close => input = &input[used..],
            Ok(_) | Err(_) => break,
        }
    }
    (written, passed)
}

/// An engine: how it reads heads, and which of two lengths it believes.
#[derive(Debug, Clone, Copy)]
struct Engine {
    head: HeadReader,
    believes_length: bool,
    /// Takes extensions and blanks beside a chunk's size, and a bare line feed behind it.
    tolerates_chunks: bool,
}

fn engines() -> impl Iterator<Item = Engine> {
    head_readers().flat_map(|head| {
        (0..4u8).map(move |n| Engine { head, believes_length: n & 1 != 0, tolerates_chunks: n & 2 != 0 })
    })
}

impl Engine {
    /// The calls it sees, up to the first that is not whole.
    fn calls(self, stream: &[u8]) -> Vec<Seen> {
        // One character a byte, so that every place in the text is one in the stream.
        let text: String = stream.iter().map(|byte| char::from(*byte)).collect();
        let at = |offset: usize| text.char_indices().nth(offset).map_or("", |(index, _)| &text[index..]);
        let (mut calls, mut begun) = (Vec::new(), 0);
        while let Some((line, fields, length)) = self.head.read(at(begun)) {
            let length = at(begun)[..length].chars().count();
            let mut words = line.split(' ').map(str::to_owned);
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let rest = &stream[(begun + length).min(stream.len())..];
            let Some((body, used)) = self.body(&fields, rest) else {
                calls.push((method, target, rest.to_vec()));
                break;
            };
            calls.push((method, target, body));
            begun += length + used;
        }
        calls
    }

    /// The body and its length on the wire; none: there is not all of it.
    fn body(self, fields: &Fields, rest: &[u8]) -> Option<(Vec<u8>, usize)> {
        let length = self.head.field(fields, "content-length").and_then(|text| text.trim().parse::<usize>().ok());
        let encoding = self.head.field(fields, "transfer-encoding").unwrap_or_default();
        let is_chunked = encoding.to_ascii_lowercase().contains("chunked");
        match (length, is_chunked) {
            (Some(length), chunked) if !chunked || self.believes_length => Some((rest.get(..length)?.to_vec(), length)),
            (_, true) => self.chunks(rest),
            (_, false) => Some((Vec::new(), 0)),
        }
    }

    fn chunks(self, rest: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (mut body, mut at) = (Vec::new(), 0);
        loop {
            let end = at + rest[at..].iter().position(|byte| *byte == b'\n')?;
            let line = std::str::from_utf8(&rest[at..end]).ok()?;
            let line = if self.tolerates_chunks { line } else { line.strip_suffix('\r')? };
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).ok()?;
            at = end + 1;
            if size == 0 {
                // Trailers, up to an empty line.
                let end = rest[at..].windows(2).position(|pair| pair == b"\r\n")?;
                return Some((body, at + end + 2));
            }
            body.extend(rest.get(at..at + size)?);
            at += size + 2;
            if at > rest.len() {
                return None;
            }
        }
    }
}

/// A request as attackers write them: a head, plain or bent, and a body that holds the next request.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        "GET /api/server/id HTTP/1.1",
        "POST /api/channels/_getSummary HTTP/1.1",
        "POST /api/channels/_stop HTTP/1.1",
        "POST /api/users/_logout HTTP/1.1",
        "PUT /api/channels/a HTTP/1.1",
        "HEAD /api/server/id HTTP/1.1",
    ]);
    let field = prop::sample::select(vec![
        "Cookie: JSESSIONID=a\r\n",
        "Content-Type: application/xml\r\n",
        "Connection: close\r\n",
        "X-Requested-With: x\r\n",
        "Expect: 100-continue\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\nContent-Length: 0\r\n",
        "Content-Length: 0\r\n",
        "",
    ]);
    let hidden = prop::sample::select(vec![
        "",
        "x",
        "POST /api/channels/_stop HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\nDELETE /api/channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "0\r\n\r\nPOST /api/channels/_stop HTTP/1.1\r\nHost: h\r\n\r\n",
        "\n\nPOST /api/channels/_stop HTTP/1.1\nHost: h\n\n",
    ]);
    let size_end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", ";a=b\r\n", " \r\n", ";\n", "\r\r\n"]);
    let last = prop::sample::select(vec![
        "0\r\n\r\n",
        "0\r\n\r\n",
        "0\r\nContent-Length: 9\r\n\r\n",
        "0\r\n\n",
        "00\r\n\r\n",
        "-0\r\n\r\n",
        "0;\r\n\r\n",
        "",
    ]);
    let framing = (0..6u8, any::<i8>());
    (start, prop::collection::vec(field, 0..3), hidden, size_end, last, framing).prop_map(
        |(start, fields, hidden, size_end, last, (framing, off))| {
            let fields: String = fields.concat();
            // Mostly the truth, and sometimes a little beside it.
            let off = if off.unsigned_abs() < 100 { 0 } else { isize::from(off % 5) };
            let length = hidden.len().saturating_add_signed(off);
            let chunked = format!("{:x}{size_end}{hidden}\r\n{last}", length);
            let (framing, body) = match framing {
                0 => (String::new(), String::new()),
                1 | 2 => (format!("Content-Length: {length}\r\n"), hidden.to_owned()),
                3 | 4 => ("Transfer-Encoding: chunked\r\n".to_owned(), chunked),
                _ => (format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"), chunked),
            };
            format!("{start}\r\nHost: h\r\n{fields}{framing}\r\n{body}").into_bytes()
        },
    )
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn an_engine_sees_the_calls_that_passed_and_no_others(requests in prop::collection::vec(request(), 1..5)) {
        let stream = requests.concat();
        let guard = Guard::new(ConnectionKind::AdminReadOnly, AdminScope::default(), "");
        let (written, passed) = through(&stream, &guard);
        for engine in engines() {
            let calls = engine.calls(&written);
            prop_assert_eq!(calls.len(), passed.len(), "{:?} reads {:?}", engine, String::from_utf8_lossy(&written));
            for (call, expected) in calls.iter().zip(&passed) {
                prop_assert_eq!((&call.0, &call.1), (&expected.0, &expected.1), "{:?}", engine);
            }
            // The last may have been cut off, and is none then: the connection ends with it.
            for (call, expected) in calls.iter().zip(&passed).rev().skip(1) {
                prop_assert_eq!(&call.2, &expected.2, "{:?}", engine);
            }
            let writes = calls.iter().any(|(_, target, _)| target.contains("_stop") || target == "/api/channels/a");
            prop_assert!(!writes, "{:?} changes something: {:?}", engine, String::from_utf8_lossy(&written));
        }
    }
}

#[test]
fn engines_that_get_the_clients_bytes_are_fooled() {
    let guard = Guard::new(ConnectionKind::AdminReadOnly, AdminScope::default(), "");
    let hidden = "POST /api/channels/_stop HTTP/1.1\r\nHost: h\r\n\r\n";
    let chunked = format!("0\r\n\r\n{hidden}");
    let both = format!(
        "POST /api/channels/_getSummary HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}",
        chunked.len()
    );
    let seen = |stream: &[u8]| {
        let mut numbers: Vec<_> = engines().map(|engine| engine.calls(stream).len()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    assert_eq!(seen(both.as_bytes()), [1, 2], "engines differ about what the client wrote");
    assert_eq!(through(both.as_bytes(), &guard), (Vec::new(), Vec::new()));
    let plain = format!(
        "POST /api/channels/_getSummary HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let (written, passed) = through(plain.as_bytes(), &guard);
    assert_eq!((passed.len(), seen(&written)), (1, vec![1]));
}
