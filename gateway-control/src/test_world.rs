//! A control plane for tests inside the crate: on a file of SQLite, with one organization and its owner.

use std::net::Ipv4Addr;

use gateway_net::shutdown::Shutdown;
use gateway_proto::api::platform::Session;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    app::{self, Running},
    clock::Clock,
    config::Config,
    service::{Service, Stranger},
};

pub(crate) struct World {
    pub(crate) service: Service,
    /// Of the owner.
    pub(crate) session: Session,
    _running: Running,
    _directory: TempDir,
}

impl World {
    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n", directory.path().join("data").display());
        let config = Config::parse(&text).unwrap();
        let running = app::start(config, Clock::system(), Shutdown::manual()).await.unwrap();
        let operator = std::fs::read_to_string(&running.ready().operator_token_file).unwrap();
        let body = json!({
            "name": "Hospital", "owner_email": "owner@hospital.example", "owner_name": "Owner",
            "owner_password": "correct horse battery", "registration_token": operator.trim(),
        });
        let stranger = Stranger { address: Ipv4Addr::LOCALHOST.into(), request: String::new() };
        let service = running.service().clone();
        let session = service.create_organization(&stranger, serde_json::from_value(body).unwrap()).await.unwrap();
        Self { service, session, _running: running, _directory: directory }
    }
}
