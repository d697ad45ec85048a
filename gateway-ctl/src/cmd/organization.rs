//! `gateway-ctl organization`: the own organization, from its creation on.

use clap::{Args, Subcommand};
use gateway_proto::api::platform::{self, CreateOrganization, Hidden, Me, Session, UpdateOrganization};

use crate::{
    args::{Confirm, ControlArgs},
    client::{Control, Credential},
    cmd::{Context, session},
    error::CtlError,
    output::{View, time, yes_no},
    secret::SecretSource,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Organization {
    /// Create an organization and its owner, and sign in as the owner.
    Create(Box<Create>),
    /// Show the own organization.
    Show,
    /// Change the own organization; what is not named stays.
    Update(Update),
    /// Delete the own organization with everything in it, for good.
    Delete {
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// A new organization.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name, unique on the platform.
    #[arg(long)]
    name: String,
    /// Its description in the directory.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Let strangers find it in the directory.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    discoverable: Option<bool>,
    /// E-mail address of the owner: the sign-in name.
    #[arg(long, value_name = "EMAIL")]
    owner_email: String,
    /// Name of the owner.
    #[arg(long, value_name = "NAME")]
    owner_name: String,
    /// File with the owner's password, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    password_file: SecretSource,
    /// File with the registration token or the operator token, where registration is not open; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    operator_token_file: Option<SecretSource>,
    #[command(flatten)]
    control: ControlArgs,
}

/// Changes.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Update {
    /// New name.
    #[arg(long)]
    name: Option<String>,
    /// New description.
    #[arg(long)]
    description: Option<String>,
    /// Whether strangers find it: `true` or `false`.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    discoverable: Option<bool>,
    /// Whether admin connections to own servers need the approval of a second owner or admin: `true` or `false`. Of the
    /// organization that is the tenant itself: those to servers of the whole tenant.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    two_person_admin: Option<bool>,
}

impl Organization {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Show => {
                let organization: platform::Organization = context.control()?.get("/organization").await?;
                context.out.item(&organization)
            }
            Self::Delete { confirm } => {
                let control = context.control()?;
                let own: platform::Organization = control.get("/organization").await?;
                confirm.ask(&format!(
                    "Delete the organization '{}' with its users, servers, channels and agreements, for good",
                    own.name
                ))?;
                control.delete("/organization").await?;
                context.out.deed("organization.delete", own.id, &format!("Deleted the organization '{}'.", own.name))
            }
            Self::Update(Update { name, description, discoverable, two_person_admin }) => {
                let body = UpdateOrganization { name, description, discoverable, two_person_admin };
                let organization: platform::Organization = context.control()?.patch("/organization", &body).await?;
                context.out.item(&organization)
            }
        }
    }
}

impl Create {
    async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        if self.password_file == SecretSource::Stdin && self.operator_token_file == Some(SecretSource::Stdin) {
            return Err(CtlError::Usage("only one secret can come from standard input".to_owned()));
        }
        let target = context.target(&self.control)?;
        let registration_token: Option<Hidden> =
            self.operator_token_file.map(|source| source.read("operator token")).transpose()?;
        let body = CreateOrganization {
            name: self.name,
            description: self.description,
            discoverable: self.discoverable.unwrap_or(false),
            owner_email: self.owner_email,
            owner_name: self.owner_name,
            owner_password: self.password_file.read("password")?,
            registration_token,
        };
        let control = Control::new(&target, Credential::Nobody)?;
        let session: Session = control.post("/organizations", &body).await?;
        session::remember(context, &target, &session)?;
        context.out.item(&Me { user: session.user, organization: session.organization })
    }
}

impl View for platform::Organization {
    const HEADERS: &'static [&'static str] = &["NAME", "DISCOVERABLE", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.name.clone(), yes_no(self.discoverable), self.id.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("Tenant", self.tenant_id.to_string()),
            ("Name", self.name.clone()),
            ("Description", self.description.clone()),
            ("Discoverable", yes_no(self.discoverable)),
            ("Two-person admin", yes_no(self.two_person_admin)),
            ("Created", time::relative(now, self.created_at)),
        ]
    }
}
