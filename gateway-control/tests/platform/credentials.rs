//! Tokens of automation, invitations, passwords.

use std::time::Duration;

use gateway_proto::api::{
    Problem,
    invitation::InvitationLink,
    platform::{
        ApiToken, CreatedApiToken, CreatedInvitation, CreatedSubOrganization, Invitation, Role, Server, Session,
    },
};
use serde_json::{Value, json};

use super::{
    database,
    harness::{Control, Org},
};

/// The same user, acting by a new token with these scopes.
async fn by_token<'a>(org: &Org<'a>, scopes: &[&str]) -> (Org<'a>, CreatedApiToken) {
    let created: CreatedApiToken = org.post("/api-tokens", json!({"name": "automation", "scopes": scopes})).await;
    let mut user = org.detached(org.control);
    user.token = created.token.0.clone();
    (user, created)
}

#[tokio::test]
async fn a_token_acts_as_its_user_within_its_scopes_and_never_beyond() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let (reader, _) = by_token(&hospital, &["read"]).await;
    assert!(reader.list::<Server>("/servers").await.is_empty());
    let problem = reader.refused("POST", "/servers", Some(json!({"name": "x"}))).await;
    assert_eq!(problem.code, "forbidden");
    assert!(problem.detail.contains("'server'"), "{}", problem.detail);
    for (path, body) in [
        ("/api-tokens", json!({"name": "x", "scopes": ["read"]})),
        ("/me/password", json!({"current": "correct horse battery", "new": "another long password"})),
        ("/invitations", json!({"email": "a@b.example", "name": "x", "role": "viewer"})),
    ] {
        assert_eq!(reader.refused("POST", path, Some(body)).await.code, "forbidden", "{path}");
    }
    assert_eq!(reader.refused("GET", "/audit", None).await.code, "forbidden");
    let (builder, _) = by_token(&hospital, &["read", "server"]).await;
    let _: Server = builder.post("/servers", json!({"name": "main"})).await;
    // Whom a token adds could sign in, and would have no scopes: a token adds nobody.
    let (people, _) = by_token(&hospital, &["read", "user"]).await;
    let body = json!({"email": "x@y.example", "name": "x", "role": "viewer", "password": "a long enough password"});
    assert_eq!(people.refused("POST", "/users", Some(body)).await.code, "forbidden");
    let body = json!({"email": "x@y.example", "name": "x", "role": "viewer"});
    assert_eq!(people.refused("POST", "/invitations", Some(body)).await.code, "forbidden");
    // Without the scope `read` nothing is read, and nobody is signed out by a token.
    let (blind, _) = by_token(&hospital, &["server"]).await;
    for path in ["/me", "/me/totp", "/organization", "/tiers", "/relays", "/behaviors"] {
        assert_eq!(blind.refused("GET", path, None).await.code, "forbidden", "{path}");
    }
    assert_eq!(blind.refused("DELETE", "/sessions/current", None).await.code, "forbidden");
    // The role of the user is the upper bound.
    let viewer = hospital.user("viewer").await;
    let (wide, _) = by_token(&viewer, &["read", "server", "user", "audit"]).await;
    assert_eq!(wide.refused("POST", "/servers", Some(json!({"name": "x"}))).await.code, "forbidden");
    assert_eq!(wide.refused("GET", "/audit", None).await.code, "forbidden");
    // Scopes that do not exist, none at all, the one for tokens: refused.
    for scopes in [json!([]), json!(["everything"]), json!(["token"])] {
        let body = json!({"name": "x", "scopes": scopes});
        assert_eq!(hospital.refused("POST", "/api-tokens", Some(body)).await.code, "invalid");
    }
    assert_eq!(viewer.list::<ApiToken>("/api-tokens").await.len(), 1, "a viewer sees its own");
    let written = async {
        loop {
            let all: Vec<ApiToken> = hospital.list("/api-tokens").await;
            assert_eq!(all.len(), 5);
            if all[0].last_used_at.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("the use was never written down");
}

#[tokio::test]
async fn a_token_ends_by_itself_when_revoked_with_its_user_and_with_a_new_password() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let body = json!({"name": "short", "scopes": ["read"], "valid_secs": 60});
    let short: CreatedApiToken = hospital.post("/api-tokens", body).await;
    let mut user = hospital.detached(&control);
    user.token = short.token.0.clone();
    let _: Value = user.get("/me").await;
    control.clock.advance(Duration::from_secs(60));
    assert_eq!(user.refused("GET", "/me", None).await.code, "unauthenticated");

    let (revoked, created) = by_token(&hospital, &["read"]).await;
    let path = format!("/api-tokens/{}", created.api_token.id);
    assert_eq!(lab.refused("DELETE", &path, None).await.code, "not_found");
    let viewer = hospital.user("viewer").await;
    assert_eq!(viewer.refused("DELETE", &path, None).await.code, "forbidden");
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(revoked.refused("GET", "/me", None).await.code, "unauthenticated");

    let (of_viewer, _) = by_token(&viewer, &["read"]).await;
    let path = format!("/users/{}", viewer.session.user.id);
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(of_viewer.refused("GET", "/me", None).await.code, "unauthenticated");

    let (by_token, _) = by_token(&hospital, &["read"]).await;
    let other_session = hospital.sign_in().await;
    let wrong = json!({"current": "wrong password", "new": "a new long password"});
    assert_eq!(hospital.refused("POST", "/me/password", Some(wrong)).await.code, "forbidden");
    let short = json!({"current": "correct horse battery", "new": "short"});
    assert_eq!(hospital.refused("POST", "/me/password", Some(short)).await.code, "invalid");
    let body = json!({"current": "correct horse battery", "new": "a new long password"});
    assert_eq!(hospital.send("POST", "/me/password", Some(body)).await.status(), 204);
    let _: Value = hospital.get("/me").await;
    for ended in [&by_token, &other_session] {
        assert_eq!(ended.refused("GET", "/me", None).await.code, "unauthenticated");
    }
    let login = json!({"email": "owner@hospital.example", "password": "correct horse battery"});
    assert_eq!(control.request("POST", "/api/v1/sessions").json(&login).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_session_cannot_be_used_to_guess_the_password_of_its_user() {
    let control = Control::start_with("[limits]\nlogins_per_minute = 1000\n").await;
    let hospital = control.organization("Hospital").await;
    let elsewhere = hospital.sign_in().await;
    let change = |current: &str| Some(json!({"current": current, "new": "a new long password"}));
    for n in 0..10 {
        let guess = format!("wrong password {n}");
        assert_eq!(hospital.refused("POST", "/me/password", change(&guess)).await.code, "forbidden");
        let body = json!({"password": guess});
        assert_eq!(hospital.refused("POST", "/me/totp", Some(body)).await.code, "forbidden");
    }
    // From now on a right one is no better than a wrong one: the answer tells nothing.
    for guess in ["correct horse battery", "wrong password"] {
        assert_eq!(hospital.refused("POST", "/me/password", change(guess)).await.code, "rate_limited");
        let body = json!({"password": guess});
        assert_eq!(hospital.refused("POST", "/me/totp", Some(body)).await.code, "rate_limited");
    }
    // Whoever has the password signs in and ends the other session.
    assert_eq!(elsewhere.send("POST", "/me/password", change("correct horse battery")).await.status(), 204);
    assert_eq!(hospital.refused("GET", "/me", None).await.code, "unauthenticated");
}

#[tokio::test]
async fn the_link_of_an_invitation_leads_here_and_its_code_is_in_no_request_for_the_page() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let person = json!({"email": "new@hospital.example", "name": "New", "role": "viewer"});
    let first: CreatedInvitation = hospital.post("/invitations", person).await;
    let sub = json!({"name": "Ward", "owner_email": "o@ward.example", "owner_name": "O"});
    let sub: CreatedSubOrganization = hospital.post("/tenant/organizations", sub).await;
    for created in [&first, &sub.invitation] {
        let text = created.link.as_ref().unwrap().0.clone();
        let link: InvitationLink = text.parse().unwrap();
        let (url, pin) = (control.ready.url.clone(), control.ready.tls_pin.clone());
        assert_eq!(link, InvitationLink { control: url.clone(), pin, code: created.code.clone() });
        assert_eq!(text.split_once('#').unwrap().0, format!("{url}/invitation"), "this much a browser sends");
        let body = json!({"code": link.code, "password": "my own long password"});
        let accept = async || {
            let request = control.request("POST", "/api/v1/invitations/accept").json(&body);
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!((accept().await, accept().await), (201, 401), "once");
    }

    let page = control.request("GET", "/invitation").send().await.unwrap();
    assert_eq!(page.status(), 200);
    for (name, value) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(page.headers()[name], value, "{name}");
    }
    let words = page.text().await.unwrap();
    assert!(words.contains("gateway-ctl user accept - --password-file FILE"), "{words}");
}

#[tokio::test]
async fn an_invitation_makes_one_user_and_only_as_long_as_the_inviter_may() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let admin = hospital.user("admin").await;
    let invite = async |by: &Org<'_>, email: &str, role: &str| {
        let body = json!({"email": email, "name": "New", "role": role});
        by.post::<CreatedInvitation>("/invitations", body).await
    };
    let accept = async |code: &str| {
        let body = json!({"code": code, "password": "my own long password"});
        let answer = control.request("POST", "/api/v1/invitations/accept").json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let first = invite(&admin, "New@hospital.example", "operator").await;
    let owner = json!({"email": "x@hospital.example", "name": "X", "role": "owner"});
    assert_eq!(admin.refused("POST", "/invitations", Some(owner)).await.code, "forbidden");
    let newest = invite(&admin, "new@hospital.example", "viewer").await;
    assert_eq!(hospital.list::<Invitation>("/invitations").await.len(), 1, "the newest of an address counts");
    assert_eq!(accept(&first.code.0).await.0, 401);
    assert_eq!(accept("gwi_00").await.0, 401);
    let (status, body) = accept(&newest.code.0).await;
    assert_eq!(status, 201, "{body}");
    let session: Session = serde_json::from_value(body).unwrap();
    assert_eq!((session.user.role, session.user.email.as_str()), (Role::Viewer, "new@hospital.example"));
    assert_eq!(accept(&newest.code.0).await.0, 401, "a code works once");
    let taken = json!({"email": "new@hospital.example", "name": "X", "role": "viewer"});
    assert_eq!(hospital.refused("POST", "/invitations", Some(taken)).await.code, "conflict");

    let taken_back = invite(&hospital, "b@hospital.example", "viewer").await;
    let path = format!("/invitations/{}", taken_back.invitation.id);
    assert_eq!(lab.refused("DELETE", &path, None).await.code, "not_found");
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(accept(&taken_back.code.0).await.0, 401);

    let orphan = invite(&admin, "c@hospital.example", "admin").await;
    let path = format!("/users/{}", admin.session.user.id);
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(accept(&orphan.code.0).await.0, 401, "whoever invited is gone");
    let late = invite(&hospital, "d@hospital.example", "viewer").await;
    control.clock.advance(Duration::from_secs(7 * 24 * 3600));
    assert_eq!(accept(&late.code.0).await.0, 401);
}

/// As many invitations as an organization may have, with the one that is there.
const TO_THE_LIMIT: &[&str] =
    &["WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 499)
     INSERT INTO invitations (id, code_hash, organization_id, invited_by, email, name, role, expires_at, created_at)
     SELECT id || '-' || CAST(number AS TEXT), code_hash || '-' || CAST(number AS TEXT), organization_id, invited_by,
         CAST(number AS TEXT) || email, name, role, expires_at, created_at
     FROM invitations, numbers WHERE email = 'waits@hospital.example'"];

#[tokio::test]
async fn an_invitation_that_is_over_makes_no_room_for_the_next_one_to_its_address() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let invitation = |who: &str, secs: u64| {
        let email = format!("{who}@hospital.example");
        json!({"email": email, "name": who, "role": "viewer", "valid_secs": secs})
    };
    let _: CreatedInvitation = hospital.post("/invitations", invitation("waits", 3_600)).await;
    let _: CreatedInvitation = hospital.post("/invitations", invitation("over", 60)).await;
    let (token, session, id) = (hospital.token.clone(), hospital.session.clone(), hospital.id.clone());
    let directory = control.stop().await;
    database::execute(directory.path(), TO_THE_LIMIT);
    let control = Control::start_in(directory, "").await;
    let hospital = Org { control: &control, token, id, session };
    // A clock that was set and did not run is not believed: nothing is removed.
    control.clock.set_ahead(Duration::from_secs(61));
    for (who, code) in [("over", Some("conflict")), ("other", Some("conflict")), ("waits", None)] {
        let answer = hospital.send("POST", "/invitations", Some(invitation(who, 3_600))).await;
        let problem = if answer.status().is_success() { None } else { Some(answer.json::<Problem>().await.unwrap()) };
        assert_eq!(problem.map(|problem| problem.code).as_deref(), code, "{who}");
    }
}

#[tokio::test]
async fn an_address_belongs_to_its_organization_and_tells_others_nothing() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let sign_in = async |password: &str, organization: Option<&str>| {
        let mut body = json!({"email": "owner@hospital.example", "password": password});
        if let Some(organization) = organization {
            body["organization"] = json!(organization);
        }
        let answer = control.request("POST", "/api/v1/sessions").json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status == 201)
            .then_some(answer.json::<Session>().await.ok())
            .flatten()
            .map(|session| session.organization.name)
    };
    // The lab takes the address of the hospital's owner for a user of its own, and learns nothing from that.
    let body = json!({"email": "owner@hospital.example", "name": "Visitor", "role": "viewer", "password": "the lab's own password"});
    let _: Value = lab.post("/users", body.clone()).await;
    let lab_name = Some("Lab".to_owned());
    assert_eq!(sign_in("correct horse battery", None).await.as_deref(), Some("Hospital"), "as before");
    assert_eq!(sign_in("the lab's own password", None).await, None);
    assert_eq!(sign_in("the lab's own password", Some("lab")).await, lab_name);
    assert_eq!(sign_in("the lab's own password", Some(&lab.id)).await, lab_name);
    assert_eq!(sign_in("correct horse battery", Some(&hospital.id)).await.as_deref(), Some("Hospital"));
    for (password, organization) in
        [("correct horse battery", "Lab"), ("the lab's own password", "Hospital"), ("correct horse battery", "Nobody")]
    {
        assert_eq!(sign_in(password, Some(organization)).await, None);
    }
    // Inside an organization it is there once.
    assert_eq!(lab.refused("POST", "/users", Some(body)).await.code, "conflict");
    let invitation = json!({"email": "owner@hospital.example", "name": "X", "role": "viewer"});
    assert_eq!(lab.refused("POST", "/invitations", Some(invitation)).await.code, "conflict");
}

#[tokio::test]
async fn a_session_that_was_made_while_the_clock_was_ahead_is_over_when_the_clock_is_right_again() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let before = hospital.token.clone();
    control.clock.set_ahead(Duration::from_secs(2 * 365 * 24 * 3600));
    let ahead = hospital.sign_in().await.token.clone();
    let directory = control.stop().await;
    let control = Control::start_in(directory, "").await;
    let me = async |token: &str| control.request("GET", "/api/v1/me").bearer_auth(token).send().await.unwrap().status();
    assert_eq!(me(&ahead).await, 401);
    assert_eq!(me(&before).await, 200);
}
