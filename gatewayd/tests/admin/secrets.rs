//! What a read-only partner must not learn, where an answer or a form is not what it says it is.

use gateway_proto::policy::{AdminScope, ConnectionKind};

use crate::{FORM, XML, site::Terms, world::World};

#[tokio::test]
async fn an_answer_in_which_secrets_cannot_be_masked_is_refused_as_a_whole() {
    const SECRET: &[u8] = b"<a><password>s3cret</password></a>";
    let world = World::new(Terms::READ_ONLY).await;
    let cookie = world.client().await.sign_in().await;
    let xml = "Content-Type: application/xml\r\n";
    let unreadable = "502 gateway: the engine's answer is in a format in which secrets cannot be masked";
    let compressed = "502 gateway: the engine's answer is compressed, so secrets cannot be masked in it";
    let packed = [b"\x1f\x8b\x08\x00".as_slice(), SECRET].concat();
    let wide: Vec<u8> = SECRET.iter().flat_map(|byte| [*byte, 0]).collect();
    for (fields, body, told) in [
        ("Content-Type: application/xml\r\nContent-Encoding: gzip\r\n", SECRET, compressed),
        (
            "Content-Type: application/xml\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n",
            SECRET,
            compressed,
        ),
        (xml, packed.as_slice(), unreadable),
        (xml, wide.as_slice(), unreadable),
        (xml, br#" {"password":"s3cret"}"#.as_slice(), unreadable),
        ("Content-Type: application/json\r\n", SECRET, unreadable),
        ("Content-Type: text/plain\r\n", SECRET, unreadable),
        ("", SECRET, unreadable),
    ] {
        world.engine.answers(fields, body);
        let answer = world.client().await.get("/api/channels", &cookie).await;
        assert_eq!(answer.line, format!("HTTP/1.1 {told}"), "{fields}");
        assert!(!answer.body.contains("s3cret"), "{fields}");
    }
    let calls = world.calls(9).await;
    let refused = calls.iter().filter(|call| call.path.as_ref() == "/channels");
    assert!(refused.clone().count() == 8 && refused.clone().all(|call| call.status == 502), "{calls:?}");
    // An answer of which nothing can pass before its end passes then.
    world.engine.answers(xml, b"  ");
    assert_eq!(world.client().await.get("/api/channels", &cookie).await.status(), 200);
    world.engine.answers(xml, SECRET);
    let answer = world.client().await.get("/api/channels", &cookie).await;
    assert_eq!(answer.body, "<a><password>********</password></a>");
}

#[tokio::test]
async fn an_error_of_the_engine_shows_no_secret_and_says_what_it_is() {
    const SECRET: &[u8] = b"<error><detailMessage>no such channel</detailMessage><password>s3cret</password></error>";
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    let xml = "Content-Type: application/xml\r\n";
    let masked = String::from_utf8_lossy(SECRET).replace("s3cret", "********");
    for status in ["300 Multiple Choices", "302 Found", "400 Bad Request", "404 Not Found", "500 Server Error"] {
        world.engine.answers_as(status, xml, SECRET);
        let answer = client.get("/api/channels", &cookie).await;
        assert_eq!((answer.line, &answer.body), (format!("HTTP/1.1 {status}"), &masked));
        for (fields, path) in [
            ("Content-Type: text/html\r\n", "/api/channels"),
            ("Content-Type: application/xml\r\nContent-Encoding: gzip\r\n", "/api/channels"),
            (xml, "/api/server/configurationMap"),
        ] {
            world.engine.answers_as(status, fields, SECRET);
            let answer = client.get(path, &cookie).await;
            assert_eq!((answer.line, answer.body.as_str()), (format!("HTTP/1.1 {status}"), ""), "{fields}");
            assert!(!answer.fields.contains("content-type") && !answer.fields.contains("content-encoding"), "{fields}");
        }
    }
    // A redirect says where to, and not what somebody put behind it; also one without a body.
    for body in [SECRET, b""] {
        let fields = "Content-Type: application/xml\r\nLocation: https://login.example/a?password=s3cret\r\n";
        world.engine.answers_as("302 Found", fields, body);
        let answer = client.get("/api/channels", &cookie).await;
        assert_eq!(answer.line, "HTTP/1.1 302 Found");
        assert!(answer.fields.contains("https://login.example/a"), "{}", answer.fields);
        assert!(!answer.fields.contains("s3cret"), "{}", answer.fields);
    }
    // What is too long to be held is not led back, and what comes of it later is no part of the next answer.
    world.engine.answers_as("500 Server Error", xml, &SECRET.repeat(8 << 10));
    let answer = client.get("/api/channels", &cookie).await;
    assert_eq!((answer.line.as_str(), answer.body.as_str()), ("HTTP/1.1 500 Server Error", ""));
    world.engine.answers(xml, SECRET);
    assert_eq!(client.get("/api/channels", &cookie).await.body, masked);
}

#[tokio::test]
async fn the_account_of_a_sign_in_is_the_same_for_every_reader_of_its_form() {
    let world = World::new(Terms::READ_ONLY).await;
    let wide = format!("{FORM}; charset=UTF-16");
    let refused = world.client().await.post("/api/users/_login", "", &wide, "username=bob1&password=x").await;
    assert_eq!(refused.line, "HTTP/1.1 403 refused by the gateway: a sign-in is a form in UTF-8");
    for form in ["username=%u0062ypass&password=x", "username=%c1%a2ypass&password=x", "username=bob\0&password=x"] {
        let refused = world.client().await.post("/api/users/_login", "", FORM, form).await;
        let reason = "HTTP/1.1 403 refused by the gateway: the sign-in form can be read in more than one way";
        assert_eq!(refused.line, reason, "{form}");
    }
    assert!(world.engine.seen().is_empty(), "nothing reaches the engine");
    let plain = format!("{FORM}; charset=UTF-8");
    let login = world.client().await.post("/api/users/_login", "", &plain, "username=admin&password=good").await;
    assert_eq!(login.status(), 200);
}

#[tokio::test]
async fn a_session_of_one_api_lets_no_body_pass_to_another_one() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    assert_eq!(client.post("/api/channels/_getSummary", &cookie, XML, "<map/>").await.status(), 200);
    world.engine.forget();
    let refused = client.post("/api/4.5.2/channels/_getSummary", &cookie, XML, "<evil/>").await;
    assert_eq!(refused.line, "HTTP/1.1 401 sign in at the engine first");
    assert!(world.engine.seen().iter().all(|seen| seen.body.is_empty()), "{:?}", world.engine.seen());
    // At the API where it began it is as good as before.
    assert_eq!(client.post("/api/channels/_getSummary", &cookie, XML, "<map/>").await.status(), 200);
}

#[tokio::test]
async fn whom_the_owners_people_looked_at_and_searched_for_is_told_with_the_option_patient_data_only() {
    const EVENTS: &[u8] =
        b"<list><event><id>7</id><attributes class=\"linked-hash-map\"><entry><string>PATIENT_ID</string>\
        <string>DOE^JOHN</string></entry></attributes></event></list>";
    const SEARCH: &str = "<eventFilter><attributeSearch>DOE</attributeSearch></eventFilter>";
    let terms = Terms { kind: ConnectionKind::AdminReadWrite, ..Terms::READ_ONLY };
    let mut world = World::new(terms).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    world.engine.answers("Content-Type: application/xml\r\n", EVENTS);
    let page = client.post("/api/events/_search?offset=0&limit=101", &cookie, XML, "<eventFilter/>").await;
    assert_eq!(page.body, String::from_utf8_lossy(EVENTS).replace("DOE^JOHN", "********"));
    assert_eq!(world.engine.seen().last().unwrap().body, b"<eventFilter/>");
    world.engine.forget();
    let search = client.post("/api/events/_search?offset=0&limit=101", &cookie, XML, SEARCH).await;
    let reason = "not part of this admin connection: search in what events tell needs the option patient data";
    assert_eq!(search.line, format!("HTTP/1.1 403 {reason}"));
    assert_eq!(client.get("/api/events/count?attributeSearch=DOE", &cookie).await.status(), 403);
    assert!(world.engine.seen().is_empty(), "{:?}", world.engine.seen());
    world.change(Terms { scope: AdminScope { patient_data: true, ..AdminScope::default() }, ..terms });
    let page = client.post("/api/events/_search", &cookie, XML, SEARCH).await;
    assert_eq!(page.body.as_bytes(), EVENTS);
}
