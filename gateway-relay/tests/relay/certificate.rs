//! Certificates that change while the relay runs.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use gateway_net::{
    proxy::{Exemptions, ProxyChoice, ProxyConfig},
    secret_file,
    tls::{ServerIdentity, ServerTrust, TlsPin},
    ws,
};
use gateway_relay::config::{Acme, ControlPlane, TlsSource};
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::harness::{LIMIT, TestRelay, within};

/// Makes a pair and moves it over the files, as a renewal does.
fn renew(directory: &Path, [certificate, key]: &[PathBuf; 2]) -> TlsPin {
    let fresh = tempfile::tempdir_in(directory).unwrap();
    let identity = ServerIdentity::load_or_generate(fresh.path(), &[]).unwrap();
    fs::rename(fresh.path().join("tls-key.pem"), key).unwrap();
    fs::rename(fresh.path().join("tls-certificate.pem"), certificate).unwrap();
    identity.pin()
}

async fn shows(relay: &TestRelay, pin: TlsPin) -> bool {
    let options = ws::WsOptions { trust: ServerTrust::Pin(pin), ..relay.options() };
    ws::connect(&options).await.is_ok()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let files = ["certificate.pem", "key.pem"].map(|name| directory.path().join(name));
    let first = renew(directory.path(), &files);
    let [certificate, key] = files.clone();
    let relay = TestRelay::with(|config| config.tls = TlsSource::Files { certificate, key }).await;
    let mut link = relay.attach(1).await;
    assert!(shows(&relay, first).await);

    fs::write(&files[0], "half a certifi").unwrap();
    relay.until_metric("certificate_reloads_total{outcome=\"Refused\"}", |count| count > 0).await;
    assert!(shows(&relay, first).await, "the old one stays");

    let second = renew(directory.path(), &files);
    relay.until_metric("certificate_reloads_total{outcome=\"Taken\"}", |count| count > 0).await;
    assert!(shows(&relay, second).await && !shows(&relay, first).await);
    link.datagram(1, b"links stay").await;
    assert_eq!(link.recv_datagrams().await.1, b"links stay");

    secret_file::write(&files[1], &fs::read(&files[1]).unwrap()).unwrap();
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o644)).unwrap();
    let refused = relay.metric("certificate_reloads_total{outcome=\"Refused\"}").await;
    relay.until_metric("certificate_reloads_total{outcome=\"Refused\"}", |count| count > refused).await;
    assert!(shows(&relay, second).await, "a key that everybody may read is refused, and the pair in use stays");
}

#[tokio::test]
async fn the_authority_and_the_control_plane_are_asked_through_the_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let _relay = TestRelay::with(|config| {
        let choice = ProxyChoice::from_text(&address).unwrap();
        config.network = ProxyConfig { proxy: choice, no_proxy: Some(Exemptions::default()) };
        let url = "https://control.example.test:8443".to_owned();
        config.control = Some(ControlPlane { url, pin: None, interval: LIMIT });
        config.tls = TlsSource::Acme(Acme {
            domains: vec!["relay.example.test".to_owned()],
            contact: Vec::new(),
            directory: "https://acme.example.test/directory".to_owned(),
            root: None,
            external_account: None,
            http_listen: None,
        });
    })
    .await;
    let mut asked = BTreeSet::new();
    while asked.len() < 2 {
        let (mut socket, _) = within(proxy.accept()).await.unwrap();
        let mut head = [0; 1024];
        let length = within(socket.read(&mut head)).await.unwrap();
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        asked.insert(head.lines().next().unwrap_or_default().to_owned());
    }
    let expected = ["CONNECT acme.example.test:443 HTTP/1.1", "CONNECT control.example.test:8443 HTTP/1.1"];
    assert_eq!(asked, BTreeSet::from(expected.map(str::to_owned)));
}
