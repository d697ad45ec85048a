//! Certificates that change while the relay runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use gateway_net::{
    secret_file,
    tls::{ServerIdentity, ServerTrust, TlsPin},
    ws,
};
use gateway_relay::config::TlsSource;

use crate::harness::TestRelay;

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
