//! Enrolling: the code and what it pins, and the daemon that waits for it.

use gatewayd::{
    authority::{Authority, EnrollmentError},
    control_client::{EnrollError, enroll},
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::{
    Gateway, open,
    stand_in::{Enrolling, StandIn, connection},
    within,
};

#[tokio::test]
async fn an_enrolment_brings_policy_and_relay_token_and_may_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let control = StandIn::start();
    let authority = open(directory.path());
    let code = format!("  {}\n", control.code);
    let enrolled = enroll(&code, &authority, None).await.unwrap();
    assert_eq!((enrolled.server_name.as_str(), enrolled.key), ("Engine 1", authority.gateway_key().public()));
    assert!(authority.authorize(connection(), true, authority.now()).is_ok());
    assert!(authority.relay_token().borrow().is_some());
    enroll(&code, &authority, None).await.unwrap();
    drop(authority);
    let authority = open(directory.path());
    assert_eq!(authority.view().revision(), 1);
    assert_eq!(authority.enrollment().borrow().as_ref().unwrap().server_name, "Engine 1");
}

#[tokio::test]
async fn a_code_that_is_wrong_expired_or_used_by_another_gateway_is_refused_in_the_words_of_the_control_plane() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = StandIn::start();
    let (first, second) = (open(one.path()), open(two.path()));
    assert!(matches!(enroll("gwe1_abc", &first, None).await, Err(EnrollError::Code(_))));

    let refused = async |code: &str, gateway: &Authority, words: &str| {
        let error = enroll(code, gateway, None).await.unwrap_err();
        assert!(matches!(&error, EnrollError::CodeRefused(detail) if detail.contains(words)), "{error}");
    };
    let mut wrong = control.code.clone();
    wrong.secret = "00".repeat(16);
    refused(&wrong.to_string(), &first, "no such code").await;
    let code = control.code.to_string();
    control.enrolls(Enrolling::Expired);
    refused(&code, &first, "expired").await;
    control.enrolls(Enrolling::Honest);
    enroll(&code, &first, None).await.unwrap();
    refused(&code, &second, "used").await;
    assert!(second.enrollment().borrow().is_none());
}

#[tokio::test]
async fn a_lying_control_plane_enrols_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let control = StandIn::start();
    let authority = open(directory.path());
    let code = control.code.to_string();
    control.enrolls(Enrolling::OtherPolicyKey);
    assert!(matches!(enroll(&code, &authority, None).await, Err(EnrollError::PolicyKey { .. })));
    control.enrolls(Enrolling::ForgedPolicy);
    let error = enroll(&code, &authority, None).await.unwrap_err();
    assert!(matches!(error, EnrollError::NotInForce(EnrollmentError::Policy(_))), "{error}");
    assert!(authority.enrollment().borrow().is_none());
    assert!(!directory.path().join("enrollment.json").exists());
}

#[tokio::test]
async fn another_tls_key_than_the_code_names_is_told_apart_from_a_network_that_is_down() {
    let directory = tempfile::tempdir().unwrap();
    let control = StandIn::start();
    let authority = open(directory.path());
    let mut code = control.code.clone();
    code.pin = Some("ab".repeat(32));
    assert!(matches!(enroll(&code.to_string(), &authority, None).await, Err(EnrollError::Intercepted { .. })));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    code.control = format!("https://{free}");
    assert!(matches!(enroll(&code.to_string(), &authority, None).await, Err(EnrollError::Network { .. })));
    code.control = "http://control.example".into();
    assert!(matches!(enroll(&code.to_string(), &authority, None).await, Err(EnrollError::Address(_))));
}

#[tokio::test]
async fn a_gateway_that_is_not_enrolled_waits_and_links_once_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let mut gateway = Gateway::start(open(directory.path()));
    gateway.status(|status| status.problem.as_ref().is_some_and(|p| p.contains("not enrolled"))).await;
    enroll(&control.code.to_string(), &gateway.authority, None).await.unwrap();
    assert_eq!(control.heard_hello().await, 1);
    gateway.status(|status| status.connected && status.url.is_some()).await;
}

#[tokio::test]
async fn the_command_enrols_the_running_daemon_with_a_code_from_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let (config, state) = (directory.path().join("gatewayd.toml"), directory.path().join("state"));
    let socket = state.join("gatewayd.sock");
    std::fs::write(&config, format!("state_dir = {state:?}\n[tunnel]\nlisten = \"127.0.0.1:0\"\n")).unwrap();
    let program = env!("CARGO_BIN_EXE_gatewayd");
    let mut daemon = tokio::process::Command::new(program)
        .args(["run", "--config"])
        .arg(&config)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    assert!(within(lines.next_line()).await.unwrap().unwrap().contains("ready"));

    let mut enrolling = tokio::process::Command::new(program)
        .args(["enroll", "-", "--socket"])
        .arg(&socket)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    enrolling.stdin.take().unwrap().write_all(control.code.to_string().as_bytes()).await.unwrap();
    let output = within(enrolling.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("enrolled as server 'Engine 1' of 'Clinic'"));
    assert_eq!(control.heard_hello().await, 1);
}
