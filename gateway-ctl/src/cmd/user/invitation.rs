//! `gateway-ctl user invitations`, `revoke-invitation`: people who have not answered yet.

use clap::Args;
use gateway_proto::{api::platform::Invitation, id::InvitationId};

use crate::{
    args::Confirm,
    cmd::{Context, id_of},
    error::CtlError,
    output::{View, time, word},
    resolve::Named,
};

const PATH: &str = "/invitations";

/// An invitation to take back.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// E-mail address of the person, or id of the invitation.
    invitation: String,
    #[command(flatten)]
    confirm: Confirm,
}

/// Those that wait.
pub(super) async fn list(context: &mut Context) -> Result<(), CtlError> {
    let invitations: Vec<Invitation> = context.control()?.list(PATH, &[], None).await?;
    context.out.list(&invitations)
}

impl Revoke {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Self { invitation, confirm } = self;
        let control = context.control()?;
        let id = id_of::<Invitation>(&control, PATH, &invitation, |_| true).await?;
        confirm.ask(&format!("Take back the invitation of '{invitation}' ({id})"))?;
        control.delete(&format!("{PATH}/{id}")).await?;
        context.out.deed("invitation.delete", id, &format!("Took back the invitation of '{invitation}'."))
    }
}

impl Named for Invitation {
    type Id = InvitationId;
    const KIND: &'static str = "invitation";
    const LIST: &'static str = "user invitations";

    fn id(&self) -> InvitationId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.email.clone(), self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{} <{}>", self.name, self.email)
    }
}

impl View for Invitation {
    const HEADERS: &'static [&'static str] = &["EMAIL", "NAME", "ROLE", "EXPIRES", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.email.clone(),
            self.name.clone(),
            word(&self.role),
            time::relative(now, self.expires_at),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["E-mail", "Name", "Role", "Expires", "Id"].into_iter().zip(self.row(now)).collect()
    }
}
