//! The second factor: codes by time, once each, and what remains for whoever loses the authenticator.

use std::{net::IpAddr, time::Duration};

use data_encoding::BASE32_NOPAD;
use gateway_net::{http::client_builder, tls::ServerTrust};
use gateway_proto::api::platform::{ConfirmedTotp, Session, TotpEnrollment, TotpStatus};
use serde_json::{Value, json};
use totp_rs::Builder;

use super::{
    database,
    harness::{Control, Org},
};

const PASSWORD: &str = "correct horse battery";

/// An authenticator.
struct Phone(Vec<u8>);

impl Phone {
    fn code(&self, control: &Control, steps: i64) -> String {
        let totp = Builder::new().with_secret(self.0.as_slice()).build().unwrap();
        totp.generate(control.clock.unix_secs().checked_add_signed(30 * steps).unwrap()).to_string()
    }

    /// A code that does not count now.
    fn wrong(&self, control: &Control) -> &'static str {
        let right: Vec<_> = (-2..=2).map(|steps| self.code(control, steps)).collect();
        let codes = ["000000", "000001", "000002", "000003", "000004", "000005"];
        codes.into_iter().find(|code| !right.iter().any(|right| right == code)).unwrap()
    }
}

async fn enroll(org: &Org<'_>, password: &str) -> (Phone, String) {
    let enrollment: TotpEnrollment = org.post("/me/totp", json!({"password": password})).await;
    assert!(enrollment.uri.0.starts_with("otpauth://totp/gateway-control:") && enrollment.uri.0.contains("%40"));
    (Phone(BASE32_NOPAD.decode(enrollment.secret.0.as_bytes()).unwrap()), enrollment.secret.0.clone())
}

async fn login(control: &Control, email: &str, password: &str, code: Option<&str>) -> (u16, Value) {
    let mut body = json!({"email": email, "password": password});
    if let Some(code) = code {
        body["code"] = json!(code);
    }
    let answer = control.request("POST", "/api/v1/sessions").json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn once_confirmed_a_code_is_needed_and_each_is_good_once() {
    let control = Control::start_with("[limits]\nlogins_per_minute = 1000\n").await;
    let hospital = control.organization("Hospital").await;
    let email = hospital.session.user.email.clone();
    let elsewhere = hospital.sign_in().await;
    assert_eq!(hospital.refused("POST", "/me/totp", Some(json!({"password": "wrong"}))).await.code, "forbidden");
    let (first, _) = enroll(&hospital, PASSWORD).await;
    assert_eq!(login(&control, &email, PASSWORD, None).await.0, 201, "not confirmed: not needed");
    let (phone, secret) = enroll(&hospital, PASSWORD).await;
    let old = json!({"code": first.code(&control, 0)});
    assert_eq!(hospital.refused("POST", "/me/totp/confirm", Some(old)).await.code, "forbidden", "it was replaced");
    let code = phone.code(&control, 0);
    let confirmed: ConfirmedTotp = hospital.post("/me/totp/confirm", json!({"code": code})).await;
    assert_eq!(confirmed.recovery_codes.len(), 10);
    assert_eq!(elsewhere.refused("GET", "/me", None).await.code, "unauthenticated", "other sessions end");
    assert_eq!(hospital.refused("POST", "/me/totp", Some(json!({"password": PASSWORD}))).await.code, "conflict");
    // Whether there is a second factor is told to who has the password only.
    assert_eq!(login(&control, &email, "wrong", None).await.1["code"], "unauthenticated");
    let (status, problem) = login(&control, &email, PASSWORD, None).await;
    assert_eq!((status, &problem["code"]), (401, &json!("totp_required")));
    // The code of the confirmation is spent, and so is every older one.
    for spent in [&code, &phone.code(&control, -1)] {
        assert_eq!(login(&control, &email, PASSWORD, Some(spent)).await.1["code"], "unauthenticated");
    }
    control.clock.advance(Duration::from_secs(30));
    let code = phone.code(&control, 0);
    assert_eq!(login(&control, &email, "wrong", Some(&code)).await.0, 401);
    assert_eq!(login(&control, &email, PASSWORD, Some(&code)).await.0, 201);
    assert_eq!(login(&control, &email, PASSWORD, Some(&code)).await.0, 401, "a replay");
    control.clock.advance(Duration::from_secs(120));
    assert_eq!(login(&control, &email, PASSWORD, Some(&phone.code(&control, -2))).await.0, 401, "too old");
    // A recovery code takes the place of a code, once.
    let recovery = confirmed.recovery_codes[0].0.to_uppercase();
    assert_eq!(login(&control, &email, PASSWORD, Some(&recovery)).await.0, 201);
    assert_eq!(login(&control, &email, PASSWORD, Some(&recovery)).await.0, 401);
    let status: TotpStatus = hospital.get("/me/totp").await;
    assert_eq!((status.enabled, status.recovery_codes), (true, 9));
    // Refusals are written beside the answers.
    let written = async {
        loop {
            let log: Vec<Value> = hospital.list("/audit").await;
            let is_refusal = |entry: &&Value| entry["act"] == "session.refuse";
            if log.iter().filter(is_refusal).any(|entry| entry["detail"].as_str().unwrap().starts_with("wrong code")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
    let recovery = confirmed.recovery_codes[1].0.clone();
    let bytes = database::contents(control.stop().await.path());
    for text in [secret.as_str(), recovery.as_str()] {
        assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text} is in the database");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_right_code_waits_with_it_but_no_recovery_code() {
    let control = Control::start_with("[limits]\nlogins_per_minute = 1000\n").await;
    let hospital = control.organization("Hospital").await;
    let email = hospital.session.user.email.clone();
    let (phone, _) = enroll(&hospital, PASSWORD).await;
    let confirmed = json!({"code": phone.code(&control, 0)});
    let confirmed: ConfirmedTotp = hospital.post("/me/totp/confirm", confirmed).await;
    control.clock.advance(Duration::from_secs(30));
    let right = phone.code(&control, 0);
    for _ in 0..10 {
        assert_eq!(login(&control, &email, PASSWORD, Some(phone.wrong(&control))).await.1["code"], "unauthenticated");
    }
    assert_eq!(login(&control, &email, PASSWORD, Some(&right)).await.1["code"], "rate_limited");
    // What nobody can guess waits for nothing; and where it was shown, the user is known from then on.
    assert_eq!(login(&control, &email, PASSWORD, Some("no code at all")).await.1["code"], "unauthenticated");
    assert_eq!(login(&control, &email, PASSWORD, Some(&confirmed.recovery_codes[0].0)).await.0, 201);
    assert_eq!(login(&control, &email, PASSWORD, Some(&right)).await.0, 201);
    for _ in 0..10 {
        assert_eq!(login(&control, &email, PASSWORD, Some(phone.wrong(&control))).await.1["code"], "unauthenticated");
    }
    assert_eq!(login(&control, &email, PASSWORD, Some(phone.wrong(&control))).await.1["code"], "rate_limited");
    let other = hospital.user("viewer").await;
    assert_eq!(login(&control, &other.session.user.email, "another long password", None).await.0, 201);
}

#[tokio::test]
async fn who_has_no_second_factor_and_sends_a_code_is_not_kept_out_and_is_known_nowhere_for_it() {
    let control = Control::start_with("[limits]\nlogins_per_minute = 1000\n").await;
    let hospital = control.organization("Hospital").await;
    let email = hospital.session.user.email.clone();
    for _ in 0..12 {
        assert_eq!(login(&control, &email, PASSWORD, Some("123456")).await.0, 201);
    }
    let (phone, _) = enroll(&hospital, PASSWORD).await;
    let _: ConfirmedTotp = hospital.post("/me/totp/confirm", json!({"code": phone.code(&control, 0)})).await;
    // From an address where a code was right, codes would have an allowance of their own.
    let trust = ServerTrust::Pin(control.ready.tls_pin.as_ref().unwrap().parse().unwrap());
    let elsewhere = client_builder(trust, None).local_address(IpAddr::from([127, 0, 0, 2])).build().unwrap();
    for _ in 0..10 {
        let body = json!({"email": email, "password": PASSWORD, "code": phone.wrong(&control)});
        let answer = elsewhere.post(format!("{}/api/v1/sessions", control.ready.url)).json(&body).send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "unauthenticated");
    }
    assert_eq!(login(&control, &email, PASSWORD, Some(phone.wrong(&control))).await.1["code"], "rate_limited");
}

#[tokio::test]
async fn whoever_knows_only_the_password_keeps_nobody_out_from_where_he_signed_in_lately() {
    let control = Control::start_with("[limits]\nlogins_per_minute = 1000\n").await;
    let hospital = control.organization("Hospital").await;
    let email = hospital.session.user.email.clone();
    let (phone, _) = enroll(&hospital, PASSWORD).await;
    let _: ConfirmedTotp = hospital.post("/me/totp/confirm", json!({"code": phone.code(&control, 0)})).await;
    // Right codes use nothing up, however many.
    for _ in 0..12 {
        control.clock.advance(Duration::from_secs(30));
        assert_eq!(login(&control, &email, PASSWORD, Some(&phone.code(&control, 0))).await.0, 201);
    }
    let trust = ServerTrust::Pin(control.ready.tls_pin.as_ref().unwrap().parse().unwrap());
    let elsewhere = client_builder(trust, None).local_address(IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let guess = async || {
        let body = json!({"email": email, "password": PASSWORD, "code": phone.wrong(&control)});
        let answer = elsewhere.post(format!("{}/api/v1/sessions", control.ready.url)).json(&body).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["code"].clone()
    };
    for _ in 0..10 {
        assert_eq!(guess().await, "unauthenticated");
    }
    assert_eq!(guess().await, "rate_limited");
    control.clock.advance(Duration::from_secs(30));
    assert_eq!(login(&control, &email, PASSWORD, Some(&phone.code(&control, 0))).await.0, 201);
}

#[tokio::test]
async fn it_is_given_up_with_password_and_code_or_taken_off_by_who_manages_users() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let admin = hospital.user("admin").await;
    let (email, password) = (admin.session.user.email.clone(), "another long password");
    let (phone, _) = enroll(&admin, password).await;
    let confirmed: ConfirmedTotp = admin.post("/me/totp/confirm", json!({"code": phone.code(&control, 0)})).await;
    let path = format!("/users/{}/totp", admin.session.user.id);
    assert_eq!(lab.refused("DELETE", &path, None).await.code, "not_found");
    assert_eq!(admin.refused("DELETE", &path, None).await.code, "forbidden", "not one's own");
    let viewer = hospital.user("viewer").await;
    assert_eq!(viewer.refused("DELETE", &path, None).await.code, "forbidden");
    let owner = format!("/users/{}/totp", hospital.session.user.id);
    assert_eq!(admin.refused("DELETE", &owner, None).await.code, "forbidden", "an owner's");
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(admin.refused("GET", "/me", None).await.code, "unauthenticated", "the sessions end");
    let (status, session) = login(&control, &email, password, None).await;
    assert_eq!(status, 201);
    let session: Session = serde_json::from_value(session).unwrap();
    let admin = Org { control: &control, token: session.token.0.clone(), id: admin.id.clone(), session };
    let (phone, _) = enroll(&admin, password).await;
    let _: ConfirmedTotp = admin.post("/me/totp/confirm", json!({"code": phone.code(&control, 0)})).await;
    let give_up = |password: &str, code: &str| Some(json!({"password": password, "code": code}));
    let old = confirmed.recovery_codes[0].0.as_str();
    assert_eq!(admin.refused("POST", "/me/totp/disable", give_up(password, old)).await.code, "unauthenticated");
    control.clock.advance(Duration::from_secs(30));
    let code = phone.code(&control, 0);
    assert_eq!(admin.refused("POST", "/me/totp/disable", give_up("wrong", &code)).await.code, "forbidden");
    assert_eq!(admin.send("POST", "/me/totp/disable", give_up(password, &code)).await.status(), 204);
    assert_eq!(login(&control, &email, password, None).await.0, 201);
    // A token of automation has no business with it.
    let body = json!({"name": "x", "scopes": ["read", "user"]});
    let token: Value = hospital.post("/api-tokens", body).await;
    let mut automation = hospital.detached(&control);
    automation.token = token["token"].as_str().unwrap().to_owned();
    let body = json!({"password": PASSWORD});
    assert_eq!(automation.refused("POST", "/me/totp", Some(body)).await.code, "forbidden");
    assert_eq!(automation.refused("DELETE", &path, None).await.code, "forbidden");
}
