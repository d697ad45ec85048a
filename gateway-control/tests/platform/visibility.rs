use gateway_proto::{
    api::{
        Page,
        platform::{Channel, DirectoryEntry, Grant, PublishedEndpoint, Server, User},
    },
    id::{AgreementId, ChannelId, ConnectionId, GrantId, OrganizationId, PeeringRequestId, ServerId, UserId},
};
use serde_json::{Value, json};

use super::harness::Control;

#[tokio::test]
async fn who_does_not_want_to_be_found_is_not() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let off = json!({"discoverable": false});
    assert_eq!(lab.send("PATCH", "/organization", Some(off)).await.status(), 200);
    let found: Vec<DirectoryEntry> = hospital.list("/directory").await;
    assert_eq!(found.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["Hospital"]);
    assert_eq!(found[0].relation, "self");
    let problem = hospital.refused("POST", "/peering-requests", Some(json!({"organization_id": lab.id}))).await;
    let unknown = json!({"organization_id": OrganizationId::new(1, [1; 10])});
    let invented = hospital.refused("POST", "/peering-requests", Some(unknown)).await;
    assert_eq!((problem.status, &problem.detail), (404, &invented.detail), "hidden looks like absent");
    // Nor by its id, not even by itself or a partner: what the list has can be asked for, and nothing else.
    let by_id = |id: &str| format!("/directory/{id}");
    let invented = hospital.refused("GET", &by_id(&OrganizationId::new(1, [1; 10]).to_string()), None).await;
    for (who, hidden) in [(&hospital, &lab.id), (&lab, &lab.id)] {
        let problem = who.refused("GET", &by_id(hidden), None).await;
        assert_eq!((problem.status, &problem.detail), (404, &invented.detail), "hidden looks like absent");
    }
    for (who, relation) in [(&hospital, "self"), (&lab, "none")] {
        let entry: DirectoryEntry = who.get(&by_id(&hospital.id)).await;
        let listed: Vec<DirectoryEntry> = who.list("/directory").await;
        assert_eq!((entry.relation.as_str(), vec![entry.clone()]), (relation, listed));
    }
    // The wildcard characters of the search are text.
    assert!(hospital.list::<DirectoryEntry>("/directory?q=%25").await.is_empty());
    assert!(hospital.list::<DirectoryEntry>("/directory?q=_ospital").await.is_empty());
    assert_eq!(hospital.list::<DirectoryEntry>("/directory?q=OSPITAL").await.len(), 1);
}

#[tokio::test]
async fn what_is_over_keeps_its_names_and_tells_a_former_partner_no_new_ones() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let id = pair.connection("Orders").await;
    let share = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": "metrics"});
    let _: Value = lab.post("/server-shares", share).await;
    let stranger = control.organization("Stranger").await;
    let request: Value = stranger.post("/peering-requests", json!({"organization_id": lab.id})).await;
    let path = format!("/peering-requests/{}/decline", request["id"].as_str().unwrap());
    let _: Value = lab.post(&path, json!({})).await;
    // While the agreement stands, a partner sees what the channel and the organization are called now.
    let channels: Vec<Channel> = lab.list("/channels").await;
    let path = format!("/channels/{}", channels[0].id);
    assert_eq!(lab.send("PATCH", &path, Some(json!({"public_name": "Results"}))).await.status(), 200);
    assert_eq!(lab.send("PATCH", "/organization", Some(json!({"name": "Big Lab"}))).await.status(), 200);
    let seen = hospital.connection(&id).await;
    assert_eq!((seen.endpoint.as_str(), seen.listener.organization_name.as_str()), ("Results", "Big Lab"));
    let _: Value = lab.post(&format!("/agreements/{}/end", pair.agreement), json!({})).await;
    assert_eq!(lab.send("PATCH", &path, Some(json!({"public_name": "Hush"}))).await.status(), 200);
    let hidden = json!({"name": "Hush Lab", "discoverable": false});
    assert_eq!(lab.send("PATCH", "/organization", Some(hidden)).await.status(), 200);
    let grants: Vec<Grant> = hospital.list("/grants").await;
    assert_eq!((grants[0].endpoint.as_str(), grants[0].peer_name.as_str()), ("Results", "Big Lab"));
    let seen = hospital.connection(&id).await;
    assert_eq!((seen.endpoint.as_str(), seen.listener.organization_name.as_str()), ("Results", "Big Lab"));
    assert_eq!(hospital.agreement(&pair.agreement).await.peer_name, "Big Lab");
    let asked: Vec<Value> = stranger.list("/peering-requests").await;
    assert_eq!(asked[0]["peer_name"], "Lab", "as it was when the request came to nothing");
    for path in [
        "/grants".to_owned(),
        format!("/grants/{}", grants[0].id),
        "/connections?ended=true".to_owned(),
        "/agreements".to_owned(),
        "/peering-requests".to_owned(),
        "/server-shares?ended=true".to_owned(),
        "/audit".to_owned(),
        "/directory".to_owned(),
    ] {
        for org in [hospital, &stranger] {
            let text = org.send("GET", &path, None).await.text().await.unwrap();
            assert!(!text.contains("Hush"), "{path}: {text}");
        }
    }
    // Partners again: what stands shows the names of now, what was over stays as it was.
    let seen = lab.send("PATCH", "/organization", Some(json!({"discoverable": true}))).await;
    assert_eq!(seen.status(), 200);
    let again = hospital.agree_with(lab).await;
    assert_eq!(hospital.agreement(&again).await.peer_name, "Hush Lab");
    assert_eq!(hospital.agreement(&pair.agreement).await.peer_name, "Big Lab");
}

#[tokio::test]
async fn ids_of_others_answer_not_found_on_every_route() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let stranger = control.organization("Stranger").await;
    let connection = pair.connection("Orders").await;
    let grants: Vec<Grant> = pair.lab.list("/grants").await;
    let channels: Vec<Channel> = pair.lab.list("/channels").await;
    let users: Vec<User> = pair.lab.list("/users").await;
    let requests: Vec<Value> = pair.lab.list("/peering-requests").await;
    let (grant, channel, user) = (grants[0].id, channels[0].id, users[0].id);
    let (server, agreement) = (pair.lab_server.id, &pair.agreement);
    let request = requests[0]["id"].as_str().unwrap();
    let device = pair.lab.list::<Value>("/devices").await[0]["id"].as_str().unwrap().to_owned();
    let token: Value = pair.lab.post(&format!("/devices/{device}/tokens"), json!({})).await;
    let token = token["device_token"]["id"].as_str().unwrap();
    let _ = pair.lab.code(&pair.lab_server).await;
    let codes: Vec<Value> = pair.lab.list(&format!("/servers/{server}/enrollment-codes")).await;
    let code = codes[0]["id"].as_str().unwrap();
    let empty = || Some(json!({}));
    let mut calls = vec![
        ("GET", format!("/servers/{server}"), None),
        ("DELETE", format!("/servers/{server}"), None),
        ("POST", format!("/servers/{server}/enrollment-codes"), empty()),
        ("GET", format!("/servers/{server}/enrollment-codes"), None),
        ("DELETE", format!("/servers/{server}/enrollment-codes/{code}"), None),
        ("GET", format!("/servers/{server}/engine"), None),
        (
            "POST",
            format!("/servers/{server}/engine/channels"),
            Some(json!({"engine_channel": "a", "public_name": "x"})),
        ),
        ("GET", format!("/channels/{channel}"), None),
        ("PATCH", format!("/channels/{channel}"), empty()),
        ("DELETE", format!("/channels/{channel}"), None),
        ("GET", format!("/users/{user}"), None),
        ("PATCH", format!("/users/{user}"), Some(json!({"role": "viewer"}))),
        ("DELETE", format!("/users/{user}"), None),
        ("GET", format!("/agreements/{agreement}"), None),
        ("GET", format!("/devices/{device}"), None),
        ("PATCH", format!("/devices/{device}"), empty()),
        ("DELETE", format!("/devices/{device}"), None),
        ("GET", format!("/devices/{device}/tokens"), None),
        ("POST", format!("/devices/{device}/tokens"), empty()),
        ("DELETE", format!("/device-tokens/{token}"), None),
        ("GET", format!("/endpoints?agreement={agreement}"), None),
        ("GET", format!("/grants/{grant}"), None),
        ("GET", format!("/connections/{connection}"), None),
        ("POST", "/grants".to_owned(), Some(json!({"agreement_id": agreement, "channel_id": channel}))),
        ("POST", "/channels".to_owned(), Some(json!({"server_id": server, "name": "x", "engine": "127.0.0.1:1"}))),
    ];
    for (path, acts) in [
        (format!("/peering-requests/{request}"), &["accept", "decline", "withdraw"][..]),
        (format!("/agreements/{agreement}"), &["suspend", "resume", "end"]),
        (format!("/grants/{grant}"), &["approve", "deny", "withdraw", "revoke", "surrender"]),
        (format!("/connections/{connection}"), &["activate", "pause", "resume", "retry", "terminate"]),
    ] {
        calls.extend(acts.iter().map(|act| ("POST", format!("{path}/{act}"), empty())));
    }
    for (method, path, body) in calls {
        let problem = stranger.refused(method, &path, body).await;
        assert_eq!((problem.code.as_str(), problem.status), ("not_found", 404), "{method} {path}");
    }
    for path in [
        "/servers",
        "/channels",
        "/agreements",
        "/grants",
        "/connections?ended=true",
        "/peering-requests",
        "/device-tokens",
    ] {
        assert!(stranger.list::<Value>(path).await.is_empty(), "{path}");
    }
    // The peer of an agreement is no owner either: the lab's channel and server stay the lab's.
    for path in [format!("/channels/{channel}"), format!("/servers/{server}")] {
        assert_eq!(pair.hospital.refused("GET", &path, None).await.code, "not_found");
    }
    // Invented and malformed ids look the same.
    for id in [ServerId::new(1, [1; 10]).to_string(), ChannelId::new(1, [1; 10]).to_string(), "x".to_owned()] {
        assert_eq!(stranger.refused("GET", &format!("/servers/{id}"), None).await.status, 404);
    }
    let ids = [
        format!("/agreements/{}", AgreementId::new(1, [1; 10])),
        format!("/grants/{}", GrantId::new(1, [1; 10])),
        format!("/connections/{}", ConnectionId::new(1, [1; 10])),
    ];
    for path in ids {
        assert_eq!(stranger.refused("GET", &path, None).await.status, 404);
    }
    let path = format!("/peering-requests/{}/accept", PeeringRequestId::new(1, [1; 10]));
    assert_eq!(stranger.refused("POST", &path, empty()).await.status, 404);
    assert_eq!(stranger.refused("DELETE", &format!("/users/{}", UserId::new(1, [1; 10])), None).await.status, 404);
}

#[tokio::test]
async fn an_unpublished_channel_is_neither_seen_nor_granted_but_its_grants_stay() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let channels: Vec<Channel> = pair.lab.list("/channels").await;
    let path = format!("/channels/{}", channels[0].id);
    assert_eq!(pair.lab.send("PATCH", &path, Some(json!({"published": false}))).await.status(), 200);
    let seen: Vec<PublishedEndpoint> = pair.hospital.list(&format!("/endpoints?agreement={}", pair.agreement)).await;
    assert!(seen.is_empty());
    let body = json!({"agreement_id": pair.agreement, "channel_id": channels[0].id});
    assert_eq!(pair.hospital.refused("POST", "/grants", Some(body.clone())).await.code, "not_found");
    assert_eq!(pair.lab.refused("POST", "/grants", Some(body)).await.code, "conflict");
    assert_eq!(pair.lab.connection(&id).await.status.as_str(), "ready");
    // Removing it does end them.
    assert_eq!(pair.lab.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(pair.lab.connection(&id).await.status.as_str(), "terminated");
}

#[tokio::test]
async fn a_list_comes_in_pages_of_stable_order() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    for n in 0..7 {
        hospital.server(&format!("s{n}")).await;
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Page<Server> = hospital.get(&format!("/servers?limit=3{cursor}")).await;
        assert!(page.items.len() <= 3);
        names.extend(page.items.into_iter().map(|server| server.name));
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    assert_eq!(hospital.refused("GET", "/servers?limit=201", None).await.code, "invalid");
    assert_eq!(hospital.refused("GET", "/servers?cursor=*", None).await.code, "invalid");
    assert_eq!(hospital.refused("POST", "/servers", Some(json!({"name": "S3"}))).await.code, "conflict");
}
