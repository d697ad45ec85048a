//! Steps 2 to 5: two organizations find each other and agree, a channel is granted and approved, and a local port opens.

use std::net::SocketAddr;

use anyhow::Context;
use gateway_proto::policy::{Activation, HL7V2_MLLP};
use serde_json::Value;

use super::{POLICY_LIMIT, Platform, Site};
use crate::{
    ctl::{items, text},
    wait,
};

/// A connection whose sender's local port is open.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its id.
    pub connection: String,
    /// Its grant.
    pub grant: String,
    /// Its agreement.
    pub agreement: String,
    /// Where the sending engine connects to.
    pub sender: SocketAddr,
}

impl Platform {
    /// Steps 2 and 3: the organization of `from` finds the one of `to` and asks; that one accepts. Gives the agreement.
    pub async fn peer(&self, from: &Site, to: &Site) -> anyhow::Result<String> {
        let organization = self.find(&from.profile, &format!("Organization {}", to.profile)).await?;
        self.ctl.json(&["peering", "request", &organization, "--profile", &from.profile]).await?;
        let request = self.incoming_request(&to.profile).await?;
        let accepted = self.ctl.json(&["peering", "accept", &request, "--profile", &to.profile]).await?;
        Ok(text(&accepted, "agreement_id")?.into())
    }

    /// Step 2a: the id of an organization in the directory.
    pub async fn find(&self, profile: &str, name: &str) -> anyhow::Result<String> {
        let found = self.ctl.json(&["directory", "search", name, "--profile", profile]).await?;
        let entry = items(&found)?.iter().find(|entry| entry["name"] == name);
        Ok(text(entry.with_context(|| format!("'{name}' is not in the directory: {found}"))?, "id")?.into())
    }

    /// Step 3a: the id of the request that waits for this organization.
    pub async fn incoming_request(&self, profile: &str) -> anyhow::Result<String> {
        let requests = self.ctl.json(&["peering", "list", "--profile", profile]).await?;
        let waiting = |request: &&Value| request["direction"] == "incoming" && request["status"] == "pending";
        let request = items(&requests)?.iter().find(waiting);
        Ok(text(request.with_context(|| format!("no request waits: {requests}"))?, "id")?.into())
    }

    /// Steps 4 and 5: `listener` publishes its engine, grants it, `sender` approves; waits until the listener lets data in
    /// and the local port is open. Each gateway has its own policy, and neither waits for the other's.
    pub async fn link(
        &self,
        agreement: &str,
        listener: &Site,
        sender: &Site,
        engine: SocketAddr,
    ) -> anyhow::Result<Link> {
        let name = format!("adt-{}", engine.port());
        let grant = self.offer(agreement, listener, &name, engine).await?;
        let connection = self.approve(&grant, sender).await?;
        self.carrying(agreement, grant, connection, listener, sender).await
    }

    /// The same for another behavior than HL7 v2 over MLLP.
    pub async fn link_as(
        &self,
        agreement: &str,
        listener: &Site,
        sender: &Site,
        engine: SocketAddr,
        behavior: &str,
    ) -> anyhow::Result<Link> {
        let channel = self.publish_as(listener, &format!("{behavior}-{}", engine.port()), engine, behavior).await?;
        let grant = self.grant(agreement, listener, &channel, None).await?;
        let connection = self.approve(&grant, sender).await?;
        self.carrying(agreement, grant, connection, listener, sender).await
    }

    /// Steps 4 and 5 inside one organization: the sending server is picked with the offer, and approved if that is needed.
    pub async fn link_within(
        &self,
        agreement: &str,
        listener: &Site,
        sender: &Site,
        engine: SocketAddr,
    ) -> anyhow::Result<Link> {
        let name = format!("adt-{}", engine.port());
        let channel = self.publish(listener, &name, engine).await?;
        let args = ["grant", "offer", "--profile", &listener.profile, "--channel", &channel, "--to", agreement];
        let args: Vec<&str> = args.into_iter().chain(["--server", &sender.name]).collect();
        let grant = self.ctl.json(&args).await?;
        let id = text(&grant, "id")?.to_owned();
        let connection = match grant["connection_id"].as_str() {
            Some(connection) => connection.into(),
            None => self.approve(&id, sender).await?,
        };
        self.carrying(agreement, id, connection, listener, sender).await
    }

    /// The approved connection, once data passes.
    async fn carrying(
        &self,
        agreement: &str,
        grant: String,
        connection: String,
        listener: &Site,
        sender: &Site,
    ) -> anyhow::Result<Link> {
        listener.live(&connection).await?;
        let sender = self.opened(&connection, sender).await?;
        Ok(Link { connection, grant, agreement: agreement.into(), sender })
    }

    /// Step 4a: publishes the engine's port as `name` and offers it. Gives the grant.
    pub async fn offer(
        &self,
        agreement: &str,
        listener: &Site,
        name: &str,
        engine: SocketAddr,
    ) -> anyhow::Result<String> {
        let channel = self.publish(listener, name, engine).await?;
        self.grant(agreement, listener, &channel, None).await
    }

    /// Step 4a with an end: publishes and offers for a time such as `90d`. Gives the grant.
    pub async fn offer_until(
        &self,
        agreement: &str,
        listener: &Site,
        engine: SocketAddr,
        expires: Option<&str>,
    ) -> anyhow::Result<String> {
        let channel = self.publish(listener, &format!("adt-{}", engine.port()), engine).await?;
        self.grant(agreement, listener, &channel, expires).await
    }

    async fn grant(
        &self,
        agreement: &str,
        listener: &Site,
        channel: &str,
        expires: Option<&str>,
    ) -> anyhow::Result<String> {
        let args = ["grant", "offer", "--profile", &listener.profile, "--channel", channel, "--to", agreement];
        let end = expires.map(|expires| ["--expires", expires]);
        let args: Vec<&str> = args.into_iter().chain(end.into_iter().flatten()).collect();
        Ok(text(&self.ctl.json(&args).await?, "id")?.into())
    }

    async fn publish(&self, listener: &Site, name: &str, engine: SocketAddr) -> anyhow::Result<String> {
        self.publish_as(listener, name, engine, HL7V2_MLLP).await
    }

    async fn publish_as(
        &self,
        listener: &Site,
        name: &str,
        engine: SocketAddr,
        behavior: &str,
    ) -> anyhow::Result<String> {
        let engine = engine.to_string();
        let public_name = format!("{name} of {}", listener.name);
        let mut args =
            vec!["channel", "create", "--profile", &listener.profile, "--server", &listener.name, "--name", name];
        args.extend(["--engine", &engine, "--publish", &public_name, "--behavior", behavior]);
        Ok(text(&self.ctl.json(&args).await?, "id")?.into())
    }

    /// Step 4b: the peer approves, its `sender` sends. Gives the connection.
    pub async fn approve(&self, grant: &str, sender: &Site) -> anyhow::Result<String> {
        let args = ["grant", "approve", grant, "--profile", &sender.profile, "--server", &sender.name];
        Ok(text(&self.ctl.json(&args).await?, "connection_id")?.into())
    }

    /// Step 5: waits until the sending gateway opened its local port. Data passes once the listener is
    /// [live](Site::live) too.
    pub async fn opened(&self, connection: &str, sender: &Site) -> anyhow::Result<SocketAddr> {
        wait::until(POLICY_LIMIT, format!("{} opens the local port of {connection}", sender.name), async || {
            let found = sender.seen(connection).await?;
            let open = found.as_ref().filter(|entry| entry.activation == Activation::Active && entry.role == "sender");
            let Some(address) = open.and_then(|entry| entry.local_address.as_deref()) else { return Ok(None) };
            Ok(Some(address.parse().with_context(|| format!("local address '{address}'"))?))
        })
        .await
    }
}
