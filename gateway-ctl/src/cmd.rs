//! The commands: a file per noun, each with its arguments, its calls and its views. This file runs them and holds what they share.

mod access;
pub(crate) mod admin;
pub(crate) mod agreement;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod behavior;
pub(crate) mod channel;
pub(crate) mod connection;
pub(crate) mod device;
pub(crate) mod directory;
pub(crate) mod endpoint;
pub(crate) mod gateway;
pub(crate) mod grant;
pub(crate) mod link;
pub(crate) mod netcheck;
pub(crate) mod organization;
pub(crate) mod peering;
pub(crate) mod platform_token;
pub(crate) mod policy_key;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod share;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod tier;
pub(crate) mod token;
pub(crate) mod token_key;
pub(crate) mod usage;
pub(crate) mod user;

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use crate::{
    args::{Command, ControlArgs, Global},
    client::{Control, Credential, Daemon},
    error::CtlError,
    output::Output,
    profile::{Profile, ProfileError, ProfileName, Profiles, Target},
    ready,
    resolve::{self, Named},
};

/// The outcome of a command that worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or yes.
    Yes,
    /// The question was answered, with no; the output says it.
    No,
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where answers go.
    pub(crate) out: Output,
    profile: ProfileName,
    socket: PathBuf,
}

/// Runs a command.
pub(crate) async fn run(context: &mut Context, command: Command) -> Result<Answer, CtlError> {
    match command {
        Command::Organization(noun) => noun.run(context).await,
        Command::Login(verb) => verb.run(context).await,
        Command::Logout => session::logout(context).await,
        Command::Whoami => session::whoami(context).await,
        Command::User(noun) => noun.run(context).await,
        Command::Server(noun) => noun.run(context).await,
        Command::Directory(noun) => noun.run(context).await,
        Command::Peering(noun) => noun.run(context).await,
        Command::Agreement(noun) => noun.run(context).await,
        Command::Channel(noun) => noun.run(context).await,
        Command::Endpoint(noun) => noun.run(context).await,
        Command::Grant(noun) => noun.run(context).await,
        Command::Connection(noun) => noun.run(context).await,
        Command::Admin(noun) => noun.run(context).await,
        Command::Share(noun) => noun.run(context).await,
        Command::Token(noun) => noun.run(context).await,
        Command::Device(noun) => noun.run(context).await,
        Command::Tenant(noun) => noun.run(context).await,
        Command::Link(noun) => noun.run(context).await,
        Command::Usage(verb) => verb.run(context).await,
        Command::Behavior(noun) => noun.run(context).await,
        Command::TokenKey(noun) => noun.run(context).await,
        Command::PolicyKey(noun) => noun.run(context).await,
        Command::PlatformToken(noun) => noun.run(context).await,
        Command::Apply(verb) => verb.run(context).await,
        Command::Tier(noun) => noun.run(context).await,
        Command::Relay(noun) => noun.run(context).await,
        Command::Audit(noun) => noun.run(context).await,
        Command::Gateway(noun) => noun.run(context).await,
        Command::Status(verb) => return verb.run(context).await,
        Command::Reconnect(verb) => verb.run(context).await,
        Command::Netcheck(verb) => return verb.run(context).await,
        Command::Metrics => gateway::metrics(context).await,
        Command::Completions(verb) => verb.run(context),
        Command::Man(verb) => verb.run(context),
    }?;
    Ok(Answer::Yes)
}

impl Context {
    /// From the arguments every command understands.
    pub(crate) fn new(global: Global) -> Self {
        let Global { json, profile, socket } = global;
        Self { out: Output::stdout(json), profile, socket }
    }

    /// The control plane, as the user who signed in.
    pub(crate) fn control(&self) -> Result<Control, CtlError> {
        let (profile, target) = self.load_profile()?;
        let token = profile.token().ok_or_else(|| ProfileError::SignedOut(self.profile.clone()))?;
        Ok(Control::new(&target, Credential::Session(token.clone()))?)
    }

    /// The gatewayd of this machine.
    pub(crate) fn daemon(&self) -> Result<Daemon, CtlError> {
        Ok(Daemon::new(&self.socket)?)
    }

    /// The control plane that the arguments name, or else the one of the profile.
    pub(crate) fn target(&self, args: &ControlArgs) -> Result<Target, CtlError> {
        if let Some(path) = &args.control_ready_file {
            return Ok(ready::control(path)?);
        }
        match &args.control {
            Some(url) => Target::new(url.clone(), args.pin).map_err(|error| CtlError::Usage(error.to_string())),
            None => Ok(self.load_profile()?.1),
        }
    }

    /// The profile's name.
    pub(crate) fn profile_name(&self) -> &ProfileName {
        &self.profile
    }

    /// The profile and its control plane.
    pub(crate) fn load_profile(&self) -> Result<(Profile, Target), CtlError> {
        Ok(profiles()?.load(&self.profile)?)
    }

    /// Replaces the profile.
    pub(crate) fn save_profile(&self, profile: &Profile) -> Result<(), CtlError> {
        Ok(profiles()?.save(&self.profile, profile)?)
    }
}

fn profiles() -> Result<Profiles, ProfileError> {
    Profiles::locate(|name| std::env::var_os(name).map(PathBuf::from))
}

/// The id of the thing that `wanted` names; `path` lists its kind. An id is not looked up: the platform knows best.
async fn id_of<T: Named + DeserializeOwned>(
    control: &Control,
    path: &str,
    wanted: &str,
    prefer: impl Fn(&T) -> bool,
) -> Result<T::Id, CtlError> {
    id_among(control, (path, &[]), wanted, prefer).await
}

/// The same in a list that has to be asked for with a query, for example for what has ended.
async fn id_among<T: Named + DeserializeOwned>(
    control: &Control,
    (path, query): (&str, &[(&str, &str)]),
    wanted: &str,
    prefer: impl Fn(&T) -> bool,
) -> Result<T::Id, CtlError> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let items: Vec<T> = control.list(path, query, None).await?;
    Ok(resolve::pick(wanted, &items, prefer)?.id())
}
