//! Whose call it was: the account at the engine, and the stream that it came on.

use gateway_proto::policy::ConnectionKind;

use crate::{
    FORM,
    site::Terms,
    world::{LIMIT, World},
};

#[tokio::test]
async fn the_account_of_a_session_that_is_not_known_here_is_asked_for_once_and_recorded() {
    let world = World::new(Terms { kind: ConnectionKind::AdminReadWrite, ..Terms::READ_ONLY }).await;
    // Of before a restart of this gateway.
    let cookie = world.engine.session("/api");
    let mut client = world.client().await;
    assert_eq!(client.get("/api/channels", &cookie).await.status(), 200);
    assert_eq!(client.post("/api/channels/a/_stop", &cookie, FORM, "").await.status(), 200);
    // What the engine does not know, it answers as it thinks right.
    assert_eq!(client.get("/api/server/version", "JSESSIONID=made-up").await.status(), 200);
    let accounts: Vec<_> = world.calls(3).await.into_iter().map(|call| call.account).collect();
    assert_eq!(accounts, [Some("admin".to_owned()), Some("admin".to_owned()), None]);
    let asked = world.engine.seen().iter().filter(|seen| seen.path == "/api/users/current").count();
    assert_eq!(asked, 2, "once for each of the two");
}

#[tokio::test]
async fn who_a_cookie_is_at_one_path_of_the_api_is_not_who_it_is_at_another_one() {
    let world = World::new(Terms { kind: ConnectionKind::AdminReadWrite, ..Terms::READ_ONLY }).await;
    // Of before a restart of this gateway.
    let cookie = world.engine.session("/api");
    let mut client = world.client().await;
    let form = "username=guest&password=good";
    assert_eq!(client.post("/api/4.5.2/users/_login", &cookie, FORM, form).await.status(), 200);
    assert_eq!(client.post("/api/channels/a/_stop", &cookie, FORM, "").await.status(), 200);
    assert_eq!(client.get("/api/4.5.2/channels", &cookie).await.status(), 200);
    let accounts: Vec<_> = world.calls(3).await.into_iter().map(|call| call.account).collect();
    let [guest, admin] = ["guest", "admin"].map(|account| Some(account.to_owned()));
    assert_eq!(accounts, [guest.clone(), admin, guest]);
}

#[tokio::test]
async fn a_call_goes_on_without_a_name_when_the_engine_does_not_say_whose_session_it_is() {
    let world = World::new(Terms::READ_ONLY).await;
    let cookie = world.engine.session("/api");
    let mut client = world.client().await;
    let begun = std::time::Instant::now();
    // No answer, no HTTP, and no account.
    for ailment in ["", "what is this", "500 Server Error"] {
        world.engine.ails(Some(ailment));
        assert_eq!(client.get("/api/channels", &cookie).await.status(), 200, "{ailment}");
    }
    assert!(begun.elapsed() < LIMIT, "nobody waits for a name as for an answer");
    world.engine.ails(None);
    assert_eq!(client.get("/api/channels", &cookie).await.status(), 200);
    let accounts: Vec<_> = world.calls(4).await.into_iter().map(|call| call.account).collect();
    assert_eq!(accounts, [None, None, None, Some("admin".to_owned())]);
}

#[tokio::test]
async fn a_page_that_is_answered_names_nobody_in_later_calls() {
    let world = World::new(Terms::READ_ONLY).await;
    let mut client = world.client().await;
    let cookie = "JSESSIONID=somebody";
    // The engine's page answers a wrong password with itself.
    let form = "username=admin&password=guess";
    assert_eq!(client.post("/webadmin/Login.action", cookie, FORM, form).await.status(), 200);
    assert_eq!(client.get("/api/server/version", cookie).await.status(), 200);
    let calls = world.calls(2).await;
    let found: Vec<_> = calls.iter().map(|call| (call.path.as_ref(), call.account.as_deref())).collect();
    assert_eq!(found, [("webadmin sign-in", Some("admin")), ("/server/version", None)]);
}

#[tokio::test]
async fn a_call_is_recorded_with_the_stream_that_it_came_on() {
    let world = World::new(Terms::READ_ONLY).await;
    let (mut one, mut other) = (world.client().await, world.client().await);
    for client in [&mut one, &mut other] {
        for _ in 0..2 {
            assert_eq!(client.get("/api/server/version", "").await.status(), 200);
        }
    }
    drop(one);
    world.ended_streams(1).await;
    drop(other);
    let ended = world.ended_streams(2).await;
    let calls = world.calls(4).await;
    let traces: Vec<_> = calls.iter().map(|call| &call.trace).collect();
    assert_eq!(traces, [&ended[0], &ended[0], &ended[1], &ended[1]]);
    assert!(ended[0] != ended[1] && ended.iter().all(|trace| trace.len() == 16), "{ended:?}");
}
