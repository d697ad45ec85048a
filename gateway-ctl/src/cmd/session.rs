//! `gateway-ctl login`, `logout`, `whoami`: the session of a profile.

mod oidc;

use clap::Args;
use gateway_proto::api::platform::{self, Hidden, Me, Session, SignedOut};

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
    #[arg(long, required_unless_present = "oidc")]
    email: Option<String>,
    /// Name or id of the organization, for a person who has users in several.
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// File with the password, `-` for standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "oidc")]
    password_file: Option<SecretSource>,
    /// The code that the authenticator shows now, or a recovery code; each is good once.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Sign in through a provider of OpenID Connect: prints the address to open, and waits for the browser on a port of
    /// 127.0.0.1. The name is needed where there are several.
    #[arg(long, value_name = "PROVIDER", num_args = 0..=1, conflicts_with_all = ["email", "password_file", "code"])]
    oidc: Option<Option<String>>,
    /// The browser is on another machine: it shows a code, which is read from standard input.
    #[arg(long)]
    paste: bool,
    #[command(flatten)]
    control: ControlArgs,
}

impl Login {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        // clap asks for nothing that what is there excludes.
        if self.paste && self.oidc.is_none() {
            return Err(CtlError::Usage("--paste goes with --oidc".to_owned()));
        }
        let target = context.target(&self.control)?;
        let session = match (self.oidc, self.email, self.password_file) {
            (Some(provider), _, _) => {
                let control = Control::new(&target, Credential::Nobody)?;
                let way = oidc::Way { provider, organization: self.organization, paste: self.paste };
                oidc::sign_in(context, &control, way).await?
            }
            (None, Some(email), Some(file)) => {
                let password = file.read("password")?;
                let control = Control::new(&target, Credential::Nobody)?;
                let (organization, code) = (self.organization, self.code.map(Hidden));
                control.post("/sessions", &platform::Login { email, organization, password, code }).await?
            }
            (None, _, _) => {
                return Err(CtlError::Usage("name --email and --password-file, or --oidc".to_owned()));
            }
        };
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
        let elsewhere = match control.end::<SignedOut>("/sessions/current").await {
            Ok(elsewhere) => elsewhere,
            // A session that is over already is what was wanted.
            Err(ClientError::SessionRefused(_)) => None,
            // The token stays: forgetting it would leave a session nobody can end.
            Err(error) => return Err(error.into()),
        };
        context.save_profile(&profile.signed_out())?;
        if let Some(SignedOut { provider, end_session_url }) = elsewhere {
            context.out.remark(&format!(
                "The browser is still signed in at '{provider}'. To sign out there too, and of all that it signs you in to, open:\n\
                 {end_session_url}"
            ));
        }
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
