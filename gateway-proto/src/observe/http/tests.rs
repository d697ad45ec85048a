#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Lets requests and answers pass in turn, each in pieces of this size, 10 ms apart.
fn pass(turns: &[(&str, &str)], piece: usize) -> HttpLedger {
    let (mut exchange, mut ledger, mut now) = (HttpExchange::new(true), HttpLedger::default(), Instant::now());
    for (request, answer) in turns {
        for part in request.as_bytes().chunks(piece) {
            exchange.observe_request_bytes(part, &mut ledger, now);
        }
        now += Duration::from_millis(10);
        for part in answer.as_bytes().chunks(piece) {
            exchange.observe_answer_bytes(part, &mut ledger, now);
        }
    }
    exchange.end(&mut ledger, End::ByTheSender);
    ledger
}

const TURNS: [(&str, &str); 5] = [
    (
        "GET /Patient?name=DOE HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;x=y\r\nHTTP/\r\n0\r\nTrailer: x\r\n\r\n",
    ),
    (
        "\r\nPOST /Patient HTTP/1.1\r\nContent-Length: 14\r\nExpect: 100-continue\r\n\r\nGET / HTTP/1.1",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    ),
    ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 99999\n\n"),
    (
        "DELETE /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\nPROPFIND / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 405 Method Not Allowed\r\nContent-Length: 3\r\n\r\nno\n",
    ),
    ("PUT / HTTP/1.1\r\nContent-Length:0\r\n\r\n", "HTTP/1.0 503 \r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
];

#[test]
fn kept_open_pipelined_and_chunked_exchanges_are_counted_however_they_are_cut() {
    for piece in [1, 2, 3, 7, 64, 10_000] {
        let ledger = pass(&TURNS, piece);
        let expected = HttpCounts {
            reads: 2,
            writes: 3,
            others: 1,
            statuses: [1, 4, 0, 1, 1],
            completed: Completed { answered: 6, ..Completed::default() },
            ..HttpCounts::default()
        };
        assert_eq!(ledger.counts, expected, "pieces of {piece}");
        assert_eq!(ledger.latency.buckets().iter().sum::<u64>(), 6);
    }
}

#[test]
fn an_upgrade_ends_the_observation_and_is_no_fault() {
    let upgrade = ("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n\x01\x02\x03");
    let counts = pass(&[upgrade, ("\0\0garbage", "more")], 5).counts;
    assert_eq!((counts.upgraded, counts.unreadable, counts.unanswered), (1, 0, 0));
    let connect = ("CONNECT h:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n\x16\x03");
    assert_eq!(pass(&[connect], 5).counts.upgraded, 1);
}

#[test]
fn what_is_no_http_is_counted_once_and_left_alone() {
    for (request, answer) in [
        ("\x16\x03\x01\x02", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ("\x0bMSH|^~\\&|\r", ""),
        ("GET\r\n", ""),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ""),
        ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", ""),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", ""),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", ""),
        ("GET / HTTP/1.1\r\n\r\n", "ICY 200 OK\r\n"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 2000 OK\r\n"),
        ("", "HTTP/1.1 408 Request Timeout\r\n\r\n"),
    ] {
        let counts = pass(&[(request, answer), ("GET / HTTP/1.1\r\n\r\n", "")], 4).counts;
        assert_eq!(counts.unreadable, 1, "{request:?} {answer:?}");
    }
}

#[test]
fn an_endless_head_and_endless_pipelining_are_given_up() {
    let head = format!("GET / HTTP/1.1\r\n{}", "X-Long: y\r\n".repeat(20_000));
    assert_eq!(pass(&[(&head, "")], 1000).counts.unreadable, 1);
    let many = "GET / HTTP/1.1\r\n\r\n".repeat(MAX_PENDING + 1);
    assert_eq!(pass(&[(&many, "")], 1000).counts.unreadable, 1);
    assert!(size_of::<HttpExchange>() < 400, "{}", size_of::<HttpExchange>());
}

#[test]
fn a_request_without_an_answer_is_counted_at_the_end() {
    assert_eq!(pass(&[("GET / HTTP/1.1\r\n\r\n", "")], 9).counts.unanswered, 1);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_counts(
        request in proptest::collection::vec(any::<u8>(), 0..300), answer in proptest::collection::vec(any::<u8>(), 0..300),
        turn in 0..TURNS.len(), piece in 1..50_usize
    ) {
        let count = |piece: usize| {
            let (mut exchange, mut ledger, now) = (HttpExchange::new(true), HttpLedger::default(), Instant::now());
            for part in [TURNS[turn].0.as_bytes(), &request].concat().chunks(piece) {
                exchange.observe_request_bytes(part, &mut ledger, now);
            }
            for part in [TURNS[turn].1.as_bytes(), &answer].concat().chunks(piece) {
                exchange.observe_answer_bytes(part, &mut ledger, now);
            }
            exchange.end(&mut ledger, End::ByTheSender);
            ledger.counts
        };
        prop_assert_eq!(count(piece), count(usize::MAX));
    }
}
