//! `gateway-ctl login`, `logout`, `whoami`: the session of a profile.

use clap::Args;
use gateway_proto::api::platform::{self, Hidden, Me, Session};

use crate::{
    args::ControlArgs,
    client::{ClientError, Control, Credential},
    cmd::Context,
    error::CtlError,
    output::{View, time, word},
    profile::{Profile, Target},
    secret::SecretSource,
};

/// Sign in.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// E-mail address.
    #[arg(long)]
    email: String,
    /// Name or id of the organization, for an address that has users in several.
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// File with the password, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    password_file: SecretSource,
    /// The code that the authenticator shows now, or a recovery code; each is good once.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    #[command(flatten)]
    control: ControlArgs,
}

impl Login {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let target = context.target(&self.control)?;
        let password = self.password_file.read("password")?;
        let control = Control::new(&target, Credential::Nobody)?;
        let (email, organization, code) = (self.email, self.organization, self.code.map(Hidden));
        let body = platform::Login { email, organization, password, code };
        let session: Session = control.post("/sessions", &body).await?;
        remember(context, &target, &session)?;
        context.out.item(&Me { user: session.user, organization: session.organization })
    }
}

/// Writes a fresh session into the profile and says so.
pub(crate) fn remember(context: &Context, target: &Target, session: &Session) -> Result<(), CtlError> {
    context.save_profile(&Profile::signed_in(target, session))?;
    let end = time::relative(gateway_net::time::unix_secs(), session.expires_at);
    context.out.remark(&format!("Signed in with profile '{}'; the session ends {end}.", context.profile_name()));
    Ok(())
}

pub(crate) async fn logout(context: &mut Context) -> Result<(), CtlError> {
    let (profile, target) = context.load_profile()?;
    let name = context.profile_name().clone();
    if let Some(token) = profile.token() {
        let control = Control::new(&target, Credential::Session(token.clone()))?;
        match control.delete("/sessions/current").await {
            // A session that is over already is what was wanted.
            Ok(()) | Err(ClientError::SessionRefused(_)) => {}
            // The token stays: forgetting it would leave a session nobody can end.
            Err(error) => return Err(error.into()),
        }
        context.save_profile(&profile.signed_out())?;
    }
    context.out.deed("session.end", &name, &format!("Signed out of profile '{name}'."))
}

pub(crate) async fn whoami(context: &mut Context) -> Result<(), CtlError> {
    let me: Me = context.control()?.get("/me").await?;
    context.out.item(&me)
}

impl View for Me {
    const HEADERS: &'static [&'static str] = &["USER", "ROLE", "ORGANIZATION"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.user.email.clone(), word(&self.user.role), self.organization.name.clone()]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("User", format!("{} <{}>", self.user.name, self.user.email)),
            ("Role", word(&self.user.role)),
            ("User id", self.user.id.to_string()),
            ("Organization", self.organization.name.clone()),
            ("Organization id", self.organization.id.to_string()),
        ]
    }
}
