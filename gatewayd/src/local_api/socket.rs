//! The Unix socket: who may connect.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use axum::serve::Listener;
use nix::unistd::{Uid, geteuid};
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

/// After an error of `accept` (no file descriptors left, usually) the next try waits this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Binds with mode 0600, in place of a socket that nobody listens on any more.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    // Between the two calls the umask decides; the check of credentials holds from the first connection on.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    if !metadata.file_type().is_socket() {
        let text = "there is a file in its place that is not a socket; remove it or name another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    // A daemon with another state directory may have been told the same socket.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let text = "another process listens there; give each gatewayd a socket of its own";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    std::fs::remove_file(path)
}

/// Lets in our own user and root only; others are cut off before anything is read.
pub(super) struct OwnerOnly {
    listener: UnixListener,
    owner: Uid,
}

impl OwnerOnly {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, owner: geteuid() }
    }

    fn admits(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) => is_admitted(Uid::from_raw(peer.uid()), self.owner),
            Err(error) => {
                tracing::warn!(%error, "the credentials of a local API client cannot be read; it is refused");
                false
            }
        }
    }
}

fn is_admitted(peer: Uid, owner: Uid) -> bool {
    peer == owner || peer.is_root()
}

impl Listener for OwnerOnly {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) if self.admits(&stream) => return (stream, address),
                Ok(_) => tracing::warn!("a process of another user was refused at the local API"),
                Err(error) => {
                    tracing::warn!(%error, "the local API cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_and_root_are_admitted_and_nobody_else() {
        let (owner, other) = (Uid::from_raw(1000), Uid::from_raw(1001));
        assert!(is_admitted(owner, owner) && is_admitted(Uid::from_raw(0), owner));
        assert!(!is_admitted(other, owner) && !is_admitted(owner, Uid::from_raw(0)));
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_a_living_one_or_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        drop(bind(&path).unwrap());
        let listener = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "notes").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"notes");
    }
}
