//! `gateway-ctl usage`: how often the own devices took part in which behavior, by day; for the operator of the platform, those of
//! any organization.

use clap::Args;
use gateway_proto::{
    api::platform::{Device, Executions, PlatformOrganization},
    id::DeviceId,
};

use crate::{
    client::Control,
    cmd::{Context, id_of, relay::Place},
    error::CtlError,
    output::View,
    secret::SecretSource,
};

const PATH: &str = "/executions";
const ORGANIZATIONS: &str = "/organizations";

/// Which executions.
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// First day, UTC, like 2026-01-31; default: 30 days ago.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Last day; default: today.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Name or id of an own device; with --organization its id.
    #[arg(long)]
    device: Option<String>,
    /// Behavior, see `behavior list`.
    #[arg(long)]
    behavior: Option<String>,
    /// Name or id of any organization (for the operator of the platform); default: the own one.
    #[arg(long, requires = "operator_token_file")]
    organization: Option<String>,
    /// File with the operator token of the platform, `-` for standard input.
    #[arg(long, value_name = "FILE", requires = "organization")]
    operator_token_file: Option<SecretSource>,
    #[command(flatten)]
    place: Place,
}

impl Usage {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Self { from, to, device, behavior, organization, operator_token_file, place } = self;
        let (control, path, device) = match (organization, operator_token_file) {
            (Some(organization), Some(source)) => {
                let control = place.operated(context, &source)?;
                let path = path_of(&control, &organization).await?;
                (control, path, device.as_deref().map(device_id).transpose()?)
            }
            (None, _) | (_, None) => {
                let control = place.signed_in(context)?;
                let device = match &device {
                    Some(device) => Some(id_of::<Device>(&control, "/devices", device, |_| true).await?),
                    None => None,
                };
                (control, PATH.to_owned(), device)
            }
        };
        let device = device.map(|id| id.to_string());
        let all = [("from", &from), ("to", &to), ("device", &device), ("behavior", &behavior)];
        let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        let executions: Vec<Executions> = control.list(&path, &query, None).await?;
        context.out.list(&executions)
    }
}

async fn path_of(control: &Control, organization: &str) -> Result<String, CtlError> {
    let id = id_of::<PlatformOrganization>(control, ORGANIZATIONS, organization, |_| true).await?;
    Ok(format!("{ORGANIZATIONS}/{id}{PATH}"))
}

/// The operator has no list of the devices of an organization in which a name could be looked up.
fn device_id(device: &str) -> Result<DeviceId, CtlError> {
    let words = || format!("with --organization name the device by its id (`usage --json` shows them), not '{device}'");
    device.parse().map_err(|_| CtlError::Usage(words()))
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
