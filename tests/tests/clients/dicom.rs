//! dcmtk and pynetdicom, each as caller and as called: verification, small images, and a study of 64 MB.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, ensure};
use gateway_proto::api::local::{DicomStatus, ExchangeStatus};
use gateway_tests::{
    measured,
    platform::{Link, Site},
    scene::{Scene, play},
    wait,
};
use tokio::process::Command;

use crate::programs::{LIMIT, Server, command, finish, python, script, serve};

/// Images of the study, the last one larger than all others together.
const IMAGES: usize = 25;

#[tokio::test]
async fn dcmtk_stores_a_study_of_64_mb_at_pynetdicom_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let dir = tempfile::tempdir()?;
        let (study, stored) = (study(dir.path()).await?, dir.path().join("stored"));
        fs::create_dir(&stored)?;
        let server = serve(&dir.path().join("log"), |port| {
            let mut server = python()?;
            server.args(["-m", "pynetdicom", "storescp", &port.to_string(), "-ba", "127.0.0.1", "-od"]).arg(&stored);
            Ok(server)
        })
        .await?;
        let link = link(scene, &server).await?;
        let port = link.sender.port().to_string();
        finish(command("echoscu").args(["-aet", "NORTH", "-aec", "SOUTH", "127.0.0.1", &port])).await?;
        let begun = Instant::now();
        let mut storescu = command("storescu");
        storescu.args(["-R", "-xe", "-aet", "NORTH", "-aec", "SOUTH", "127.0.0.1", &port]);
        finish(storescu.args(&study)).await?;
        measured!("dcmtk: a study of {} MB in {:.1} s", megabytes(&study)?, begun.elapsed().as_secs_f64());
        same(&study, &stored)?;
        associations(scene, &link, 2).await
    })
    .await
}

#[tokio::test]
async fn pynetdicom_stores_a_study_of_64_mb_at_dcmtk_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let dir = tempfile::tempdir()?;
        let (study, stored) = (study(dir.path()).await?, dir.path().join("stored"));
        fs::create_dir(&stored)?;
        // It has no option to listen on loopback only.
        let server = serve(&dir.path().join("log"), |port| {
            let mut server = command("storescp");
            server.args(["+B", "-aet", "SOUTH", "-od"]).arg(&stored).arg(port.to_string());
            Ok(server)
        })
        .await?;
        let link = link(scene, &server).await?;
        let port = link.sender.port().to_string();
        let called = |name: &str| -> anyhow::Result<Command> {
            let mut client = python()?;
            client.args(["-m", "pynetdicom", name, "127.0.0.1", &port, "-aet", "NORTH", "-aec", "SOUTH"]);
            Ok(client)
        };
        finish(&mut called("echoscu")?).await?;
        let begun = Instant::now();
        let folder = study[0].parent().context("a folder")?;
        finish(called("storescu")?.arg("-xe").arg(folder)).await?;
        measured!("pynetdicom: a study of {} MB in {:.1} s", megabytes(&study)?, begun.elapsed().as_secs_f64());
        same(&study, &stored)?;
        associations(scene, &link, 2).await
    })
    .await
}

async fn link(scene: &Scene, server: &Server) -> anyhow::Result<Link> {
    let agreement = scene.link.agreement.clone();
    scene.platform.link_as(&agreement, &scene.south, &scene.north, server.address, "dicom").await
}

async fn study(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = dir.join("study");
    finish(script("dicom_study.py")?.arg(&folder).arg(IMAGES.to_string())).await?;
    let mut files: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.sort();
    ensure!(files.len() == IMAGES && megabytes(&files)? >= 64, "{} files", files.len());
    Ok(files)
}

fn megabytes(files: &[PathBuf]) -> anyhow::Result<u64> {
    Ok(files.iter().map(|file| Ok(fs::metadata(file)?.len())).sum::<anyhow::Result<u64>>()? / 1_000_000)
}

/// Every image arrived once, byte for byte but for the file's own header, which each program writes for itself.
fn same(sent: &[PathBuf], stored: &Path) -> anyhow::Result<()> {
    let mut received = BTreeMap::new();
    for entry in fs::read_dir(stored)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        received.insert(name, data_set(&path)?);
    }
    ensure!(received.len() == sent.len(), "{} of {} images arrived", received.len(), sent.len());
    for path in sent {
        let instance = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let found = received.iter().find(|(name, _)| name.trim_end_matches(".dcm").ends_with(&instance));
        let (name, bytes) = found.with_context(|| format!("{instance} is not among {:?}", received.keys()))?;
        ensure!(*bytes == data_set(path)?, "{name} arrived with other bytes");
    }
    Ok(())
}

/// What follows the file meta information (PS3.10: preamble, `DICM`, group 0002 with its length first).
fn data_set(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    ensure!(bytes.get(128..140) == Some(b"DICM\x02\x00\x00\x00UL\x04\x00"), "{} is no DICOM file", path.display());
    let length = bytes.get(140..144).and_then(|four| four.try_into().ok()).context("a length")?;
    let begin = 144 + usize::try_from(u32::from_le_bytes(length))?;
    Ok(bytes.get(begin..).context("a data set")?.to_vec())
}

/// Both gateways saw so many associations, all accepted, and the titles of the programs.
async fn associations(scene: &Scene, link: &Link, count: u64) -> anyhow::Result<()> {
    for site in [&scene.north, &scene.south] {
        let seen = dicom_at(site, link, |dicom| dicom.accepted == count).await?;
        ensure!((seen.requested, seen.rejected, seen.aborted, seen.unreadable) == (count, 0, 0, 0), "{seen:?}");
        ensure!(seen.called.as_deref() == Some("SOUTH") && seen.calling.as_deref() == Some("NORTH"), "{seen:?}");
    }
    Ok(())
}

async fn dicom_at(site: &Site, link: &Link, is: impl Fn(&DicomStatus) -> bool) -> anyhow::Result<DicomStatus> {
    let mut last = None;
    let found = wait::until(LIMIT, format!("{} counts the associations", site.name), async || {
        last = site.seen(&link.connection).await?.and_then(|entry| entry.exchange);
        let Some(ExchangeStatus::Dicom(dicom)) = &last else { return Ok(None) };
        Ok(Some(dicom.clone()).filter(|dicom| is(dicom)))
    });
    found.await.with_context(|| format!("last: {last:?}"))
}
