//! What a read-only partner must not learn, where an answer or a form is not what it says it is.

use crate::{
    FORM,
    world::{Terms, World},
};

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
