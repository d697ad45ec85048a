//! Signing in through a provider of OpenID Connect: who is meant, what is believed, and what is not.

mod hostile;
mod provider;
mod sign_out;

use std::time::Duration;

use gateway_control::clock::Clock;
use gateway_proto::api::platform::{
    AuditEntry, Identity, OidcProvider, Session, SignInWays, StartedOidc, User, oidc_challenge,
};
use serde_json::{Value, json};
use url::Url;

use self::provider::{Manner, Provider, Signature};
use super::harness::{Control, Org};

const FAST: &str = "[limits]\nrequests_per_second = 100000\nlogins_per_minute = 100000\n";
const VERIFIER: &str = "what the client keeps";

/// A control plane that knows the provider.
async fn control_for(provider: &Provider, more: &str) -> Control {
    Control::start_with(&format!("{FAST}{}", provider.section(more))).await
}

/// Status and body of an answer.
async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

async fn start(control: &Control) -> StartedOidc {
    let body = json!({"challenge": oidc_challenge(VERIFIER)});
    let (status, started) = answer(control.request("POST", "/api/v1/oidc/start").json(&body)).await;
    assert_eq!(status, 201, "{started}");
    serde_json::from_value(started).unwrap()
}

/// Brings the browser back; the code on the page, or the problem.
async fn come_back(control: &Control, url: &Url) -> Result<String, Value> {
    let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let answer = control.request("GET", &path).send().await.unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    if status != 200 {
        return Err(serde_json::from_str(&text).unwrap());
    }
    Ok(text.split("<code>").nth(1).unwrap().split("</code>").next().unwrap().to_owned())
}

async fn finish(control: &Control, code: &str, organization: Option<&str>) -> (u16, Value) {
    let mut body = json!({"code": code, "verifier": VERIFIER});
    if let Some(organization) = organization {
        body["organization"] = json!(organization);
    }
    answer(control.request("POST", "/api/v1/oidc/sessions").json(&body)).await
}

/// All of it: the session, or the problem of whichever step refused.
async fn sign_in_to(
    control: &Control,
    provider: &Provider,
    claims: Value,
    organization: Option<&str>,
) -> Result<Session, Value> {
    let started = start(control).await;
    let code = come_back(control, &provider.sign_in(&started.authorization_url, claims)).await?;
    let (status, body) = finish(control, &code, organization).await;
    if status == 201 { Ok(serde_json::from_value(body).unwrap()) } else { Err(body) }
}

async fn sign_in(control: &Control, provider: &Provider, claims: Value) -> Result<Session, Value> {
    sign_in_to(control, provider, claims, None).await
}

fn verified(subject: &str, email: &str) -> Value {
    json!({"sub": subject, "email": email, "email_verified": true})
}

fn code(refused: Result<Session, Value>) -> String {
    refused.unwrap_err()["code"].as_str().unwrap().to_owned()
}

fn org<'c>(control: &'c Control, session: Session) -> Org<'c> {
    Org { control, token: session.token.0.clone(), id: session.organization.id.to_string(), session }
}

async fn invite(org: &Org<'_>, email: &str, role: &str) {
    let _: Value = org.post("/invitations", json!({"email": email, "name": "Maria", "role": role})).await;
}

#[tokio::test]
async fn who_was_invited_becomes_a_user_without_a_password_and_stays_the_same_whatever_the_address() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let providers: Vec<OidcProvider> =
        control.request("GET", "/api/v1/oidc/providers").send().await.unwrap().json().await.unwrap();
    assert_eq!(providers.len(), 1);
    assert_eq!(providers[0].name, "corporate");
    let claims = verified("subject-1", "Maria@Hospital.example");
    assert_eq!(code(sign_in(&control, &provider, claims.clone()).await), "oidc_unknown", "nobody invited her");
    assert_eq!(hospital.list::<User>("/users").await.len(), 1);
    invite(&hospital, "maria@hospital.example", "operator").await;
    let first = sign_in(&control, &provider, claims).await.unwrap();
    assert_eq!((first.user.email.as_str(), first.organization.name.as_str()), ("maria@hospital.example", "Hospital"));
    assert_eq!(hospital.list::<Value>("/invitations").await.len(), 0);
    let maria = org(&control, first);
    let ways: SignInWays = maria.get("/me/sign-in").await;
    assert!(!ways.password && !ways.second_factor);
    assert_eq!(ways.identities.len(), 1);
    assert_eq!(ways.identities[0].provider.as_deref(), Some("corporate"));
    assert_eq!(
        (ways.identities[0].issuer.as_str(), ways.identities[0].subject.as_str()),
        (provider.issuer.as_str(), "subject-1")
    );
    for password in ["", "correct horse battery"] {
        let login = json!({"email": "maria@hospital.example", "password": password});
        let (status, problem) = answer(control.request("POST", "/api/v1/sessions").json(&login)).await;
        assert_eq!((status, problem["code"].as_str()), (401, Some("unauthenticated")));
    }
    // From now on the account counts: with another address, an unverified one, or none.
    control.clock.advance(Duration::from_secs(30));
    for claims in [
        verified("subject-1", "new@hospital.example"),
        json!({"sub": "subject-1", "email": "x@y.example", "email_verified": false}),
        json!({"sub": "subject-1"}),
    ] {
        let again = sign_in(&control, &provider, claims).await.unwrap();
        assert_eq!(again.user.id, maria.session.user.id);
        assert_eq!(again.user.email, "maria@hospital.example");
    }
    let ways: SignInWays = maria.get("/me/sign-in").await;
    assert!(ways.identities[0].last_used_at > ways.identities[0].linked_at);
    let log: Vec<AuditEntry> = hospital.list("/audit").await;
    let detail = |act: &str| log.iter().find(|entry| entry.act == act).map(|entry| entry.detail.as_str());
    assert_eq!(detail("user.link"), Some("maria@hospital.example with account subject-1 of 'corporate'"));
    assert!(detail("invitation.accept").unwrap().ends_with(", without a password"));
    assert_eq!(detail("session.create"), Some("through 'corporate'"));
    assert_eq!(hospital.send("DELETE", &format!("/users/{}", maria.session.user.id), None).await.status(), 204);
    assert_eq!(code(sign_in(&control, &provider, verified("subject-1", "a@b.example")).await), "oidc_unknown");
}

#[tokio::test]
async fn a_user_who_is_there_is_linked_by_a_verified_address_and_asked_for_no_code_of_ours() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let email = hospital.session.user.email.clone();
    for claims in [
        json!({"sub": "1", "email": email, "email_verified": false}),
        json!({"sub": "1", "email": email}),
        json!({"sub": "1", "preferred_username": email}),
        json!({"sub": "1"}),
    ] {
        assert_eq!(code(sign_in(&control, &provider, claims).await), "oidc_refused", "no verified address");
    }
    // Some providers write it as a text.
    let claims = json!({"sub": "1", "email": email, "email_verified": "true"});
    let session = sign_in(&control, &provider, claims).await.unwrap();
    assert_eq!(session.user.id, hospital.session.user.id);
    // The password is as good as before.
    hospital.sign_in().await;
    let ways: SignInWays = hospital.get("/me/sign-in").await;
    assert!(ways.password && ways.identities.len() == 1);
    // The signature of another kind of key is as good.
    provider.signs(Signature::Ec);
    assert!(sign_in(&control, &provider, json!({"sub": "1"})).await.is_ok());
    // What the token leaves out is asked for, and must be about the same person.
    provider.tells(json!({"email": "maria@hospital.example", "email_verified": true}));
    invite(&hospital, "maria@hospital.example", "viewer").await;
    provider.behaves(Manner::OtherUserInfo);
    assert_eq!(code(sign_in(&control, &provider, json!({"sub": "2"})).await), "oidc_provider");
    provider.behaves(Manner::StrangeAccessToken);
    assert_eq!(code(sign_in(&control, &provider, json!({"sub": "2"})).await), "oidc_provider");
    provider.behaves(Manner::Good);
    let maria = sign_in(&control, &provider, json!({"sub": "2"})).await.unwrap();
    assert_eq!(maria.user.email, "maria@hospital.example");
}

#[tokio::test]
async fn an_address_in_several_organizations_asks_for_a_name_and_keeps_each_apart() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    invite(&hospital, "maria@care.example", "viewer").await;
    invite(&lab, "maria@care.example", "admin").await;
    let claims = verified("1", "maria@care.example");
    let started = start(&control).await;
    let back = provider.sign_in(&started.authorization_url, claims.clone());
    let brought = come_back(&control, &back).await.unwrap();
    let (status, problem) = finish(&control, &brought, None).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("oidc_organization")));
    assert_eq!(finish(&control, &brought, Some("Nowhere")).await.1["code"], "oidc_unknown");
    // The same code again, with a name.
    let (status, session) = finish(&control, &brought, Some("lab")).await;
    assert_eq!((status, session["organization"]["name"].as_str()), (201, Some("Lab")));
    // The account is linked once now: no name is needed, and the other organization is a name away.
    let session = sign_in(&control, &provider, claims.clone()).await.unwrap();
    assert_eq!(session.organization.name, "Lab");
    let session = sign_in_to(&control, &provider, claims.clone(), Some(&hospital.id)).await.unwrap();
    assert_eq!((session.organization.name.as_str(), session.user.email.as_str()), ("Hospital", "maria@care.example"));
    assert_eq!(code(sign_in(&control, &provider, claims.clone()).await), "oidc_organization");
    let session = sign_in_to(&control, &provider, claims, Some("Hospital")).await.unwrap();
    assert_eq!(session.organization.name, "Hospital");
}

#[tokio::test]
async fn invitations_of_many_others_keep_nobody_out() {
    let provider = Provider::start().await;
    let data = tempfile::tempdir().unwrap();
    let control = Control::start_in(data, FAST).await;
    for number in 0..3 {
        invite(&control.organization(&format!("Stranger {number}")).await, "maria@care.example", "viewer").await;
    }
    let hospital = control.organization("Hospital").await;
    invite(&hospital, "maria@care.example", "operator").await;
    let (id, claims) = (hospital.id.clone(), verified("1", "maria@care.example"));
    let data = control.stop().await;
    let only = format!("organizations = ['{id}']");
    let control = Control::start_in(data, &format!("{FAST}{}", provider.section(&only))).await;
    assert_eq!(sign_in(&control, &provider, claims).await.unwrap().organization.name, "Hospital");
    let data = control.stop().await;
    let control = Control::start_in(data, &format!("{FAST}{}", provider.section(""))).await;
    let other = verified("2", "maria@care.example");
    assert_eq!(code(sign_in(&control, &provider, other.clone()).await), "oidc_organization");
    let session = sign_in_to(&control, &provider, other, Some("Stranger 2")).await.unwrap();
    assert_eq!(session.organization.name, "Stranger 2");
}

#[tokio::test]
async fn an_address_that_changed_hands_opens_nothing_until_who_manages_users_unlinks() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let email = hospital.session.user.email.clone();
    let old = org(&control, sign_in(&control, &provider, verified("1", &email)).await.unwrap());
    assert_eq!(code(sign_in(&control, &provider, verified("2", &email)).await), "oidc_unknown");
    let users = format!("/users/{}/identities", hospital.session.user.id);
    let identities: Vec<Identity> = hospital.get(&users).await;
    let path = format!("{users}/{}", identities[0].id);
    let (admin, viewer) = (hospital.user("admin").await, hospital.user("viewer").await);
    for (who, expected) in [(&admin, "forbidden"), (&viewer, "forbidden"), (&lab, "not_found")] {
        assert_eq!(who.refused("DELETE", &path, None).await.code, expected);
    }
    assert_eq!(viewer.refused("GET", &users, None).await.code, "forbidden");
    assert_eq!(lab.refused("GET", &users, None).await.code, "not_found");
    let body = json!({"name": "x", "scopes": ["read", "user"]});
    let token: Value = hospital.post("/api-tokens", body).await;
    let mut automation = hospital.detached(&control);
    automation.token = token["token"].as_str().unwrap().to_owned();
    assert_eq!(automation.refused("DELETE", &path, None).await.code, "forbidden");
    let other = format!("/users/{}/identities/{}", admin.session.user.id, identities[0].id);
    assert_eq!(hospital.refused("DELETE", &other, None).await.code, "not_found", "another user's");
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(old.refused("GET", "/me", None).await.code, "unauthenticated", "the sessions end");
    assert_eq!(automation.refused("GET", "/me", None).await.code, "unauthenticated", "and the tokens");
    let new = org(&control, sign_in(&control, &provider, verified("2", &email)).await.unwrap());
    assert_eq!(code(sign_in(&control, &provider, verified("1", &email)).await), "oidc_unknown");
    let log: Vec<AuditEntry> = new.list("/audit").await;
    let entry = log.iter().find(|entry| entry.act == "user.unlink").unwrap();
    assert_eq!(entry.detail, format!("{email} from account 1 of {}", provider.issuer));
}

#[tokio::test]
async fn the_operator_decides_who_comes_in_through_a_provider_and_what_else_is_left() {
    let provider = Provider::start().await;
    let data = tempfile::tempdir().unwrap();
    let control = Control::start_in(data, FAST).await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let (hospital_email, lab_email) = (hospital.session.user.email.clone(), lab.session.user.email.clone());
    let id = hospital.id.clone();
    let body = json!({"challenge": oidc_challenge(VERIFIER)});
    let (status, _) = answer(control.request("POST", "/api/v1/oidc/start").json(&body)).await;
    assert_eq!(status, 404, "there is no provider");
    drop((hospital, lab));
    let strict = format!(
        "organizations = ['{id}']\nrequired_group = 'gateway'\nrequired_amr = ['mfa']\npassword_for_linked = false\n"
    );
    let more = format!("{FAST}{}", provider.section(&strict));
    let control = Control::start_at(control.stop().await, &more, Clock::system()).await;
    let claims = |sub: &str, email: &str, groups: Value, amr: Value| json!({"sub": sub, "email": email, "email_verified": true, "groups": groups, "amr": amr});
    let good = claims("1", &hospital_email, json!(["gateway", "x"]), json!(["pwd", "mfa"]));
    for (weak, what) in [
        (claims("1", &hospital_email, json!(["x"]), json!(["mfa"])), "no group"),
        (claims("1", &hospital_email, json!(["gateway"]), json!(["pwd"])), "one factor"),
    ] {
        assert_eq!(code(sign_in(&control, &provider, weak).await), "oidc_refused", "{what}");
    }
    let elsewhere = claims("2", &lab_email, json!(["gateway"]), json!(["mfa"]));
    assert_eq!(code(sign_in(&control, &provider, elsewhere.clone()).await), "oidc_unknown", "not this organization's");
    assert_eq!(
        sign_in_to(&control, &provider, elsewhere, Some("Lab")).await.unwrap_err()["code"],
        "oidc_unknown",
        "nor by name"
    );
    let login = async |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        answer(control.request("POST", "/api/v1/sessions").json(&body)).await
    };
    assert_eq!(login(&hospital_email, "correct horse battery").await.0, 201, "not linked yet");
    let session = sign_in(&control, &provider, good).await.unwrap();
    let (status, problem) = login(&hospital_email, "correct horse battery").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("oidc_required")));
    assert_eq!(login(&hospital_email, "wrong").await.1["code"], "unauthenticated", "told to who has the password only");
    assert_eq!(login(&lab_email, "correct horse battery").await.0, 201, "others are not concerned");
    let ways: SignInWays = org(&control, session).get("/me/sign-in").await;
    assert!(!ways.password);
    // Without the provider, the password counts again.
    let control = Control::start_in(control.stop().await, FAST).await;
    let body = json!({"email": hospital_email, "password": "correct horse battery"});
    let (status, session) = answer(control.request("POST", "/api/v1/sessions").json(&body)).await;
    assert_eq!(status, 201);
    let ways: SignInWays = org(&control, serde_json::from_value(session).unwrap()).get("/me/sign-in").await;
    assert!(ways.password && ways.identities[0].provider.is_none());
}

#[tokio::test]
async fn another_replica_goes_on_with_a_sign_in_and_each_step_is_good_once_among_all() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let Some(other) = control.replica_with(&format!("{FAST}{}", provider.section(""))).await else { return };
    let hospital = control.organization("Hospital").await;
    let started_there = start(&other).await;
    let there = provider.sign_in(&started_there.authorization_url, verified("1", &hospital.session.user.email));
    let brought = come_back(&other, &there).await.unwrap();
    assert_eq!(come_back(&control, &there).await.unwrap_err()["code"], "oidc_attempt");
    assert_eq!(finish(&control, &brought, None).await.0, 201);
    assert_eq!(finish(&other, &brought, None).await.1["code"], "oidc_attempt");
}
