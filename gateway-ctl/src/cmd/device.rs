//! `gateway-ctl device`: systems with an identity of their own, and what they may do.

mod token;

use clap::{Args, Subcommand, ValueEnum};
use gateway_proto::{
    api::platform::{self, CreateDevice, CreateSystemDevice, DeviceKind, LinkableBy, UpdateDevice},
    id::DeviceId,
};

use crate::{
    args::{Confirm, Confirmed},
    client::Control,
    cmd::{Context, id_of, relay::Operator, server},
    error::CtlError,
    output::{View, or_dash, time, word},
    resolve::Named,
};

const PATH: &str = "/devices";
const SYSTEM: &str = "/system-devices";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// List the own devices; servers are among them.
    List {
        /// Those of the platform instead, which everybody may link to.
        #[arg(long)]
        system: bool,
    },
    /// Show a device.
    Show(One),
    /// Add a device. (That of a server is made with the server.)
    Create(Create),
    /// Change a device.
    Update(Update),
    /// Delete a device with its tokens.
    Delete(Confirmed<One>),
    /// Add a device of the platform (for its operator).
    CreateSystem(CreateSystem),
    /// Delete a device of the platform (for its operator).
    DeleteSystem(DeleteSystem),
    /// Tokens of devices.
    #[command(subcommand)]
    Token(token::Token),
}

/// A device.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Name or id.
    device: String,
}

/// Kind of a new device.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A source of FHIR resources.
    FhirEndpoint,
    /// The way into a document-sharing network.
    DocumentGateway,
    /// A program that asks others.
    Application,
}

/// Who may link to it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Linkable {
    /// Devices of the own organization.
    Organization,
    /// Those of every organization of the tenant.
    Tenant,
    /// Those of the tenant and of partners.
    Partners,
}

/// A new device.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name.
    name: String,
    /// Kind.
    #[arg(long)]
    kind: Kind,
    /// Description.
    #[arg(long, default_value = "")]
    description: String,
    /// Name or id of the own server whose gateway reaches it.
    #[arg(long)]
    server: Option<String>,
    /// What it performs, see `behavior list`.
    #[arg(long, value_delimiter = ',', value_name = "BEHAVIOR,…")]
    behaviors: Vec<String>,
    /// Who may link to it.
    #[arg(long, default_value = "organization")]
    linkable_by: Linkable,
}

/// What to change of a device.
#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = ["name", "description", "server", "behaviors", "linkable_by"])]
pub(crate) struct Changes {
    /// Another name.
    #[arg(long)]
    name: Option<String>,
    /// Another description.
    #[arg(long)]
    description: Option<String>,
    /// Another own server whose gateway reaches it.
    #[arg(long)]
    server: Option<String>,
    /// What it performs, all of it.
    #[arg(long, value_delimiter = ',', value_name = "BEHAVIOR,…")]
    behaviors: Option<Vec<String>>,
    /// Who may link to it.
    #[arg(long)]
    linkable_by: Option<Linkable>,
}

/// A device to change.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    changes: Changes,
}

/// A new device of the platform.
#[derive(Debug, Args)]
pub(crate) struct CreateSystem {
    /// Name.
    name: String,
    /// Kind.
    #[arg(long)]
    kind: Kind,
    /// Description.
    #[arg(long, default_value = "")]
    description: String,
    /// What it performs.
    #[arg(long, value_delimiter = ',', value_name = "BEHAVIOR,…")]
    behaviors: Vec<String>,
    #[command(flatten)]
    operator: Operator,
}

/// A device of the platform to delete.
#[derive(Debug, Args)]
pub(crate) struct DeleteSystem {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    confirm: Confirm,
}

impl Device {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List { system } => {
                let path = if system { SYSTEM } else { PATH };
                let devices: Vec<platform::Device> = context.control()?.list(path, &[], None).await?;
                context.out.list(&devices)
            }
            Self::Show(One { device }) => {
                let control = context.control()?;
                let id = own(&control, &device).await?;
                let device: platform::Device = control.get(&format!("{PATH}/{id}")).await?;
                context.out.item(&device)
            }
            Self::Create(create) => create.run(context).await,
            Self::Update(update) => update.run(context).await,
            Self::Delete(Confirmed { one, confirm }) => {
                let control = context.control()?;
                let id = own(&control, &one.device).await?;
                confirm.ask(&format!("Delete the device '{}' ({id}) with its tokens", one.device))?;
                control.delete(&format!("{PATH}/{id}")).await?;
                context.out.deed("device.delete", id, &format!("Deleted the device '{}'.", one.device))
            }
            Self::CreateSystem(CreateSystem { name, kind, description, behaviors, operator }) => {
                let body = CreateSystemDevice { kind: kind.into(), name, description, behaviors };
                let device: platform::Device = operator.control(context)?.post(SYSTEM, &body).await?;
                context.out.item(&device)
            }
            Self::DeleteSystem(DeleteSystem { one, operator, confirm }) => {
                let control = operator.control(context)?;
                let id = id_of::<platform::Device>(&control, SYSTEM, &one.device, |_| true).await?;
                confirm.ask(&format!("Delete the platform's device '{}' ({id}) for everybody", one.device))?;
                control.delete(&format!("{SYSTEM}/{id}")).await?;
                context.out.deed("device.delete", id, &format!("Deleted the platform's device '{}'.", one.device))
            }
            Self::Token(noun) => noun.run(context).await,
        }
    }
}

impl Create {
    async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let server_id = server::optional_id(&control, self.server.as_deref()).await?;
        let body = CreateDevice {
            kind: self.kind.into(),
            name: self.name,
            description: self.description,
            server_id,
            behaviors: self.behaviors,
            linkable_by: self.linkable_by.into(),
        };
        let device: platform::Device = control.post(PATH, &body).await?;
        context.out.item(&device)
    }
}

impl Update {
    async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let id = own(&control, &self.one.device).await?;
        let Changes { name, description, server, behaviors, linkable_by } = self.changes;
        let server_id = server::optional_id(&control, server.as_deref()).await?;
        let linkable_by = linkable_by.map(Into::into);
        let body = UpdateDevice { name, description, server_id, behaviors, linkable_by };
        let device: platform::Device = control.patch(&format!("{PATH}/{id}"), &body).await?;
        context.out.item(&device)
    }
}

/// The id of an own device.
async fn own(control: &Control, device: &str) -> Result<DeviceId, CtlError> {
    id_of::<platform::Device>(control, PATH, device, |_| true).await
}

impl From<Kind> for DeviceKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::FhirEndpoint => Self::FhirEndpoint,
            Kind::DocumentGateway => Self::DocumentGateway,
            Kind::Application => Self::Application,
        }
    }
}

impl From<Linkable> for LinkableBy {
    fn from(linkable: Linkable) -> Self {
        match linkable {
            Linkable::Organization => Self::Organization,
            Linkable::Tenant => Self::Tenant,
            Linkable::Partners => Self::Partners,
        }
    }
}

impl Named for platform::Device {
    type Id = DeviceId;
    const KIND: &'static str = "device";
    const LIST: &'static str = "device list";

    fn id(&self) -> DeviceId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{}, {}", self.name, word(&self.kind))
    }
}

impl View for platform::Device {
    const HEADERS: &'static [&'static str] = &["NAME", "KIND", "BEHAVIORS", "LINKABLE BY", "CREATED", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            word(&self.kind),
            self.behaviors.join(","),
            word(&self.linkable_by),
            time::relative(now, self.created_at),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("Name", self.name.clone()),
            ("Kind", word(&self.kind)),
            ("Description", self.description.clone()),
            ("Organization", or_dash(self.organization_id)),
            ("Server", or_dash(self.server_id)),
            ("Behaviors", self.behaviors.join(", ")),
            ("Linkable by", word(&self.linkable_by)),
            ("Created", time::relative(now, self.created_at)),
        ]
    }
}
