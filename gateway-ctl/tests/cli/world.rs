//! A fresh directory with both stand-ins, and the program in it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use axum_server::tls_rustls::RustlsConfig;
use gateway_net::tls::{ALPN_HTTP1, ServerIdentity, TlsPin, server_config};
use gateway_proto::{
    api::{
        Page,
        platform::{Agreement, Channel, ChannelDirection, Grant, Hidden, Organization, Role, Server, Session, User},
    },
    id::{AgreementId, ChannelId, GrantId, OrganizationId, ServerId, TenantId, UserId},
    peering::{AgreementStatus, GrantStatus},
};
use tokio::{io::AsyncWriteExt, net::UnixListener, process::Command, task::JoinSet};

use crate::stand_in::StandIn;

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const TOKEN: &str = "session-token-very-secret";

/// Everything around one test.
pub(crate) struct World {
    pub(crate) control: StandIn,
    pub(crate) daemon: StandIn,
    pub(crate) url: String,
    pub(crate) pin: TlsPin,
    directory: tempfile::TempDir,
    _servers: JoinSet<()>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (control, daemon) = (StandIn::default(), StandIn::default());
        let mut servers = JoinSet::new();

        let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        let tls = RustlsConfig::from_config(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let service = control.router().into_make_service();
        servers.spawn(async move {
            axum_server::from_tcp_rustls(listener, tls).unwrap().serve(service).await.unwrap();
        });

        let socket = UnixListener::bind(directory.path().join("gatewayd.sock")).unwrap();
        let router = daemon.router();
        servers.spawn(async move { axum::serve(socket, router).await.unwrap() });
        Self { control, daemon, url, pin: identity.pin(), directory, _servers: servers }
    }

    /// The same, signed in with the default profile; the record of the stand-in is not empty then.
    pub(crate) async fn signed_in() -> Self {
        let world = Self::new();
        world.control.answer("POST /api/v1/sessions", 200, &session());
        let password = world.secret("password", PASSWORD);
        let pin = world.pin.to_string();
        let login =
            ["login", "--control", &world.url, "--pin", &pin, "--email", "a@a.example", "--password-file", &password];
        let outcome = world.run(&login).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file only its owner can read and returns its path.
    pub(crate) fn secret(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        gateway_net::secret_file::write(&path, content.as_bytes()).unwrap();
        text(&path)
    }

    /// Runs the program with nothing on its standard input.
    pub(crate) async fn run(&self, args: &[&str]) -> Outcome {
        self.run_with_input(args, "").await
    }

    pub(crate) async fn run_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not read its input may be gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let limit = Duration::from_secs(60);
        let output = tokio::time::timeout(limit, child.wait_with_output()).await.expect("the program ends").unwrap();
        let outcome = Outcome {
            code: output.status.code().expect("no signal ends it"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in [PASSWORD, TOKEN] {
            assert!(
                !outcome.stdout.contains(secret) && !outcome.stderr.contains(secret),
                "a secret shows: {outcome:?}"
            );
        }
        outcome
    }

    /// The program, in this world and no other.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway-ctl"));
        command
            .args(args)
            .current_dir(self.directory.path())
            .env_clear()
            .env("GATEWAY_CTL_HOME", self.path("profiles"))
            .env("GATEWAYD_SOCKET", self.path("gatewayd.sock"));
        command
    }
}

impl Outcome {
    /// The answer as the type it should be.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(crate) fn page<T>(items: Vec<T>) -> Page<T> {
    Page { items, next: None }
}

pub(crate) fn session() -> Session {
    Session { token: Hidden(TOKEN.into()), expires_at: 4_000_000_000, user: user(), organization: organization() }
}

pub(crate) fn user() -> User {
    User {
        id: UserId::new(1, [0; 10]),
        email: "a@a.example".into(),
        name: "Owner A".into(),
        role: Role::Owner,
        created_at: 1_760_000_000,
    }
}

pub(crate) fn organization() -> Organization {
    Organization {
        id: OrganizationId::new(1, [0; 10]),
        tenant_id: TenantId::new(1, [0; 10]),
        name: "Clinic A".into(),
        description: String::new(),
        discoverable: true,
        two_person_admin: false,
        created_at: 1_760_000_000,
    }
}

pub(crate) fn server(n: u8, name: &str) -> Server {
    Server {
        id: ServerId::new(1, [n; 10]),
        name: name.into(),
        gateway: None,
        gateway_version: None,
        online: false,
        last_seen_at: None,
        policy_revision: 0,
        applied_revision: 0,
        policy_problem: None,
        audit_alarm: false,
        runs_twice: None,
        created_at: 1_760_000_000,
    }
}

pub(crate) fn agreement(peer: u8, name: &str) -> Agreement {
    Agreement {
        id: AgreementId::new(1, [peer; 10]),
        peer_id: OrganizationId::new(1, [peer; 10]),
        peer_name: name.into(),
        status: AgreementStatus::Active,
        suspended_by_us: false,
        suspended_by_peer: false,
        created_at: 1_760_000_000,
        ended_at: None,
    }
}

pub(crate) fn channel() -> Channel {
    Channel {
        id: ChannelId::new(1, [7; 10]),
        server_id: server(1, "lab").id,
        name: "adt-in".into(),
        direction: ChannelDirection::Listener,
        engine: "127.0.0.1:6661".into(),
        local_port: None,
        connection_id: None,
        feeds: None,
        behavior: "hl7v2-mllp".into(),
        published: true,
        public_name: "ADT feed".into(),
        public_description: "Admissions, discharges, transfers".into(),
        created_at: 1_760_000_000,
    }
}

pub(crate) fn grant() -> Grant {
    Grant {
        id: GrantId::new(1, [0; 10]),
        agreement_id: agreement(2, "").id,
        channel_id: channel().id,
        endpoint: "ADT feed".into(),
        direction: "given".into(),
        peer_name: "Clinic B".into(),
        behavior: "hl7v2-mllp".into(),
        status: GrantStatus::Pending,
        connection_id: None,
        expires_at: None,
        max_streams: 32,
        bytes_per_second: None,
        receive_timeout_secs: None,
        behaviors: Vec::new(),
        staleness_secs: 259_200,
        require_post_quantum: false,
        created_at: 1_760_000_000,
        approved_at: None,
    }
}
