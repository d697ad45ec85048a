//! Enrolment codes: single use, expiring, bound to the key that used them. And the state directory: one daemon.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::{EnrollRequest, EnrollmentCode};
use gateway_proto::identity::{NoiseBinding, NoiseKey};
use gateway_tests::{
    ctl::text,
    platform::{Placement, Platform, Site},
    stranger::Stranger,
};

#[tokio::test]
async fn a_code_works_once_and_again_only_for_the_key_that_used_it() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    platform.create_organization("north", "Organization north").await?;
    platform.create_server("north", "engine").await?;
    let code = platform.enrollment_code("north", "engine").await?;
    let site = Site::start(&platform, "north", "engine", Placement::loopback()).await?;
    let enrolled = site.enroll(&platform.ctl, &code).await?;
    ensure!(text(&enrolled, "key")? == site.gateway.ready("key")?, "{enrolled}");

    let other = Site::start(&platform, "north", "other", Placement::loopback()).await?;
    let refused = platform.ctl.run(&["gateway", "enroll", &code, "--socket", other.socket(), "--json"]).await?;
    ensure!(refused.code == Some(1), "a used code ends with {:?}: {}", refused.code, refused.stderr);
    ensure!(!refused.stderr.contains(&code), "the code is repeated in the error: {}", refused.stderr);

    let problem = Stranger::default().enroll(&code).await?.err().context("a used code enrolled a stranger")?;
    ensure!(problem.code == "enrollment_code" && problem.status < 500, "{problem:?}");
    Ok(())
}

#[tokio::test]
async fn an_expired_code_and_a_superseded_one_are_refused() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    platform.create_organization("north", "Organization north").await?;
    platform.create_server("north", "engine").await?;
    let superseded = platform.enrollment_code("north", "engine").await?;
    let args = ["server", "enrollment-code", "engine", "--valid", "60s", "--profile", "north"];
    let short = text(&platform.ctl.json(&args).await?, "code")?.to_owned();
    let problem = Stranger::default().enroll(&superseded).await?.err().context("a superseded code enrolled")?;
    ensure!(problem.code == "enrollment_code", "{problem:?}");
    // The shortest validity there is; this is what is tested, not a wait for something else.
    tokio::time::sleep(Duration::from_secs(62)).await;
    let problem = Stranger::default().enroll(&short).await?.err().context("an expired code enrolled")?;
    ensure!(problem.code == "enrollment_code", "{problem:?}");
    Ok(())
}

#[tokio::test]
async fn a_code_is_not_spent_by_a_request_without_proof_of_the_key() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    platform.create_organization("north", "Organization north").await?;
    platform.create_server("north", "engine").await?;
    let text = platform.enrollment_code("north", "engine").await?;
    let code: EnrollmentCode = text.parse()?;
    let (owner, thief) = (Stranger::default(), Stranger::default());
    let noise = NoiseKey::from_bytes(gateway_net::random());
    let binding = NoiseBinding::new(&owner.key, &noise);
    let mut forged = EnrollRequest::new(code.secret.clone(), &owner.key, binding, "test".into());
    forged.key = thief.key.public();
    let problem = thief.ask(&code, &forged).await?.err().context("a forged proof enrolled")?;
    ensure!(problem.status < 500, "{problem:?}");
    ensure!(owner.enroll(&text).await?.is_ok(), "the code was spent by the forged request");
    Ok(())
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_directory_is_refused_and_the_first_goes_on() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    let first = Site::start(&platform, "north", "engine", Placement::loopback()).await?;
    let second = Site::start(&platform, "north", "engine", Placement::loopback()).await;
    let error = format!("{:#}", second.err().context("a second daemon started")?);
    ensure!(error.contains("ended with"), "{error}");
    ensure!(error.to_lowercase().contains("state"), "the error does not name the state directory: {error}");
    let status = first.status(&platform.ctl).await?;
    ensure!(status.key.to_string() == first.gateway.ready("key")?, "the first daemon's socket was taken over");
    Ok(())
}

#[tokio::test]
async fn the_key_file_is_readable_by_its_owner_only_and_survives_a_restart() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let platform = Platform::start().await?;
    let mut site = Site::start(&platform, "north", "engine", Placement::loopback()).await?;
    let key = site.gateway.ready("key")?.to_owned();
    for entry in std::fs::read_dir(site.state_dir())? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        // What the daemon printed when it was ready, and the certificate it shows to everybody, are no secrets.
        let public = ["ready.json", "tls-certificate.pem"].iter().any(|name| entry.file_name() == *name);
        let open = mode & 0o077 != 0 && !public;
        ensure!(!open, "{} has mode {mode:o}", entry.path().display());
    }
    site.gateway.kill_and_reap();
    site.restart().await?;
    ensure!(site.gateway.ready("key")? == key, "another key after a restart");
    Ok(())
}
