//! OpenSSH's sftp and sshd: files put and got back, one of them of 64 MB.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use anyhow::ensure;
use gateway_tests::{measured, scene::play};
use nix::unistd::{Uid, User, geteuid};

use crate::programs::{Server, command, finish, noise, serve};

const SMALL_FILES: u64 = 40;

#[tokio::test]
async fn openssh_puts_files_and_gets_them_back_through_the_tunnel() -> anyhow::Result<()> {
    play(async |scene| {
        let dir = tempfile::tempdir()?;
        let path = dir.path();
        for folder in ["out", "files", "back"] {
            fs::create_dir(path.join(folder))?;
        }
        for n in 0..SMALL_FILES {
            fs::write(path.join(format!("out/{n:03}.hl7")), noise(n + 1, 700 * usize::try_from(n)?))?;
        }
        fs::write(path.join("out/large.bin"), noise(99, 64 << 20))?;
        let server = sshd(path).await?;
        let agreement = scene.link.agreement.clone();
        let link = scene.platform.link_as(&agreement, &scene.south, &scene.north, server.address, "sftp").await?;
        let batch = format!("put {0}/out/* .\nget *.hl7 {0}/back/\nget large.bin {0}/back/\nbye\n", path.display());
        fs::write(path.join("batch"), batch)?;
        let user = User::from_uid(geteuid())?.map_or_else(|| "root".into(), |user| user.name);
        let begun = Instant::now();
        let mut sftp = command("sftp");
        sftp.args(["-q", "-b"]).arg(path.join("batch")).args(["-P", &link.sender.port().to_string(), "-i"]);
        sftp.arg(path.join("key")).args([
            "-F",
            "/dev/null",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=no",
        ]);
        sftp.args(["-o", "UserKnownHostsFile=/dev/null", &format!("{user}@127.0.0.1")]);
        finish(&mut sftp).await?;
        measured!("sftp: 64 MB there and back in {:.1} s", begun.elapsed().as_secs_f64());
        for entry in fs::read_dir(path.join("out"))? {
            let name = entry?.file_name();
            let sent = fs::read(path.join("out").join(&name))?;
            for folder in ["files", "back"] {
                ensure!(fs::read(path.join(folder).join(&name))? == sent, "{} changed in {folder}", name.display());
            }
        }
        let status = scene.south.connection(&scene.platform.ctl, &link.connection).await?;
        let floor = 2 * (64 << 20);
        ensure!(status.bytes_sent + status.bytes_received > floor, "both directions are counted: {status:?}");
        ensure!(status.streams_reset == 0 && status.exchange.is_none(), "nothing of it is looked into: {status:?}");
        Ok(())
    })
    .await
}

/// sshd for one user, who may only use sftp, with a key.
async fn sshd(dir: &Path) -> anyhow::Result<Server> {
    for name in ["key", "host_key"] {
        let mut keygen = command("ssh-keygen");
        finish(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name))).await?;
    }
    fs::copy(dir.join("key.pub"), dir.join("authorized_keys"))?;
    if geteuid() == Uid::from_raw(0) {
        // Debian's sshd gives up its rights in there; its service makes the folder, which does not run here.
        fs::create_dir_all("/run/sshd")?;
        fs::set_permissions("/run/sshd", PermissionsExt::from_mode(0o755))?;
    }
    serve(&dir.join("sshd.log"), |port| {
        let at = |name: &str| dir.join(name).display().to_string();
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile {}\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n\
             ForceCommand internal-sftp -d {}\n",
            at("host_key"),
            at("authorized_keys"),
            at("pid"),
            at("files"),
        );
        fs::write(dir.join("sshd_config"), text)?;
        let mut sshd = command("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f", &at("sshd_config")]);
        Ok(sshd)
    })
    .await
}
