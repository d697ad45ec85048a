//! `gateway-ctl usage`: how often the own devices took part in which behavior, by day.

use clap::Args;
use gateway_proto::api::platform::{Device, Executions};

use crate::{
    cmd::{Context, id_of},
    error::CtlError,
    output::View,
};

/// Which executions.
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// First day, UTC, like 2026-01-31; default: 30 days ago.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Last day; default: today.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Name or id of an own device.
    #[arg(long)]
    device: Option<String>,
    /// Behavior, see `behavior list`.
    #[arg(long)]
    behavior: Option<String>,
}

impl Usage {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let device = match &self.device {
            Some(device) => Some(id_of::<Device>(&control, "/devices", device, |_| true).await?.to_string()),
            None => None,
        };
        let all = [("from", &self.from), ("to", &self.to), ("device", &device), ("behavior", &self.behavior)];
        let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        let executions: Vec<Executions> = control.list("/executions", &query, None).await?;
        context.out.list(&executions)
    }
}

impl View for Executions {
    const HEADERS: &'static [&'static str] = &["DAY", "DEVICE", "BEHAVIOR", "EXECUTIONS"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.day.clone(), self.device_name.clone(), self.behavior.clone(), self.number.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Day", "Device", "Behavior", "Executions"].into_iter().zip(self.row(now)).collect()
    }
}
