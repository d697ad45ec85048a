//! Behaviors: the kinds of exchange there are. Data, not code: the platform's operator adds to them, and whatever names one
//! (a channel, a device) names one that is known.

use gateway_proto::api::platform::{Behavior, PutBehavior};

use super::{OperatorCaller, Service, ServiceError, ServiceResult, Work, bounds, validate};
use crate::storage::BehaviorRow;

/// Behaviors of a platform at most.
const MAX_BEHAVIORS: usize = 200;

impl Service {
    /// All behaviors.
    pub async fn behaviors(&self) -> ServiceResult<Vec<Behavior>> {
        let rows = self.storage.read().await?.behaviors().await?;
        Ok(rows.into_iter().map(|row| Behavior { name: row.name, description: row.description }).collect())
    }

    /// Adds a behavior or describes one anew, as the operator of the platform.
    pub async fn put_behavior(
        &self,
        operator: &OperatorCaller,
        name: &str,
        body: PutBehavior,
    ) -> ServiceResult<Behavior> {
        let row = BehaviorRow {
            name: validate::behavior(name)?,
            description: validate::text("description", &body.description, bounds::MAX_TEXT)?,
        };
        let mut work = self.work_of_operator(operator).await?;
        let known = work.behaviors().await?;
        let before = known.iter().find(|known| known.name == row.name);
        if before.is_none() && known.len() >= MAX_BEHAVIORS {
            return Err(ServiceError::Conflict(format!("there are {MAX_BEHAVIORS} behaviors already; remove one")));
        }
        if before == Some(&row) {
            work.unchanged().await?;
            return Ok(Behavior { name: row.name, description: row.description });
        }
        let described = before.map_or("none", |before| before.description.as_str());
        let detail = super::work::changes(&[("description", &described, &row.description)]);
        work.put_behavior(&row).await?;
        work.audit_platform("behavior.put", &row.name, detail).await?;
        work.commit().await?;
        Ok(Behavior { name: row.name, description: row.description })
    }

    /// Removes a behavior that nothing names any more, as the operator of the platform.
    pub async fn delete_behavior(&self, operator: &OperatorCaller, name: &str) -> ServiceResult<()> {
        let mut work = self.work_of_operator(operator).await?;
        if work.is_behavior_used(name).await? {
            return Err(ServiceError::Conflict("channels or devices name this behavior; it stays".to_owned()));
        }
        let found = work.behaviors().await?.into_iter().find(|known| known.name == name);
        let before = found.ok_or(ServiceError::NotFound("behavior"))?;
        work.delete_behavior(name).await?;
        let changes = super::work::changes(&[("description", &before.description, &"none")]);
        work.audit_platform("behavior.delete", name, changes).await?;
        work.commit().await
    }
}

impl Work {
    /// A behavior that is known.
    pub(super) async fn known_behavior(&mut self, name: &str) -> ServiceResult<String> {
        Ok(self.known_behaviors(vec![name.to_owned()]).await?.remove(0))
    }

    /// Behaviors that are known, sorted, once each.
    pub(super) async fn known_behaviors(&mut self, mut names: Vec<String>) -> ServiceResult<Vec<String>> {
        let most = bounds::MAX_BEHAVIORS_OF_DEVICE;
        if names.len() > most {
            return Err(ServiceError::Invalid(format!("behaviors: at most {most} are accepted")));
        }
        names.sort();
        names.dedup();
        let known = self.behaviors().await?;
        if let Some(unknown) = names.iter().find(|name| !known.iter().any(|row| row.name == **name)) {
            let unknown = validate::behavior(unknown)?;
            let known: Vec<_> = known.into_iter().map(|row| row.name).collect();
            return Err(ServiceError::Invalid(format!(
                "'{unknown}' is no behavior of this platform: known are {}",
                known.join(", ")
            )));
        }
        Ok(names)
    }
}
