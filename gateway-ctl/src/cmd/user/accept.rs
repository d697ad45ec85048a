//! `gateway-ctl user accept`: an invited person becomes a user.

use clap::Args;
use gateway_proto::api::{
    invitation::{InvitationLink, InvitationLinkError},
    platform::{AcceptInvitation, Hidden, Me, Session},
};

use crate::{
    args::ControlArgs,
    client::{Control, Credential},
    cmd::{Context, session},
    error::CtlError,
    profile::Target,
    secret::{SecretSource, hidden},
};

/// An invitation to accept.
#[derive(Debug, Args)]
pub(crate) struct Accept {
    /// The link, which says where the control plane is and how to know it, or the bare code; better `-`, and paste it: as an argument
    /// other users of the machine see it, and whoever is first becomes the user.
    #[arg(value_parser = hidden, value_name = "LINK", required_unless_present = "code_file")]
    link: Option<Hidden>,
    /// File with the link or the code, `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "link")]
    code_file: Option<SecretSource>,
    /// File with the own password.
    #[arg(long, value_name = "FILE")]
    password_file: SecretSource,
    #[command(flatten)]
    control: ControlArgs,
}

impl Accept {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Self { link, code_file, password_file, control } = self;
        let given = match (link, code_file) {
            (Some(link), _) if link.0 != "-" => link,
            (_, file) => file.unwrap_or(SecretSource::Stdin).read("invitation")?,
        };
        let (target, code) = invited(context, &control, &given)?;
        let control = Control::new(&target, Credential::Nobody)?;
        let body = AcceptInvitation { code, password: password_file.read("password")? };
        let session: Session = control.post("/invitations/accept", &body).await?;
        session::remember(context, &target, &session)?;
        context.out.item(&Me { user: session.user, organization: session.organization })
    }
}

/// Where to accept it, and with which code. A control plane that the arguments name goes before the one in the link: not everybody
/// reaches it at the same address.
fn invited(context: &Context, control: &ControlArgs, given: &Hidden) -> Result<(Target, Hidden), CtlError> {
    let text = given.0.trim();
    if !text.contains("://") {
        return Ok((context.target(control)?, Hidden(text.to_owned())));
    }
    let unusable = |error: InvitationLinkError| CtlError::Usage(error.to_string());
    let link = text.parse::<InvitationLink>().map_err(unusable)?;
    let is_named = control.control.is_some() || control.control_ready_file.is_some();
    let target =
        if is_named { context.target(control)? } else { place(&link).ok_or(InvitationLinkError).map_err(unusable)? };
    Ok((target, link.code))
}

fn place(link: &InvitationLink) -> Option<Target> {
    let pin = link.pin.as_deref().map(str::parse).transpose().ok()?;
    Target::new(link.control.parse().ok()?, pin).ok()
}
