//! What ends, and what does not: sessions at one path of the API, connections whose client still sends.

use crate::{FORM, XML, site::Terms, world::World};

#[tokio::test]
async fn a_call_at_another_path_of_the_api_takes_no_account_out_of_the_log() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = client.sign_in().await;
    // The engine keeps the sessions of each path by themselves: there the cookie is nobody's, and a sign-out ends none here.
    assert_eq!(client.get("/api/4.5.2/users/current", &cookie).await.status(), 401);
    assert!(client.post("/api/4.5.2/users/_logout", &cookie, FORM, "").await.status() < 500);
    assert_eq!(client.get("/api/server/version", &cookie).await.status(), 200);
    assert_eq!(client.post("/api/channels/_getSummary", &cookie, XML, "<map/>").await.status(), 200);
    // The engine says that the session here has ended, and is asked when it comes again.
    world.engine.ails(Some("401 Unauthorized"));
    assert_eq!(client.get("/api/users/current", &cookie).await.status(), 401);
    world.engine.ails(None);
    assert_eq!(client.get("/api/server/version", &cookie).await.status(), 200);
    let calls = world.calls(7).await;
    let accounts: Vec<_> = calls.iter().map(|call| call.account.as_deref()).collect();
    let admin = Some("admin");
    assert_eq!(accounts, [admin, None, None, admin, admin, admin, admin]);
}

#[tokio::test]
async fn a_refused_call_with_a_large_body_is_answered_to_a_client_that_reads_after_it_has_sent_all() {
    let world = World::new(Terms::READ_ONLY).await;
    let cookie = world.client().await.sign_in().await;
    for (megabytes, framing) in [(2, "Content-Length"), (12, "Content-Length"), (12, "Transfer-Encoding")] {
        let mut client = world.client().await;
        let body = vec![b'x'; megabytes << 20];
        let length = if framing == "Content-Length" { body.len().to_string() } else { "chunked".to_owned() };
        let fields = format!("Host: h\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nContent-Type: {XML}\r\n");
        client.send(format!("POST /api/channels HTTP/1.1\r\n{fields}{framing}: {length}\r\n\r\n").as_bytes()).await;
        if framing == "Transfer-Encoding" {
            client.send(format!("{:x}\r\n", body.len()).as_bytes()).await;
        }
        client.send_all(&body).await;
        let refused = client.reply().await.expect("the refusal");
        assert_eq!(refused.line, "HTTP/1.1 403 read-only through gateway: create channel is not permitted");
    }
    assert!(world.engine.seen().iter().all(|seen| seen.path != "/api/channels"));
}
