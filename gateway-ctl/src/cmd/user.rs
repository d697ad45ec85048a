//! `gateway-ctl user`: the users of the own organization.

mod accept;
mod identity;
mod invitation;
mod totp;

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use gateway_proto::{
    api::platform::{self, ChangePassword, CreateInvitation, CreateUser, CreatedInvitation, Role, UpdateUser},
    id::UserId,
};

use crate::{
    args::{Confirm, Span},
    client::Control,
    cmd::{Context, id_of},
    error::CtlError,
    output::{View, time, word},
    resolve::Named,
    secret::SecretSource,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List the users.
    List,
    /// Add a user.
    Create(Create),
    /// Invite a person, who chooses the password; the link is printed once, alone on standard output.
    Invite(Invite),
    /// List the invitations that wait.
    Invitations,
    /// Take an invitation back.
    RevokeInvitation(invitation::Revoke),
    /// Accept an invitation and remember the session in the profile.
    Accept(accept::Accept),
    /// Change the own password; other sessions and the tokens end.
    Password(Password),
    /// Give a user another role; what the new role may not keep ends.
    Role(ChangeRole),
    /// Delete a user; the sessions end at once.
    Delete(Delete),
    /// What the own user signs in with: password, second factor, accounts at providers.
    SignIn,
    /// List the accounts at providers of OpenID Connect that a user is linked to.
    Identities {
        /// E-mail address or id.
        user: String,
    },
    /// Take an account at a provider off a user; the sessions end, and the next sign-in links anew.
    Unlink(identity::Unlink),
    /// The second factor: codes by time.
    #[command(subcommand)]
    Totp(totp::Totp),
}

/// Who it is.
#[derive(Debug, Args)]
struct Person {
    /// E-mail address: the sign-in name.
    #[arg(long)]
    email: String,
    /// Name.
    #[arg(long)]
    name: String,
    /// Role; nobody gives a role above the own one.
    #[arg(long, value_parser = role_parser())]
    role: Role,
}

/// A new user.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    person: Person,
    /// File with the first password, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    password_file: SecretSource,
}

/// A person to invite.
#[derive(Debug, Args)]
pub(crate) struct Invite {
    #[command(flatten)]
    person: Person,
    /// How long the link may be used; default 7 days, 30 at most.
    #[arg(long, value_name = "TIME")]
    valid: Option<Span>,
}

/// Another password.
#[derive(Debug, Args)]
pub(crate) struct Password {
    /// File with the password until now, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    current_file: SecretSource,
    /// File with the new password.
    #[arg(long, value_name = "FILE")]
    new_file: SecretSource,
}

/// Another role.
#[derive(Debug, Args)]
pub(crate) struct ChangeRole {
    /// E-mail address or id.
    user: String,
    /// The role; nobody gives a role above the own one.
    #[arg(value_parser = role_parser())]
    role: Role,
}

/// A user to delete.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// E-mail address or id.
    user: String,
    #[command(flatten)]
    confirm: Confirm,
}

pub(crate) fn role_parser() -> impl TypedValueParser<Value = Role> {
    const ROLES: [(&str, Role); 5] = [
        ("owner", Role::Owner),
        ("admin", Role::Admin),
        ("operator", Role::Operator),
        ("viewer", Role::Viewer),
        ("auditor", Role::Auditor),
    ];
    PossibleValuesParser::new(ROLES.map(|(name, _)| name))
        .try_map(|text| ROLES.iter().find(|(name, _)| *name == text).map(|(_, role)| *role).ok_or("not a role"))
}

impl User {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::Accept(accept) => accept.run(context).await,
            Self::Totp(noun) => noun.run(context).await,
            Self::SignIn => identity::ways(context).await,
            Self::Identities { user } => identity::list(context, &user).await,
            Self::Unlink(unlink) => unlink.run(context).await,
            Self::Invite(Invite { person: Person { email, name, role }, valid }) => {
                let body = CreateInvitation { email, name, role, valid_secs: valid.map(|span| span.secs) };
                let created: CreatedInvitation = context.control()?.post("/invitations", &body).await?;
                show_link(context, &created)
            }
            Self::Invitations => invitation::list(context).await,
            Self::RevokeInvitation(revoke) => revoke.run(context).await,
            Self::Password(Password { current_file, new_file }) => {
                let body =
                    ChangePassword { current: current_file.read("password")?, new: new_file.read("new password")? };
                context.control()?.post_only("/me/password", &body).await?;
                context.out.deed("user.change_password", "me", "Changed the password; other sessions and tokens ended.")
            }
            Self::List => {
                let users: Vec<platform::User> = context.control()?.list("/users", &[], None).await?;
                context.out.list(&users)
            }
            Self::Create(Create { person: Person { email, name, role }, password_file }) => {
                let body = CreateUser { email, name, role, password: password_file.read("password")? };
                let user: platform::User = context.control()?.post("/users", &body).await?;
                context.out.item(&user)
            }
            Self::Role(ChangeRole { user, role }) => {
                let control = context.control()?;
                let id = user_id(&control, &user).await?;
                let user: platform::User = control.patch(&format!("/users/{id}"), &UpdateUser { role }).await?;
                context.out.item(&user)
            }
            Self::Delete(Delete { user, confirm }) => {
                let control = context.control()?;
                let id = user_id(&control, &user).await?;
                confirm.ask(&format!("Delete the user '{user}' ({id})"))?;
                control.delete(&format!("/users/{id}")).await?;
                context.out.deed("user.delete", id, &format!("Deleted the user '{user}'."))
            }
        }
    }
}

/// The id of a user of the own organization.
async fn user_id(control: &Control, wanted: &str) -> Result<UserId, CtlError> {
    id_of::<platform::User>(control, "/users", wanted, |_| true).await
}

/// An invitation, once.
pub(crate) fn show_link(context: &mut Context, created: &CreatedInvitation) -> Result<(), CtlError> {
    if context.out.is_json() {
        return context.out.json(created);
    }
    let end = time::relative(gateway_net::time::unix_secs(), created.invitation.expires_at);
    // A control plane of a version before links has the code alone.
    let (what, text) = match &created.link {
        Some(link) => ("link", link),
        None => ("code", &created.code),
    };
    context.out.remark(&format!(
        "For the invited person: `gateway-ctl user accept - --password-file FILE`, then paste the {what}, Enter, Ctrl-D. Good \
         once, ends {end}; it is not shown again."
    ));
    context.out.line(&text.0)
}

impl Named for platform::User {
    type Id = UserId;
    const KIND: &'static str = "user";
    const LIST: &'static str = "user list";

    fn id(&self) -> UserId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.email.clone(), self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{} <{}>", self.name, self.email)
    }
}

impl View for platform::User {
    const HEADERS: &'static [&'static str] = &["EMAIL", "NAME", "ROLE", "CREATED", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        let created = time::relative(now, self.created_at);
        vec![self.email.clone(), self.name.clone(), word(&self.role), created, self.id.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("E-mail", self.email.clone()),
            ("Name", self.name.clone()),
            ("Role", word(&self.role)),
            ("Created", time::relative(now, self.created_at)),
        ]
    }
}
