//! `gateway-ctl link`: what switches the behaviors of a device on for another one.

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{self, CreateLink, Device, LinkableDevice},
    id::{DeviceId, LinkId},
};

use crate::{
    args::Confirm,
    cmd::{Context, id_of},
    error::CtlError,
    output::{View, or_dash, time, word},
    resolve::{self, Named},
};

const PATH: &str = "/links";
const LINKABLE: &str = "/linkable-devices";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Link {
    /// List the links from and to the own devices.
    List,
    /// List the devices of others that the own ones may be linked to.
    Targets,
    /// Link an own device to another one.
    Create(Create),
    /// Delete a link.
    Delete(Delete),
}

/// A new link.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name or id of the own device that asks.
    #[arg(long)]
    from: String,
    /// Name or id of the device that is asked: an own one, or one of `link targets`.
    #[arg(long)]
    to: String,
}

/// A link to delete.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// `SOURCE/TARGET`, or the id.
    link: String,
    #[command(flatten)]
    confirm: Confirm,
}

impl Link {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::List => {
                let links: Vec<platform::Link> = control.list(PATH, &[], None).await?;
                context.out.list(&links)
            }
            Self::Targets => {
                let devices: Vec<LinkableDevice> = control.list(LINKABLE, &[], None).await?;
                context.out.list(&devices)
            }
            Self::Create(Create { from, to }) => {
                let source_device_id = id_of::<Device>(&control, "/devices", &from, |_| true).await?;
                let target_device_id = match to.parse() {
                    Ok(id) => id,
                    Err(_) => {
                        let own: Vec<Device> = control.list("/devices", &[], None).await?;
                        match resolve::pick(&to, &own, |_| true) {
                            Ok(device) => device.id,
                            Err(resolve::ResolveError::Unknown { .. }) => {
                                id_of::<LinkableDevice>(&control, LINKABLE, &to, |_| true).await?
                            }
                            Err(
                                error @ (resolve::ResolveError::Ambiguous { .. }
                                | resolve::ResolveError::OtherPeers { .. }),
                            ) => return Err(error.into()),
                        }
                    }
                };
                let link: platform::Link =
                    control.post(PATH, &CreateLink { source_device_id, target_device_id }).await?;
                context.out.item(&link)
            }
            Self::Delete(Delete { link, confirm }) => {
                let id = id_of::<platform::Link>(&control, PATH, &link, |_| true).await?;
                confirm.ask(&format!("Delete the link '{link}' ({id})"))?;
                control.delete(&format!("{PATH}/{id}")).await?;
                context.out.deed("link.delete", id, &format!("Deleted the link '{link}'."))
            }
        }
    }
}

impl Named for platform::Link {
    type Id = LinkId;
    const KIND: &'static str = "link";
    const LIST: &'static str = "link list";

    fn id(&self) -> LinkId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![format!("{}/{}", self.source_name, self.target_name)]
    }

    fn describe(&self) -> String {
        format!("{} → {}", self.source_name, self.target_name)
    }
}

impl View for platform::Link {
    const HEADERS: &'static [&'static str] = &["FROM", "TO", "KIND", "BEHAVIORS", "CREATED", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.source_name.clone(),
            self.target_name.clone(),
            word(&self.target_kind),
            self.behaviors.join(","),
            time::relative(now, self.created_at),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["From", "To", "Kind", "Behaviors", "Created", "Id"].into_iter().zip(self.row(now)).collect()
    }
}

impl Named for LinkableDevice {
    type Id = DeviceId;
    const KIND: &'static str = "device that may be linked to";
    const LIST: &'static str = "link targets";

    fn id(&self) -> DeviceId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn peer(&self) -> Option<&str> {
        self.organization_name.as_deref()
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.name, self.organization_name.as_deref().unwrap_or("the platform"))
    }
}

impl View for LinkableDevice {
    const HEADERS: &'static [&'static str] = &["NAME", "ORGANIZATION", "KIND", "BEHAVIORS", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            or_dash(self.organization_name.clone()),
            word(&self.kind),
            self.behaviors.join(","),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Name", "Organization", "Kind", "Behaviors", "Id"].into_iter().zip(self.row(now)).collect()
    }
}
