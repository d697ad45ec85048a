//! The relay map. Every policy holds it, so a change is the one thing that concerns all gateways: the policies are
//! compiled in small batches by the reconciler.

use gateway_proto::{
    api::platform::{CreateRelay, Relay, UpdateRelay},
    id::RelayId,
};
use url::Url;

use super::{
    OperatorCaller, Service, ServiceError, ServiceResult, Work, bounds, error::OrConflict, validate, work::changes,
};
use crate::storage::RelayRow;

/// Relays in the map: their ids must fit into a relay token.
const MAX_RELAYS: usize = 32;

impl Service {
    /// The relay map.
    pub async fn relays(&self) -> ServiceResult<Vec<Relay>> {
        Ok(self.storage.read().await?.relays().await?.into_iter().map(show).collect())
    }

    /// One relay of the map.
    pub async fn relay(&self, id: RelayId) -> ServiceResult<Relay> {
        let found = self.storage.read().await?.relays().await?.into_iter().find(|relay| relay.id == id);
        found.map(show).ok_or(ServiceError::NotFound("relay"))
    }

    /// Adds a relay.
    pub async fn create_relay(&self, operator: &OperatorCaller, body: CreateRelay) -> ServiceResult<Relay> {
        let row = RelayRow {
            id: body.id,
            name: validate::name("name", &body.name)?,
            url: relay_url(&body.url)?,
            tls_pin: body.tls_pin.as_deref().map(tls_pin).transpose()?,
            stun: stun(&body.stun)?,
            region: body.region.as_deref().map_or(Ok(None), region)?,
        };
        let mut work = self.work_of_operator(operator).await?;
        if work.relays().await?.len() >= MAX_RELAYS {
            return Err(ServiceError::Conflict(format!("the relay map holds {MAX_RELAYS} relays at most")));
        }
        work.insert_relay(&row).await.or_conflict(|| "a relay with this id or URL is in the map already".to_owned())?;
        work.all_policies_change().await?;
        work.audit_platform("relay.create", row.id, row.url.clone()).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// Changes what the map says of a relay, which is in it all the while: gateways keep the connections that they have, and make
    /// new ones as it is said now.
    pub async fn update_relay(
        &self,
        operator: &OperatorCaller,
        id: RelayId,
        body: UpdateRelay,
    ) -> ServiceResult<Relay> {
        let mut work = self.work_of_operator(operator).await?;
        let found = work.relays().await?.into_iter().find(|relay| relay.id == id);
        let before = found.ok_or(ServiceError::NotFound("relay"))?;
        operator.check_match(&show(before.clone()))?;
        let row = changed(&before, &body)?;
        if row == before {
            work.unchanged().await?;
            return Ok(show(row));
        }
        work.update_relay(&row).await.or_conflict(|| "another relay of the map has this URL".to_owned())?;
        // Policies hold all of it but the name.
        if row != (RelayRow { name: row.name.clone(), ..before.clone() }) {
            work.all_policies_change().await?;
        }
        work.audit_change(&before, &row).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// Takes a relay out of the map.
    pub async fn delete_relay(&self, operator: &OperatorCaller, id: RelayId) -> ServiceResult<()> {
        let mut work = self.work_of_operator(operator).await?;
        let found = work.relays().await?.into_iter().find(|relay| relay.id == id);
        let before = found.ok_or(ServiceError::NotFound("relay"))?;
        work.delete_relay(id).await?;
        work.all_policies_change().await?;
        let changes = changes(&[("name", &before.name, &"none"), ("url", &before.url, &"none")]);
        work.audit_platform("relay.delete", id, changes).await?;
        work.commit().await
    }
}

impl Work {
    async fn audit_change(&mut self, before: &RelayRow, row: &RelayRow) -> ServiceResult<()> {
        let changes = changes(&[
            ("name", &before.name, &row.name),
            ("url", &before.url, &row.url),
            ("tls_pin", &said(before.tls_pin.as_ref()), &said(row.tls_pin.as_ref())),
            ("stun", &before.stun.join(", "), &row.stun.join(", ")),
            ("region", &said(before.region.as_ref()), &said(row.region.as_ref())),
        ]);
        self.audit_platform("relay.update", row.id, changes).await
    }
}

/// A relay as it is to be.
fn changed(before: &RelayRow, body: &UpdateRelay) -> ServiceResult<RelayRow> {
    let mut row = before.clone();
    if let Some(name) = &body.name {
        row.name = validate::renamed("name", &row.name, name)?;
    }
    if let Some(url) = &body.url {
        row.url = relay_url(url)?;
    }
    if let Some(pin) = &body.tls_pin {
        row.tls_pin = if pin.is_empty() { None } else { Some(tls_pin(pin)?) };
    }
    if let Some(listeners) = &body.stun {
        row.stun = stun(listeners)?;
    }
    if let Some(text) = &body.region {
        row.region = region(text)?;
    }
    Ok(row)
}

fn relay_url(text: &str) -> ServiceResult<String> {
    let invalid = || ServiceError::Invalid("url is not of the form wss://host:port/relay".to_owned());
    let url = Url::parse(text).map_err(|_| invalid())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() == "wss" && url.has_host() && plain && url.path() == gateway_proto::relay::PATH {
        Ok(url.to_string())
    } else {
        Err(invalid())
    }
}

/// A region: none where nothing is said.
fn region(text: &str) -> ServiceResult<Option<String>> {
    let sound = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    match text.len() {
        0 => Ok(None),
        1..=bounds::MAX_WORD if sound => Ok(Some(text.to_owned())),
        _ => Err(ServiceError::Invalid(format!("the region {text:?} is not 1–40 of a-z, 0-9 and '-'"))),
    }
}

fn said(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| "none".to_owned())
}

fn tls_pin(text: &str) -> ServiceResult<String> {
    let pin: gateway_net::tls::TlsPin =
        text.parse().map_err(|_| ServiceError::Invalid("tls_pin is not 64 hex digits".to_owned()))?;
    Ok(pin.to_string())
}

fn stun(listeners: &[String]) -> ServiceResult<Vec<String>> {
    let (most, longest) = bounds::MAX_STUN;
    validate::range("the number of stun listeners", listeners.len(), 0, most)?;
    for listener in listeners {
        let port = listener.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) || listener.len() > longest {
            return Err(ServiceError::Invalid(format!("the stun listener '{listener}' is not of the form host:port")));
        }
    }
    Ok(listeners.to_vec())
}

fn show(row: RelayRow) -> Relay {
    Relay { id: row.id, name: row.name, url: row.url, tls_pin: row.tls_pin, stun: row.stun, region: row.region }
}
