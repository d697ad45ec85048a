//! Admin connections over real sockets: client, TLS, tunnel, guard, TLS, engine.

#![expect(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod attacks;
mod client;
mod ends;
mod engine;
mod rotation;
mod secrets;
mod site;
mod world;

use std::time::{Duration, Instant};

use gateway_proto::{
    admin::{opening::KnownBy, operation::Class},
    policy::{Activation, AdminScope, ConnectionKind},
};
use site::Terms;
use world::World;

const XML: &str = "application/xml";
const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn a_read_only_administrator_reads_and_changes_nothing_and_is_recorded() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    let channels = client.get("/api/channels", &cookie).await;
    assert_eq!(channels.body, "<list><channel><name>adt</name><password>********</password></channel></list>");
    assert!(!channels.fields.contains("access-control"), "{}", channels.fields);
    let summary = client.post("/api/channels/_getSummary?ignoreNewChannels=false", &cookie, XML, "<map/>").await;
    assert_eq!(summary.status(), 200);
    let stop = client.post("/api/channels/_stop?secret=1", &cookie, FORM, "channelId=a").await;
    assert_eq!(stop.line, "HTTP/1.1 403 read-only through gateway: stop channel is not permitted");
    // The session goes on after a refusal.
    assert_eq!(client.get("/api/server/version", &cookie).await.status(), 200);
    let message = client.get("/api/channels/a/messages/1", &cookie).await;
    assert_eq!(
        message.line,
        "HTTP/1.1 403 not part of this admin connection: read message needs the option patient data"
    );

    let seen = world.engine.seen();
    let paths: Vec<_> = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    let expected = [
        "POST /api/users/_login",
        "GET /api/channels",
        "GET /api/users/current",
        "POST /api/channels/_getSummary",
        "GET /api/server/version",
    ];
    assert_eq!(paths, expected);
    assert!(seen.iter().all(|seen| seen.head.contains("@north.north_clinic\r\n")), "{seen:?}");

    let calls = world.calls(6).await;
    let found: Vec<_> = calls.iter().map(|call| (call.path.as_ref(), call.status)).collect();
    let expected = [
        ("/users/_login", 200),
        ("/channels", 200),
        ("/channels/_getSummary", 200),
        ("/channels/_stop", 403),
        ("/server/version", 200),
        ("/channels/{channelId}/messages/{messageId}", 403),
    ];
    assert_eq!(found, expected);
    for call in &calls {
        assert_eq!((call.organization.as_str(), call.server.as_str()), ("north clinic", "north"));
        assert_eq!((call.known_by, call.account.as_deref()), (KnownBy::LocalAccount, Some("admin")));
    }
    assert_eq!(calls[3].class, Some(Class::Write));
    let written = serde_json::to_string(&calls).unwrap();
    assert!(!written.contains("good") && !written.contains("secret") && !written.contains("JSESSIONID"));
}

#[tokio::test]
async fn whatever_a_hostile_client_writes_no_change_reaches_the_engine() {
    let world = World::new(Terms::READ_ONLY).await;
    let cookie = world.client().await.sign_in().await;
    world.engine.forget();
    let stop = "POST /api/channels/_stop HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nContent-Length: 0\r\n\r\n";
    let inner = stop.len();
    let fields = format!("Host: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\n");
    let requests = [
        format!("POST /api/channels/ID;x=1/_stop HTTP/1.1\r\n{fields}\r\n"),
        format!("POST /api/channels;v=1/ID/_start HTTP/1.1\r\n{fields}\r\n"),
        format!("POST /api/channels/_getSummary;/../_stop HTTP/1.1\r\n{fields}\r\n"),
        format!("POST /api/channels/%5Fstop HTTP/1.1\r\n{fields}\r\n"),
        format!("POST /api//channels/_stop HTTP/1.1\r\n{fields}\r\n"),
        format!("POST https://h/api/channels/_stop HTTP/1.1\r\n{fields}\r\n"),
        format!("GET /api/channels HTTP/1.1\r\n{fields}X-HTTP-Method-Override: DELETE\r\n\r\n"),
        format!("GET /api/channels?_method=DELETE HTTP/1.1\r\n{fields}\r\n"),
        // Two lengths, folded lines, bare line ends, chunks with extensions: each hides the same call behind a read.
        format!(
            "POST /api/alerts/_getAlerts HTTP/1.1\r\n{fields}Content-Length: 0\r\nContent-Length: {inner}\r\n\r\n{stop}"
        ),
        format!(
            "POST /api/alerts/_getAlerts HTTP/1.1\r\n{fields}Content-Length: {inner}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{stop}"
        ),
        format!(
            "POST /api/alerts/_getAlerts HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{stop}"
        ),
        format!("POST /api/alerts/_getAlerts HTTP/1.1\r\n{fields}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{stop}"),
        format!(
            "POST /api/alerts/_getAlerts HTTP/1.1\r\n{fields}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{stop}"
        ),
        format!("GET /api/alerts HTTP/1.1\r\n{fields}X: a\r{stop}\r\n"),
        format!("GET /api/alerts HTTP/1.1\n{}\n{stop}", fields.replace('\r', "")),
        format!("POST /api/alerts/_getAlerts HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n0;x={stop}\r\n\r\n"),
        format!(
            "POST /api/alerts/_getAlerts HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n{stop}"
        ),
        format!("GET /api/alerts HTTP/1.1\r\n{fields}Content-Length: {inner}\r\n\r\n{stop}"),
        format!("GET /api/alerts HTTP/1.1\r\n{fields}Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n{stop}"),
        format!("GET /api/alerts HTTP/1.1\r\n{fields}Expect: 100-continue\r\nContent-Length: {inner}\r\n\r\n{stop}"),
        format!("TRACE /api/channels/_stop HTTP/1.1\r\n{fields}\r\n"),
        format!("GET /api/alerts HTTP/1.0\r\n{fields}\r\n{stop}"),
        format!("GET /api/alerts\r\n\r\n{stop}"),
        stop.to_owned(),
    ];
    for request in &requests {
        let mut client = world.client().await;
        client.send(request.as_bytes()).await;
        // Everything that comes back is read, so that a smuggled second request has had its turn.
        client.send(format!("GET /api/server/id HTTP/1.1\r\n{fields}Connection: close\r\n\r\n").as_bytes()).await;
        while client.reply().await.is_some() {}
    }
    for seen in world.engine.seen() {
        let harmless = matches!(seen.class, Some(Class::Read | Class::ReadSecrets | Class::Audit | Class::Session));
        assert!(harmless, "{} {} reached the engine", seen.method, seen.path);
        assert!(!String::from_utf8_lossy(&seen.body).contains("POST "), "a request hid in a body of {}", seen.path);
    }
}

#[tokio::test]
async fn before_the_sign_in_no_body_reaches_the_engine_but_the_form() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let evil = client.post("/api/channels/_getSummary", "JSESSIONID=guess", XML, "<evil/>").await;
    assert_eq!(evil.line, "HTTP/1.1 401 sign in at the engine first");
    assert_eq!(client.post("/api/users/_login", "", XML, "<evil/>").await.status(), 403);
    let bypass = client.post("/api/users/_login", "", FORM, "username=%62ypass&password=x").await;
    assert_eq!(bypass.line, "HTTP/1.1 403 refused by the gateway: the bypass account is for local programs");
    assert!(world.engine.seen().iter().all(|seen| seen.body.is_empty()));
}

#[tokio::test]
async fn a_session_begun_on_one_admin_connection_is_none_on_another_one() {
    let mut world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    assert_eq!(client.post("/api/channels/_getSummary", &cookie, XML, "<map/>").await.status(), 200);
    world.engine.forget();

    let mut other = world.client_of_other_connection().await;
    assert_eq!(other.get("/api/users/current", &cookie).await.status(), 401, "in the engine's own word");
    let body = other.post("/api/channels/_getSummary", &cookie, XML, "<evil/>").await;
    assert_eq!(body.line, "HTTP/1.1 401 sign in at the engine first");
    assert_eq!(other.get("/api/users/current", &format!("{cookie}.x")).await.status(), 401);
    let seen = world.engine.seen();
    assert!(seen.iter().all(|seen| seen.body.is_empty() && !seen.head.contains("JSESSIONID")), "{seen:?}");

    // With the same cookie shown it signs in, and has a session of its own; the first one is as good as before.
    let form = "username=admin&password=good";
    let reply = other.post("/api/users/_login", &cookie, FORM, form).await;
    assert!(reply.status() == 200 && reply.fields.contains("set-cookie: jsessionid="), "{reply:?}");
    let own = other.sign_in().await;
    assert_ne!(own, cookie);
    assert_eq!(other.get("/api/users/current", &own).await.status(), 200);
    assert_eq!(client.get("/api/users/current", &cookie).await.status(), 200);
    assert_eq!(client.get("/api/users/current", &own).await.status(), 401);

    let calls = world.calls(10).await;
    let refused = calls.iter().filter(|call| call.status == 401);
    let accounts: Vec<_> = refused.map(|call| call.account.as_deref()).collect();
    assert_eq!(accounts, [None::<&str>; 4], "nobody is named by another connection's session");
}

#[tokio::test]
async fn an_engine_in_trouble_signs_nobody_out() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    for (trouble, told) in [
        ("500 Server Error", "502 gateway: the engine answered 500 when asked whether the session is signed in"),
        ("503 Service Unavailable", "503 gateway: the engine is not ready to say whether the session is signed in"),
        ("403 Forbidden", "403 gateway: the engine does not let this account see its own session"),
        ("401 Unauthorized", "401 sign in at the engine first"),
    ] {
        world.engine.ails(Some(trouble));
        let answer = world.client().await.post("/api/codeTemplates/_getSummary", &cookie, XML, "<map/>").await;
        assert_eq!(answer.line, format!("HTTP/1.1 {told}"));
    }
    assert!(world.engine.seen().iter().all(|seen| seen.path != "/api/codeTemplates/_getSummary"), "no body passed");
    let calls = world.calls(5).await;
    let told = calls[1..].iter().map(|call| (call.status, call.path.as_ref(), call.refused.is_some()));
    let told: Vec<_> = told.collect();
    let expected = [502, 503, 403, 401].map(|status| (status, "/codeTemplates/_getSummary", true));
    assert_eq!(told, expected);
    // The session is as good as before.
    world.engine.ails(None);
    let answer = client.post("/api/codeTemplates/_getSummary", &cookie, XML, "<map/>").await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(client.post("/api/users/_login", "", FORM, "username=admin&password=bad").await.status());
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429; 2]].concat());
}

#[tokio::test]
async fn a_right_password_by_basic_counts_once_and_a_wrong_one_each_time() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let get = |credentials: &str| {
        format!("GET /api/server/id HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {credentials}\r\n\r\n")
    };
    for _ in 0..30 {
        assert_eq!(client.ask(&get("YWRtaW46Z29vZA==")).await.status(), 200);
    }
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(client.ask(&get("YWRtaW46YmFk")).await.status());
    }
    assert_eq!(statuses, [[401; 9].as_slice(), &[429]].concat());
    let asked = world.engine.seen().iter().filter(|seen| seen.path == "/api/users/current").count();
    assert_eq!(asked, 10);
}

#[tokio::test]
async fn a_revoked_connection_cuts_the_open_call_and_narrower_options_hold_at_once() {
    let patients = AdminScope { patient_data: true, ..AdminScope::default() };
    let mut world = World::new(Terms { scope: patients, ..Terms::READ_ONLY }).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    assert_eq!(client.get("/api/channels/a/messages/1", &cookie).await.status(), 200);
    world.change(Terms::READ_ONLY);
    assert_eq!(client.get("/api/channels/a/messages/1", &cookie).await.status(), 403);
    // This answer stays half done for ever.
    client.send(b"GET /api/system/stats HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let reached = async {
        while !world.engine.seen().iter().any(|seen| seen.path == "/api/system/stats") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(world::LIMIT, reached).await.unwrap();
    world.change(Terms { activation: Activation::Paused, ..Terms::READ_ONLY });
    let begun = Instant::now();
    assert!(client.reply().await.is_none(), "half an answer is none");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let mut next = world.client().await;
    let refused = next.get("/api/server/version", &cookie).await;
    assert_eq!(refused.line, "HTTP/1.1 503 gateway: the connection is paused");
    let cut = world.calls(4).await;
    assert_eq!((cut[3].path.as_ref(), cut[3].status, cut[3].cut), ("/system/stats", 200, true), "{cut:?}");
    assert!(cut[..3].iter().all(|call| !call.cut), "these answers were whole: {cut:?}");
}

#[tokio::test]
async fn a_connection_is_held_until_the_tunnel_is_back() {
    let world = World::new(Terms::READ_ONLY).await;
    world.connect_tunnel(false);
    let mut client = world.client().await;
    client.send(b"GET /api/server/version HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(world.engine.seen().is_empty());
    world.connect_tunnel(true);
    assert_eq!(client.reply().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_call_over_a_tunnel_that_turns_out_to_be_dead_is_held_and_made_once() {
    let mut world = World::new(Terms { kind: ConnectionKind::AdminReadWrite, ..Terms::READ_ONLY }).await;
    let cookie = world.client().await.sign_in().await;
    world.engine.forget();
    world.break_tunnel();
    let mut client = world.client().await;
    let body = "channelId=a";
    let request = format!(
        "POST /api/channels/_stop HTTP/1.1\r\nHost: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nContent-Type: {FORM}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request.as_bytes()).await;
    world.mend_tunnel().await;
    let answer = client.reply().await.unwrap();
    assert_eq!(answer.line, "HTTP/1.1 200 OK");
    let stops = world.engine.seen().iter().filter(|seen| seen.path == "/api/channels/_stop").count();
    assert_eq!(stops, 1);
}

#[tokio::test]
async fn a_call_that_reached_the_engine_is_never_made_again() {
    let mut world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    // This answer stays half done for ever.
    client.send(b"GET /api/system/stats HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let reached = async {
        while world.engine.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(world::LIMIT, reached).await.unwrap();
    world.break_tunnel();
    world.mend_tunnel().await;
    assert!(client.reply().await.is_none(), "half an answer is none");
    // The next connection has a tunnel, and the engine saw the first call once.
    assert_eq!(world.client().await.get("/api/server/version", "").await.status(), 200);
    let paths: Vec<_> = world.engine.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/api/system/stats", "/api/server/version"]);
}

#[tokio::test]
async fn a_writer_changes_the_engine_and_reads_passwords_but_installs_nothing() {
    let world = World::new(Terms { kind: ConnectionKind::AdminReadWrite, ..Terms::READ_ONLY }).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    assert!(client.get("/api/channels", &cookie).await.body.contains("s3cret"));
    assert_eq!(client.post("/api/channels/_stop", &cookie, FORM, "channelId=a").await.status(), 200);
    // A body in chunks, after leave was given to send it.
    let head = format!(
        "POST /api/channels HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\nContent-Type: {XML}\r\nExpect: 100-continue\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let leave = client.ask(&head).await;
    assert_eq!(leave.status(), 100);
    assert_eq!(client.ask("5\r\n<a/>\n\r\n3\r\n<b>\r\n0\r\n\r\n").await.status(), 200);
    assert_eq!(world.engine.seen().last().unwrap().body, b"<a/>\n<b>");
    let install = client.post("/api/extensions/_install", &cookie, "multipart/form-data", "zip").await;
    assert_eq!(
        install.line,
        "HTTP/1.1 403 not part of this admin connection: install extension needs the option extension upload"
    );
    assert_eq!(client.post("/api/connectors/tcp/_testConnection", &cookie, XML, "<a/>").await.status(), 403);
    assert!(world.engine.seen().iter().all(|seen| !seen.path.contains("_install") && seen.class != Some(Class::Probe)));
}

#[tokio::test]
async fn the_start_file_leads_back_to_the_local_port() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let file = client.ask("GET /webstart.jnlp HTTP/1.1\r\nHost: localhost:18443\r\n\r\n").await;
    assert_eq!(
        file.body,
        "<jnlp codebase=\"https://localhost:18443\"><argument>https://localhost:18443</argument></jnlp>"
    );
}

#[tokio::test]
async fn the_person_behind_an_account_is_recorded_and_nobody_else_gets_through_where_people_are_named() {
    let scope = AdminScope { named_people: true, ..AdminScope::default() };
    let unnamed = Terms { scope, ..Terms::READ_ONLY };
    let mut world = World::new(unnamed).await;
    let mut client = world.client().await;
    let login = "username=admin&password=good";
    for _ in 0..2 {
        let refused = client.post("/api/users/_login", "", FORM, login).await;
        assert_eq!(
            refused.line,
            "HTTP/1.1 403 this admin connection is for named people: say who you are with gateway-ctl admin enter"
        );
    }
    assert!(world.engine.seen().is_empty(), "nothing reaches the engine");
    // On the same connection: the policy of the moment counts.
    world.change(Terms { person: Some("maria.lopez@north.example"), ..unnamed });
    let cookie = client.sign_in().await;
    assert_eq!(client.get("/api/server/version", &cookie).await.status(), 200);
    assert!(
        world
            .engine
            .seen()
            .iter()
            .all(|seen| seen.head.contains("X-Forwarded-For: maria.lopez@north.north_clinic\r\n"))
    );
    world.change(Terms { person: Some("maria.lopez@north.example"), person_until: 1, ..unnamed });
    assert_eq!(client.get("/api/server/version", &cookie).await.status(), 403, "her time is over");
    let people: Vec<_> = world.calls(5).await.into_iter().map(|call| (call.status, call.person)).collect();
    let maria = Some("maria.lopez@north.example".to_owned());
    assert_eq!(people, [(403, None), (403, None), (200, maria.clone()), (200, maria), (403, None)]);
}
