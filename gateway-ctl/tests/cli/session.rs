//! Signing in and out, profiles, and everything that can be wrong with a control plane.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use gateway_proto::api::{
    invitation::{InvitationLink, invitation_code},
    platform::{CreateOrganization, FinishOidc, Hidden, Me, StartOidc, StartedOidc, oidc_challenge},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{PASSWORD, TOKEN, World, organization, session, text, user};

#[tokio::test]
async fn an_organization_is_created_from_a_ready_file_and_its_owner_stays_signed_in() {
    let world = World::new();
    let ready = json!({"event": "ready", "url": world.url, "tls_pin": world.pin.to_string(), "policy_key": "more"});
    std::fs::write(world.path("ready.json"), ready.to_string()).unwrap();
    world.control.answer("POST /api/v1/organizations", 201, &session());
    world.control.answer("GET /api/v1/me", 200, &Me { user: user(), organization: organization() });
    let operator = world.secret("operator", "operator-token\n");
    let args = [
        "organization",
        "create",
        "--json",
        "--control-ready-file",
        "ready.json",
        "--name",
        "Clinic A",
        "--discoverable",
        "--owner-email",
        "a@a.example",
        "--owner-name",
        "Owner A",
        "--password-file",
        "-",
        "--operator-token-file",
        &operator,
    ];
    let outcome = world.run_with_input(&args, &format!("{PASSWORD}\n")).await;
    assert_eq!(outcome.json::<Me>().organization, organization());

    let asked = world.control.asked_once("POST /api/v1/organizations");
    let body: CreateOrganization = serde_json::from_value(asked.body).unwrap();
    assert_eq!(body.owner_password, Hidden(PASSWORD.into()), "the line end is no part of the password");
    assert_eq!(body.registration_token, Some(Hidden("operator-token".into())));
    assert!(body.discoverable);
    assert_eq!(asked.authorization, None);

    let profile = world.path("profiles/default.toml");
    assert_eq!(std::fs::metadata(&profile).unwrap().permissions().mode() & 0o777, 0o600);

    let whoami = world.run(&["whoami"]).await;
    assert_eq!(whoami.code, 0, "{whoami:?}");
    assert!(whoami.stdout.contains("Owner A <a@a.example>"), "{whoami:?}");
    let asked = world.control.asked_once("GET /api/v1/me");
    assert_eq!(asked.authorization, Some(format!("Bearer {TOKEN}")));
}

#[tokio::test]
async fn an_invitation_is_accepted_by_its_link_which_says_where_and_whom_to_trust() {
    const ACCEPT: &str = "POST /api/v1/invitations/accept";
    let code = invitation_code(&[7; 32]);
    let link = |world: &World| {
        let pin = Some(world.pin.to_string());
        InvitationLink { control: world.url.clone(), pin, code: code.clone() }.to_string()
    };
    for way in ["argument", "input", "file", "code"] {
        let world = World::new();
        world.control.answer(ACCEPT, 201, &session());
        world.control.answer("GET /api/v1/me", 200, &Me { user: user(), organization: organization() });
        let (link, password, pin) = (link(&world), world.secret("password", PASSWORD), world.pin.to_string());
        let (file, bare) = (world.secret("link", &format!("{link}\n")), world.secret("code", &code.0));
        let given = match way {
            "argument" => vec![link.as_str()],
            "input" => vec!["-"],
            "file" => vec!["--code-file", &file],
            // As it was before there were links.
            _ => vec!["--code-file", &bare, "--control", &world.url, "--pin", &pin],
        };
        let args = [vec!["user", "accept", "--password-file", &password], given].concat();
        let outcome = world.run_with_input(&args, &format!("{link}\n")).await;
        assert_eq!(outcome.code, 0, "{way}: {outcome:?}");
        assert!(!outcome.stdout.contains(&code.0) && !outcome.stderr.contains(&code.0), "{way}: {outcome:?}");
        assert_eq!(world.control.asked_once(ACCEPT).body, json!({"code": code, "password": PASSWORD}), "{way}");
        assert_eq!(world.run(&["whoami"]).await.code, 0, "{way}: the profile knows the control plane by the link");
    }
    // What was cut while copying goes nowhere, and neither does what leads elsewhere; what is said shows no code.
    let world = World::new();
    let (link, password) = (link(&world), world.secret("password", PASSWORD));
    let elsewhere = link.replace("/invitation#", "/x/invitation#");
    for wrong in [&link[..link.len() - 1], &link[..link.len() - 80], elsewhere.as_str()] {
        let outcome = world.run(&["user", "accept", wrong, "--password-file", &password]).await;
        assert_eq!(outcome.code, 64, "{outcome:?}");
        assert!(!outcome.stderr.contains(&code.0[..20]), "{outcome:?}");
    }
    assert!(world.control.asked().is_empty());
    assert_eq!(world.run(&["user", "accept", "--password-file", &password]).await.code, 64);
}

#[tokio::test]
async fn two_secrets_never_come_from_one_standard_input() {
    let world = World::signed_in().await;
    for args in [
        ["user", "accept", "-", "--password-file", "-"].as_slice(),
        &["user", "accept", "--code-file", "-", "--password-file", "-"],
        &["user", "password", "--current-file", "-", "--new-file", "-"],
    ] {
        let outcome = world.run_with_input(args, "a long enough password\n").await;
        assert_eq!(outcome.code, 64, "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains("cannot come from standard input, too"), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_link_of_an_invitation_is_the_only_thing_on_standard_output() {
    let world = World::signed_in().await;
    let invitation = json!({
        "id": "inv_00000000000070008000000000000001", "email": "b@a.example", "name": "B", "role": "viewer",
        "expires_at": 4_000_000_000u64, "created_at": 1,
    });
    let invite = ["user", "invite", "--email", "b@a.example", "--name", "B", "--role", "viewer"];
    let older = json!({"code": "gwi_x", "invitation": invitation});
    let mut newer = older.clone();
    newer["link"] = json!("https://control.example/invitation#gwi_x");
    world.control.answer("POST /api/v1/invitations", 201, &newer);
    world.control.answer("POST /api/v1/invitations", 201, &older);
    for line in ["https://control.example/invitation#gwi_x\n", "gwi_x\n"] {
        let outcome = world.run(&invite).await;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (0, line), "{outcome:?}");
    }
}

#[tokio::test]
async fn after_signing_out_the_control_plane_stays_known_and_the_token_is_gone() {
    let world = World::signed_in().await;
    world.control.answer_text("DELETE /api/v1/sessions/current", 204, "");
    let outcome = world.run(&["logout"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "Signed out of profile 'default'.\n"), "{outcome:?}");
    let profile = std::fs::read_to_string(world.path("profiles/default.toml")).unwrap();
    assert!(profile.contains(&world.url) && !profile.contains(TOKEN), "{profile}");

    let outcome = world.run(&["whoami"]).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("nobody is signed in with profile 'default'"), "{outcome:?}");
    let password = text(&world.path("password"));
    let again = world.run(&["login", "--email", "a@a.example", "--password-file", &password]).await;
    assert_eq!(again.code, 0, "{again:?}");
}

#[tokio::test]
async fn who_signs_out_is_told_where_the_session_at_the_provider_ends() {
    let world = World::signed_in().await;
    let told = json!({"provider": "corporate", "end_session_url": "https://login.example/logout?client_id=x"});
    world.control.answer("DELETE /api/v1/sessions/current", 200, &told);
    let outcome = world.run(&["logout"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "Signed out of profile 'default'.\n"), "{outcome:?}");
    let words = "still signed in at 'corporate'";
    assert!(outcome.stderr.contains(words) && outcome.stderr.contains("/logout?client_id=x"), "{outcome:?}");
    assert!(!std::fs::read_to_string(world.path("profiles/default.toml")).unwrap().contains(TOKEN));
}

#[tokio::test]
async fn a_session_that_cannot_be_ended_is_kept() {
    let world = World::signed_in().await;
    let problem = json!({"code": "unavailable", "status": 503, "detail": "the database is away"});
    world.control.answer("DELETE /api/v1/sessions/current", 503, &problem);
    assert_eq!(world.run(&["logout"]).await.code, 2);
    assert!(std::fs::read_to_string(world.path("profiles/default.toml")).unwrap().contains(TOKEN));
    // One that the platform ended already is gone.
    let over = World::signed_in().await;
    let problem = json!({"code": "unauthenticated", "status": 401, "detail": "the session is over"});
    over.control.answer("DELETE /api/v1/sessions/current", 401, &problem);
    assert_eq!(over.run(&["logout"]).await.code, 0);
}

#[tokio::test]
async fn profiles_are_apart() {
    let world = World::signed_in().await;
    let outcome = world.run(&["--profile", "other", "whoami"]).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("profile 'other' knows no control plane yet"), "{outcome:?}");
}

#[tokio::test]
async fn a_profile_others_may_read_is_not_used() {
    let world = World::signed_in().await;
    let profile = world.path("profiles/default.toml");
    std::fs::set_permissions(&profile, std::fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = world.run(&["whoami"]).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains(&format!("chmod 600 {}", profile.display())), "{outcome:?}");
}

#[tokio::test]
async fn a_wrong_pin_is_told_as_such_and_nothing_is_sent() {
    let world = World::new();
    let password = world.secret("password", PASSWORD);
    let wrong = "00".repeat(32);
    let login =
        ["login", "--control", &world.url, "--pin", &wrong, "--email", "a@a.example", "--password-file", &password];
    let outcome = world.run(&login).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.starts_with(&format!("error: TLS pin mismatch at {}: ", world.url)), "{outcome:?}");
    assert!(outcome.stderr.contains(&world.pin.to_string()), "the pin presented is named: {outcome:?}");
    assert!(world.control.asked().is_empty());
}

#[tokio::test]
async fn a_control_plane_with_a_key_of_its_own_is_not_believed_without_a_pin_and_told_what_is_missing() {
    let world = World::new();
    let password = world.secret("password", PASSWORD);
    let login = ["login", "--control", &world.url, "--email", "a@a.example", "--password-file", &password];
    let outcome = world.run(&login).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.starts_with(&format!("error: the certificate of {} is ", world.url)), "{outcome:?}");
    assert!(outcome.stderr.contains("--pin") && outcome.stderr.contains("UnknownIssuer"), "{outcome:?}");
    assert!(world.control.asked().is_empty());
}

#[tokio::test]
async fn an_unreachable_control_plane_is_named_with_its_address() {
    let world = World::new();
    let password = world.secret("password", PASSWORD);
    // A port that was free a moment ago, with nobody behind it.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("https://{gone}");
    let outcome =
        world.run(&["login", "--control", &url, "--email", "a@a.example", "--password-file", &password]).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.starts_with(&format!("error: cannot reach {url}: ")), "{outcome:?}");
    assert!(outcome.stderr.contains("refused"), "{outcome:?}");
}

#[tokio::test]
async fn a_refused_password_is_a_no_without_advice_to_sign_in() {
    let world = World::new();
    let problem = json!({"code": "unauthenticated", "status": 401, "detail": "e-mail address or password is wrong"});
    world.control.answer("POST /api/v1/sessions", 401, &problem);
    let password = world.secret("password", PASSWORD);
    let pin = world.pin.to_string();
    let login =
        ["login", "--control", &world.url, "--pin", &pin, "--email", "a@a.example", "--password-file", &password];
    let outcome = world.run(&login).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stderr, "error: e-mail address or password is wrong [unauthenticated]\n");
    assert!(!world.path("profiles").exists(), "a refused sign-in leaves no profile");
}

#[tokio::test]
async fn a_password_file_others_may_read_is_refused() {
    let world = World::new();
    std::fs::write(world.path("password"), PASSWORD).unwrap();
    std::fs::set_permissions(world.path("password"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let login = ["login", "--control", &world.url, "--email", "a@a.example", "--password-file", "password"];
    let outcome = world.run(&login).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("cannot take the password from its file: "), "{outcome:?}");
    assert!(outcome.stderr.contains("chmod 600 password"), "{outcome:?}");
}

/// Waits until the program asked for the start of a sign-in.
async fn started(world: &World) -> StartOidc {
    let wait = async {
        loop {
            if let Some(asked) = world.control.asked().iter().find(|asked| asked.line == "POST /api/v1/oidc/start") {
                return serde_json::from_value(asked.body.clone()).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap()
}

fn oidc_world() -> World {
    let world = World::new();
    let started = StartedOidc {
        provider: "corporate".into(),
        authorization_url: "https://login.example/authorize?state=x".into(),
        expires_at: 4_000_000_000,
    };
    world.control.answer("POST /api/v1/oidc/start", 201, &started);
    world.control.answer("POST /api/v1/oidc/sessions", 201, &session());
    world
}

#[tokio::test]
async fn through_a_provider_the_browser_brings_a_code_that_counts_with_what_stayed_here() {
    let world = oidc_world();
    let pin = world.pin.to_string();
    let login = ["login", "--oidc", "corporate", "--organization", "Clinic A", "--control", &world.url, "--pin", &pin];
    let browser = async {
        let asked = started(&world).await;
        assert_eq!(asked.provider.as_deref(), Some("corporate"));
        let address = ("127.0.0.1", asked.loopback_port.unwrap());
        // A page that guesses the port does not know the path.
        for (path, status) in [("/?code=evil".to_owned(), "404"), (format!("/{}?code=abc", asked.challenge), "200")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        }
        asked.challenge
    };
    let (outcome, challenge) = tokio::join!(world.run(&login), browser);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("https://login.example/authorize?state=x"), "{outcome:?}");
    let finish: FinishOidc =
        serde_json::from_value(world.control.asked_once("POST /api/v1/oidc/sessions").body).unwrap();
    assert_eq!((finish.code, finish.organization.as_deref()), (Hidden("abc".into()), Some("Clinic A")));
    assert_eq!(oidc_challenge(&finish.verifier.0), challenge);
    assert!(std::fs::read_to_string(world.path("profiles/default.toml")).unwrap().contains(TOKEN));
}

#[tokio::test]
async fn what_the_provider_refused_is_said_and_a_code_may_be_carried_by_hand() {
    let world = oidc_world();
    let pin = world.pin.to_string();
    let login = ["login", "--oidc", "--control", &world.url, "--pin", &pin];
    let browser = async {
        let asked = started(&world).await;
        assert_eq!(asked.provider, None);
        let mut stream = TcpStream::connect(("127.0.0.1", asked.loopback_port.unwrap())).await.unwrap();
        let line = format!("GET /{}?error=oidc_refused&detail=not+in+the+group HTTP/1.1\r\n\r\n", asked.challenge);
        stream.write_all(line.as_bytes()).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(world.run(&login), browser);
    assert_eq!((outcome.code, outcome.stderr.lines().last()), (1, Some("error: not in the group [oidc_refused]")));
    assert!(!world.path("profiles").exists());

    let world = oidc_world();
    let pin = world.pin.to_string();
    let login = ["login", "--oidc", "--paste", "--control", &world.url, "--pin", &pin];
    let outcome = world.run_with_input(&login, " abc \n").await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let start: StartOidc = serde_json::from_value(world.control.asked_once("POST /api/v1/oidc/start").body).unwrap();
    assert_eq!(start.loopback_port, None);
    let finish: FinishOidc =
        serde_json::from_value(world.control.asked_once("POST /api/v1/oidc/sessions").body).unwrap();
    assert_eq!(finish.code, Hidden("abc".into()));
}
