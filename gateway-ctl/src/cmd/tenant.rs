//! `gateway-ctl tenant`: the organizations of the own tenant, for the one that is the tenant itself.

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{
        CreateInvitation, CreateSubOrganization, CreatedInvitation, CreatedSubOrganization, Organization, Role,
    },
    id::OrganizationId,
};

use crate::{
    args::{Confirm, Span},
    cmd::{Context, id_of, user},
    error::CtlError,
    resolve::Named,
};

const PATH: &str = "/tenant/organizations";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// List the organizations of the tenant, the own one included.
    List,
    /// Make an organization; the link for its owner is printed once, alone on standard output.
    Create(Create),
    /// Invite a person into an organization; the link is printed once, alone on standard output.
    Invite(Invite),
    /// Delete an organization with everything in it, for good.
    Delete(Delete),
}

/// A new organization.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name, unique on the platform.
    name: String,
    /// Its description in the directory.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Let strangers find it in the directory.
    #[arg(long)]
    discoverable: bool,
    /// E-mail address of its owner.
    #[arg(long, value_name = "EMAIL")]
    owner_email: String,
    /// Name of its owner.
    #[arg(long, value_name = "NAME")]
    owner_name: String,
}

/// A person to invite.
#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// Name or id of the organization.
    organization: String,
    /// E-mail address: the sign-in name.
    #[arg(long)]
    email: String,
    /// Name.
    #[arg(long)]
    name: String,
    /// Role.
    #[arg(long, value_parser = user::role_parser())]
    role: Role,
    /// How long the link may be used; default 7 days, 30 at most.
    #[arg(long, value_name = "TIME")]
    valid: Option<Span>,
}

/// An organization to delete.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Name or id of the organization.
    organization: String,
    #[command(flatten)]
    confirm: Confirm,
}

impl Tenant {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::List => {
                let organizations: Vec<Organization> = control.list(PATH, &[], None).await?;
                context.out.list(&organizations)
            }
            Self::Create(Create { name, description, discoverable, owner_email, owner_name }) => {
                let body = CreateSubOrganization { name, description, discoverable, owner_email, owner_name };
                let created: CreatedSubOrganization = control.post(PATH, &body).await?;
                if context.out.is_json() {
                    return context.out.json(&created);
                }
                context.out.remark(&format!("Made {}.", created.organization.id));
                user::show_link(context, &created.invitation)
            }
            Self::Invite(Invite { organization, email, name, role, valid }) => {
                let id = id_of::<Organization>(&control, PATH, &organization, |_| true).await?;
                let body = CreateInvitation { email, name, role, valid_secs: valid.map(|span| span.secs) };
                let created: CreatedInvitation = control.post(&format!("{PATH}/{id}/invitations"), &body).await?;
                user::show_link(context, &created)
            }
            Self::Delete(Delete { organization, confirm }) => {
                let id = id_of::<Organization>(&control, PATH, &organization, |_| true).await?;
                confirm.ask(&format!(
                    "Delete the organization '{organization}' ({id}) with its users, servers, channels and agreements, \
                     for good"
                ))?;
                control.delete(&format!("{PATH}/{id}")).await?;
                context.out.deed("organization.delete", id, &format!("Deleted the organization '{organization}'."))
            }
        }
    }
}

impl Named for Organization {
    type Id = OrganizationId;
    const KIND: &'static str = "organization";
    const LIST: &'static str = "tenant list";

    fn id(&self) -> OrganizationId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}
