//! `gateway-ctl user sign-in`, `identities`, `unlink`: what users sign in with.

use clap::Args;
use gateway_proto::api::platform::{Identity, SignInWays};

use crate::{
    args::Confirm,
    cmd::Context,
    error::CtlError,
    output::{View, time, yes_no},
};

/// An account at a provider to take off a user.
#[derive(Debug, Args)]
pub(crate) struct Unlink {
    /// E-mail address or id of the user.
    user: String,
    /// Name of the provider, or id of the identity.
    identity: String,
    #[command(flatten)]
    confirm: Confirm,
}

/// What the own user signs in with.
pub(super) async fn ways(context: &mut Context) -> Result<(), CtlError> {
    let ways: SignInWays = context.control()?.get("/me/sign-in").await?;
    context.out.item(&ways)
}

/// The accounts that a user is linked to.
pub(super) async fn list(context: &mut Context, user: &str) -> Result<(), CtlError> {
    let control = context.control()?;
    let id = super::user_id(&control, user).await?;
    let identities: Vec<Identity> = control.get(&format!("/users/{id}/identities")).await?;
    context.out.list(&identities)
}

impl Unlink {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let id = super::user_id(&control, &self.user).await?;
        let path = format!("/users/{id}/identities");
        let all: Vec<Identity> = control.get(&path).await?;
        let wanted =
            |one: &&Identity| one.provider.as_ref() == Some(&self.identity) || one.id.to_string() == self.identity;
        let Some(one) = all.iter().find(wanted) else {
            return Err(CtlError::No(format!("'{}' is linked to no account '{}'", self.user, self.identity)));
        };
        self.confirm.ask(&format!("Take the account at '{}' off '{}' ({id})", self.identity, self.user))?;
        control.delete(&format!("{path}/{}", one.id)).await?;
        let words = format!("'{}' is linked to it no more; the sessions ended.", self.user);
        context.out.deed("user.unlink", one.id, &words)
    }
}

impl View for Identity {
    const HEADERS: &'static [&'static str] = &["PROVIDER", "ACCOUNT", "LINKED", "LAST SIGN-IN", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.provider.clone().unwrap_or_else(|| self.issuer.clone()),
            self.subject.clone(),
            time::relative(now, self.linked_at),
            time::relative(now, self.last_used_at),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Provider", "Account", "Linked", "Last sign-in", "Id"].into_iter().zip(self.row(now)).collect()
    }
}

impl View for SignInWays {
    const HEADERS: &'static [&'static str] = &["PASSWORD", "SECOND FACTOR", "PROVIDERS"];

    fn row(&self, _now: u64) -> Vec<String> {
        let names = self.identities.iter().map(|one| one.provider.as_ref().unwrap_or(&one.issuer).as_str());
        let names: Vec<_> = names.collect();
        let providers = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        vec![yes_no(self.password), yes_no(self.second_factor), providers]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Password", "Second factor", "Providers"].into_iter().zip(self.row(now)).collect()
    }
}
