use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use gateway_net::tls::{ServerIdentity, server_config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A session with whatever listens there, and where that is.
async fn at(tls_pin: Option<TlsPin>) -> (TcpListener, Session) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("https://{}", listener.local_addr().unwrap());
    let login = EngineLogin { user: "gateway".into(), password_file: "/nonexistent".into() };
    let session = Session::new(&EngineConfig::new(&api, tls_pin).unwrap(), login).unwrap();
    (listener, session)
}

#[tokio::test]
async fn an_engine_with_another_key_is_told_as_that_and_with_the_pin_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&identity, &[])));
    let (listener, mut session) = at(Some("00".repeat(32).parse().unwrap())).await;
    let serve = async {
        let socket = listener.accept().await.unwrap().0;
        assert!(acceptor.accept(socket).await.is_err());
    };
    let (asked, ()) = tokio::join!(session.ask_version(), serve);
    let error = asked.unwrap_err();
    assert_eq!(error.state(), EngineState::NotUnderstood, "it answers");
    let words = gateway_net::causes::with_causes(&error);
    assert!(words.contains("tls_pin") && words.contains(&identity.pin().to_string()), "{words}");
    assert!(!words.contains("PinMismatch"), "{words}");
}

#[tokio::test]
async fn a_port_without_tls_and_an_address_with_api_are_told_as_what_they_are() {
    let (listener, mut session) = at(None).await;
    let serve = async {
        let (mut socket, mut hello) = (listener.accept().await.unwrap().0, vec![0; 16 << 10]);
        assert!(socket.read(&mut hello).await.unwrap() > 0);
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Until the other side has had enough.
        while socket.read(&mut hello).await.is_ok_and(|count| count > 0) {}
    };
    let (asked, ()) = tokio::join!(session.ask_version(), serve);
    let words = asked.unwrap_err().to_string();
    assert!(words.contains("speaks no TLS") && words.contains("https.port"), "{words}");
    let wrong = AskError::Status { path: VERSION, status: 404 }.to_string();
    assert!(wrong.contains("without the /api"), "{wrong}");
    assert!(!AskError::Status { path: VERSION, status: 500 }.to_string().contains("/api of"));
}

fn write(path: &Path) {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(b"secret\n").unwrap();
}

#[tokio::test]
async fn a_password_file_that_is_readable_again_is_tried_though_its_password_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let password_file = directory.path().join("password");
    let config = EngineConfig::new("https://127.0.0.1:1", None).unwrap();
    let login = EngineLogin { user: "gateway".into(), password_file: password_file.clone() };
    let mut session = Session::new(&config, login).unwrap();
    write(&password_file);
    // Nobody answers, but the password was used.
    assert!(!session.log_in().await.unwrap_err().is_refusal());
    assert!(!session.has_another_password());
    std::fs::remove_file(&password_file).unwrap();
    assert!(session.log_in().await.unwrap_err().is_refusal());
    assert!(!session.has_another_password());
    write(&password_file);
    assert!(session.has_another_password());
}
