//! What a hostile client tries beyond the table, and what an honest one does that looks odd: over the real sockets.

use gateway_proto::{admin::operation::Class, policy::ConnectionKind};

use crate::{FORM, XML, client::Client, site::Terms, world::World};

/// A call that changes the engine, in every spelling that got past a filter somewhere.
const SPELLINGS: [&str; 44] = [
    "/api/channels/_stop;",
    "/api/channels/_stop;jsessionid=x",
    "/api/;x/channels/_stop",
    "/;/api/channels/_stop",
    "/api/x/..;/channels/_stop",
    "/api/channels/..;/channels/_stop",
    "/api/channels/..;x=y/_stop",
    "/api/server/%2e%2e/channels/_stop",
    "/api/server/.%2e/channels/_stop",
    "/api/server/%252e%252e/channels/_stop",
    "/api/server/..%2fchannels/_stop",
    "/api/server/..%2Fchannels/_stop",
    "/api/server/..%252fchannels/_stop",
    "/api/server/..%5cchannels/_stop",
    "/api/server/..\\channels/_stop",
    "/api/server/..%c0%afchannels/_stop",
    "/api/server/..%e0%80%afchannels/_stop",
    "/api/server/..%ef%bc%8fchannels/_stop",
    "/api/server/..%u002fchannels/_stop",
    "/api/channels%2f_stop",
    "/api/channels%2F_stop",
    "/api/channels%252f_stop",
    "/api/channels/%5fstop",
    "/api/channels/%5Fstop",
    "/api/channels/%255fstop",
    "/api/channels/_%73top",
    "/api/channels/%ef%bc%bfstop",
    "/api/channels/_stop%00",
    "/api/channels/_stop%00.html",
    "/api/channels/_stop%20",
    "/api/channels/_stop%09",
    "/api/channels/_stop%3f",
    "/api/channels/_stop%23",
    "/api/channels/_stop.",
    "/api/channels/_stop//",
    "/api//channels/_stop",
    "//api/channels/_stop",
    "/./api/channels/_stop",
    "/api/channels/_STOP",
    "/API/channels/_stop",
    "/api/channels/_stop#x",
    "/api/4.5.2;x/channels/_stop",
    "/api/4.5.2/4.5.2/channels/_stop",
    "/webadmin/..;/api/channels/_stop",
];

async fn everything(client: &mut Client) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(reply) = client.reply().await {
        statuses.push(reply.status());
    }
    statuses
}

#[tokio::test]
async fn no_spelling_of_a_change_reaches_the_engine_by_any_method() {
    let world = World::new(Terms::READ_ONLY).await;
    let cookie = world.client().await.sign_in().await;
    world.engine.forget();
    let mut client = world.client().await;
    for path in SPELLINGS {
        for method in ["POST", "GET", "HEAD", "PUT", "DELETE"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\n\r\n");
            let status = client.ask(&request).await.status();
            // A refusal of the target leaves the connection open; one of the head ends it.
            if status == 400 || status == 403 || status == 405 {
                if everything_ended(&mut client).await {
                    client = world.client().await;
                }
                continue;
            }
            // What passed is a read of a thing with an odd name, or nothing at all for the engine.
            assert!(["GET", "HEAD"].contains(&method) && status == 200, "{method} {path}: {status}");
        }
    }
    for seen in world.engine.seen() {
        assert!(matches!(seen.class, Some(Class::Read | Class::ReadSecrets)), "{} {}", seen.method, seen.path);
    }
}

/// Whether the gateway closed the connection after its last answer: then the next request gets none.
async fn everything_ended(client: &mut Client) -> bool {
    client.send(b"GET /api/server/id HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\n\r\n").await;
    client.reply().await.is_none()
}

#[tokio::test]
async fn a_call_that_is_refused_for_its_head_is_recorded_with_its_method_and_never_with_one_that_somebody_made_up() {
    let world = World::new(Terms::READ_ONLY).await;
    for request in [
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "PATCH /api/users/1 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /api/alerts HTTP/1.1\r\n\r\n",
        "MADE-UP /api/alerts HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let mut client = world.client().await;
        client.send(request.as_bytes()).await;
        everything(&mut client).await;
    }
    let calls = world.calls(4).await;
    let methods: Vec<_> = calls.iter().map(|call| &*call.method).collect();
    assert_eq!(methods, ["OPTIONS", "PATCH", "GET", "-"]);
}

#[tokio::test]
async fn heads_with_a_second_reading_end_the_connection_and_hide_nothing() {
    let world = World::new(Terms::READ_ONLY).await;
    let cookie = world.client().await.sign_in().await;
    world.engine.forget();
    // The last one of its connection, or that would stay open.
    let stop = "POST /api/channels/_stop HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nContent-Length: 0\r\n\
                Connection: close\r\n\r\n";
    let base = format!("X-Requested-With: t\r\nCookie: {cookie}\r\n");
    let heads = [
        // Targets with an authority, and the tricks with it.
        "GET http://h/api/alerts HTTP/1.1\r\nHost: h\r\n".to_owned(),
        "POST http://h@evil/api/channels/_stop HTTP/1.1\r\nHost: h\r\n".to_owned(),
        "POST h:443/api/channels/_stop HTTP/1.1\r\nHost: h\r\n".to_owned(),
        "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n".to_owned(),
        "OPTIONS /api/channels/_stop HTTP/1.1\r\nHost: h\r\nAccess-Control-Request-Method: POST\r\n".to_owned(),
        "PATCH /api/channels/a HTTP/1.1\r\nHost: h\r\n".to_owned(),
        "PROPFIND /api/channels HTTP/1.1\r\nHost: h\r\n".to_owned(),
        // Versions.
        "GET /api/alerts HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n".to_owned(),
        "GET /api/alerts HTTP/0.9\r\nHost: h\r\n".to_owned(),
        "GET /api/alerts HTTP/2.0\r\nHost: h\r\n".to_owned(),
        "GET /api/alerts HTTP/1.10\r\nHost: h\r\n".to_owned(),
        "GET /api/alerts http/1.1\r\nHost: h\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n".to_owned(),
        // Twice what may stand once.
        "GET /api/alerts HTTP/1.1\r\nHost: h\r\nHost: other\r\n".to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost: h, other\r\n".to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost: h/api\r\n".to_owned(),
        format!("GET /api/alerts HTTP/1.1\r\nHost: h\r\nCookie: JSESSIONID=other\r\n{base}"),
        "POST /api/alerts/_getAlerts HTTP/1.1\r\nHost: h\r\nContent-Type: text/xml\r\nContent-Type: text/plain\r\n"
            .to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost: h\r\nAuthorization: Basic YTpi\r\nAuthorization: Basic YTpi\r\n".to_owned(),
        // Lines.
        "GET /api/alerts HTTP/1.1\r\n Host: h\r\nHost: h\r\n".to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost : h\r\n".to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost: h\r\nX\0: y\r\n".to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost: h\r\nX: y\x0b\r\n".to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost: h\r\nX: y\rContent-Length: 9\r\n".to_owned(),
        "GET /api/alerts HTTP/1.1\r\nHost: h\r\nX: y\nContent-Length: 9\r\n".to_owned(),
        // Lengths.
        format!("POST /api/alerts/_getAlerts HTTP/1.1\r\nHost: h\r\n{base}Content-Length: -1\r\n"),
        format!("POST /api/alerts/_getAlerts HTTP/1.1\r\nHost: h\r\n{base}Content-Length: 5_0\r\n"),
        format!("POST /api/alerts/_getAlerts HTTP/1.1\r\nHost: h\r\n{base}Transfer-Encoding: chunked, identity\r\n"),
        format!("POST /api/alerts/_getAlerts HTTP/1.1\r\nHost: h\r\n{base}Transfer-Encoding: identity\r\n"),
        format!(
            "POST /api/alerts/_getAlerts HTTP/1.1\r\nHost: h\r\n{base}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"
        ),
        // Other protocols and expectations.
        format!(
            "GET /api/alerts HTTP/1.1\r\nHost: h\r\n{base}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
        ),
        format!("GET /api/alerts HTTP/1.1\r\nHost: h\r\n{base}Upgrade: TLS/1.2\r\n"),
        format!("GET /api/alerts HTTP/1.1\r\nHost: h\r\n{base}Expect: something\r\n"),
    ];
    for head in &heads {
        let mut client = world.client().await;
        client.send(format!("{head}\r\n{stop}").as_bytes()).await;
        let statuses = everything(&mut client).await;
        // What stands behind a head that was not understood is never looked at; behind a target that is no path, it is
        // refused by itself.
        let ends = statuses != [403, 403];
        assert!(!ends || statuses.len() == 1, "{head:?}: {statuses:?}");
        assert!(
            statuses.iter().all(|status| (400..=505).contains(status)) && !statuses.is_empty(),
            "{head:?}: {statuses:?}"
        );
    }
    let seen = world.engine.seen();
    assert!(seen.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn chunks_are_plain_or_the_connection_ends() {
    let world = World::new(Terms { kind: ConnectionKind::AdminReadWrite, ..Terms::READ_ONLY }).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    // The session is known from here on.
    assert_eq!(client.post("/api/channels/_getSummary", &cookie, XML, "<map/>").await.status(), 200);
    world.engine.forget();
    let hidden = "POST /api/server/_shutdown HTTP/1.1\r\nHost: h\r\n\r\n";
    let reason = "refused by the gateway: the chunks of the body are malformed, extended or followed by trailers";
    let malformed = [
        "4;x=y\r\n<a/>\r\n0\r\n\r\n",
        "4\r\n<a/>\r\n0\r\nTrailer: x\r\n\r\n",
        "4\n<a/>\r\n0\r\n\r\n",
        "4\r\n<a/>0\r\n\r\n",
        " 4\r\n<a/>\r\n0\r\n\r\n",
        "0x4\r\n<a/>\r\n0\r\n\r\n",
        "+4\r\n<a/>\r\n0\r\n\r\n",
        "000000004\r\n<a/>\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n<a/>\r\n0\r\n\r\n",
        "\r\n<a/>\r\n0\r\n\r\n",
    ];
    for chunks in malformed {
        let mut client = world.client().await;
        let head = format!(
            "POST /api/channels HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nContent-Type: {XML}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        client.send(format!("{head}{chunks}{hidden}").as_bytes()).await;
        let answer = client.reply().await.unwrap_or_else(|| panic!("{chunks:?} was not answered"));
        assert_eq!(answer.line, format!("HTTP/1.1 400 {reason}"), "{chunks:?}");
        assert!(answer.fields.contains("connection: close"), "{chunks:?}: {}", answer.fields);
        assert!(client.reply().await.is_none(), "what stands behind {chunks:?} was answered");
    }
    let calls = world.calls(2 + malformed.len()).await;
    for call in &calls[2..] {
        assert_eq!((call.path.as_ref(), call.status, call.refused.as_deref()), ("/channels", 400, Some(reason)));
    }
    let reached = world.engine.seen();
    assert!(reached.iter().all(|seen| seen.path == "/api/users/current"), "no body that was cut counts: {reached:?}");
}

#[tokio::test]
async fn a_refused_call_is_answered_whatever_its_body_looks_like() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let fields = "Host: h\r\nX-Requested-With: t\r\nTransfer-Encoding: chunked\r\n";
    let stop = format!("POST /api/channels/_stop HTTP/1.1\r\n{fields}\r\n4;x=y\r\n<a/>\r\n0\r\n\r\n");
    let refused = client.ask(&stop).await;
    assert_eq!(refused.line, "HTTP/1.1 403 read-only through gateway: stop channel is not permitted");
    assert!(client.reply().await.is_none(), "where the next call begins is not known");
    // A sign-in is read whole before the engine sees any of it.
    let form = format!("{fields}Content-Type: {FORM}\r\n\r\n4\nabcd\r\n0\r\n\r\n");
    let login = format!("POST /api/users/_login HTTP/1.1\r\n{form}");
    let refused = world.client().await.ask(&login).await;
    assert!(refused.status() == 400 && refused.fields.contains("connection: close"), "{refused:?}");
    assert!(world.engine.seen().is_empty());
}

#[tokio::test]
async fn fields_that_ask_a_server_for_something_else_do_not_reach_the_engine() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    world.engine.forget();
    let fields = [
        "X-HTTP-Method: DELETE",
        "X-HTTP-Method-Override: DELETE",
        "X-Method-Override: DELETE",
        "X-Original-URL: /api/channels/_stop",
        "X-Rewrite-URL: /api/channels/_stop",
        "X-Original-Method: POST",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Prefix: /x",
        "X-Real-IP: 127.0.0.1",
        "X-Client-IP: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "Via: 1.1 x",
        "True-Client-IP: 127.0.0.1",
        "Content-Location: /api/channels/_stop",
        "Destination: /api/channels/b",
        "Range: bytes=0-1",
        "TE: trailers",
        "Trailer: X",
        "Keep-Alive: timeout=5",
        "Proxy-Authorization: Basic YTpi",
        // Hop-by-hop by the client's word: an engine that obeyed would drop what the gateway set.
        "Connection: close, X-Forwarded-For, Cookie",
    ];
    let request = format!(
        "GET /api/channels/idsAndNames HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\n{}\r\n\r\n",
        fields.join("\r\n")
    );
    assert_eq!(client.ask(&request).await.status(), 200);
    let seen = world.engine.seen();
    let head = &seen[0].head;
    let names: Vec<_> = head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    assert_eq!(names, ["Host", "x-requested-with", "cookie", "X-Forwarded-For"], "{head}");
    assert!(head.contains("@north.north_clinic\r\n") && seen[0].method == "GET", "{head}");
}

#[tokio::test]
async fn calls_one_behind_the_other_are_answered_in_their_order_and_a_refusal_does_not_break_the_row() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    let fields = format!("Host: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\n");
    // Written at once, as a client does that does not wait.
    let row = format!(
        "GET /api/server/version HTTP/1.1\r\n{fields}\r\n\
         POST /api/channels/_stop HTTP/1.1\r\n{fields}Content-Type: {FORM}\r\nContent-Length: 11\r\n\r\nchannelId=a\
         HEAD /api/channels HTTP/1.1\r\n{fields}\r\n\
         POST /api/channels/_getSummary HTTP/1.1\r\n{fields}Content-Type: {XML}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<a>\r\n0\r\n\r\n\
         GET /api/users/current HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"
    );
    client.send(row.as_bytes()).await;
    assert_eq!(client.reply().await.unwrap().status(), 200);
    let refused = client.reply().await.unwrap();
    assert_eq!(refused.line, "HTTP/1.1 403 read-only through gateway: stop channel is not permitted");
    assert!(!refused.fields.contains("connection: close"), "{}", refused.fields);
    let head = client.reply_to_head().await.unwrap();
    assert!(head.status() == 200 && head.body.is_empty(), "{head:?}");
    assert!(client.reply().await.unwrap().body.contains("********"));
    assert!(client.reply().await.unwrap().body.contains("admin"));
    assert!(client.reply().await.is_none(), "the connection ends as asked");
    let seen: Vec<_> = world.engine.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    assert!(
        seen.contains(&"HEAD /api/channels".to_owned()) && !seen.iter().any(|seen| seen.contains("_stop")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_client_that_waits_for_leave_gets_it_or_the_refusal_and_never_both() {
    let world = World::new(Terms::READ_ONLY).await;
    let cookie = world.client().await.sign_in().await;
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nContent-Type: {XML}\r\n\
             Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = world.client().await;
    assert_eq!(client.ask(&head("/api/channels/_getSummary", 6)).await.status(), 100);
    assert_eq!(client.ask("<map/>").await.status(), 200);
    // Refused: the body is not asked for, and the connection is over, because it may be on its way all the same.
    let refused = client.ask(&head("/api/channels/_deploy", 6)).await;
    assert!(refused.status() == 403 && refused.fields.contains("connection: close"), "{refused:?}");
    client.send(b"<set/>").await;
    assert!(client.reply().await.is_none());
    let mut client = world.client().await;
    assert_eq!(client.ask(&head("/api/channels/_getSummary", 99_999_999)).await.status(), 413);
    assert!(world.engine.seen().iter().all(|seen| seen.class != Some(Class::Write)));
}

#[tokio::test]
async fn compressed_bodies_are_refused_and_compressed_answers_never_asked_for_where_secrets_are_masked() {
    let world = World::new(Terms { kind: ConnectionKind::AdminReadWrite, ..Terms::READ_ONLY }).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    let fields = format!("Host: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nContent-Type: {XML}\r\n");
    let request =
        format!("POST /api/channels HTTP/1.1\r\n{fields}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x08ab");
    let refused = client.ask(&request).await;
    assert_eq!(refused.line, "HTTP/1.1 415 refused by the gateway: the body is compressed");
    assert!(!world.engine.seen().iter().any(|seen| seen.class == Some(Class::Write)), "it was not passed on as plain");
    drop(world);

    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    let get = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nAccept-Encoding: gzip\r\n\r\n"
        )
    };
    client.ask(&get("/api/channels")).await;
    client.ask(&get("/api/server/id")).await;
    let asked = |path: &str| {
        let seen = world.engine.seen();
        let seen = seen.iter().find(|seen| seen.path == path).expect("it was asked");
        seen.head.contains("accept-encoding")
    };
    assert!(!asked("/api/channels") && asked("/api/server/id"));
}

#[tokio::test]
async fn a_multipart_upload_passes_whole_where_the_offer_says_so_and_nowhere_else() {
    let upload =
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.zip\"\r\n\r\nPK\x03\x04\r\n--b--\r\n";
    let media = "multipart/form-data; boundary=b";
    for (allowed, status) in [(false, 403), (true, 200)] {
        let scope = gateway_proto::policy::AdminScope { extension_upload: allowed, ..Terms::READ_ONLY.scope };
        let world = World::new(Terms { kind: ConnectionKind::AdminReadWrite, scope, ..Terms::READ_ONLY }).await;
        let mut client = world.client().await;
        let cookie = client.sign_in().await;
        assert_eq!(client.post("/api/extensions/_install", &cookie, media, upload).await.status(), status);
        let arrived = world.engine.seen().into_iter().find(|seen| seen.path == "/api/extensions/_install");
        assert_eq!(arrived.map(|seen| seen.body), allowed.then(|| upload.as_bytes().to_vec()));
        // As a sign-in it would be deserialized before anybody is known.
        assert_eq!(client.post("/api/users/_login", "", media, upload).await.status(), 403);
    }
}

#[tokio::test]
async fn the_second_leg_of_a_sign_in_and_other_versions_are_the_engines_business() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let login = "username=admin&password=good";
    let request = format!(
        "POST /api/4.5.2/users/_login HTTP/1.1\r\nHost: h\r\nX-Requested-With: nextgen-connect-client\r\n\
         X-Mirth-Login-Data: second-leg\r\nX-Mirth-Server-Url: https://h\r\nContent-Type: {FORM}\r\n\
         Content-Length: {}\r\n\r\n{login}",
        login.len()
    );
    assert_eq!(client.ask(&request).await.status(), 200);
    let seen = world.engine.seen();
    assert!(seen[0].head.contains("x-mirth-login-data: second-leg") && seen[0].head.contains("x-mirth-server-url"));
    assert_eq!(seen[0].path, "/api/4.5.2/users/_login");
    client.get("/api/4.5.1/server/version", "").await;
    assert_eq!(world.engine.seen()[1].path, "/api/4.5.1/server/version");
}
