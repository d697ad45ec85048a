//! `gateway-ctl user`: the users of the own organization.

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use gateway_proto::{
    api::platform::{self, CreateUser, Role},
    id::UserId,
};

use crate::{
    args::Confirm,
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
    /// Delete a user; the sessions end at once.
    Delete(Delete),
}

/// A new user.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// E-mail address: the sign-in name.
    #[arg(long)]
    email: String,
    /// Name.
    #[arg(long)]
    name: String,
    /// Role; nobody gives a role above the own one.
    #[arg(long, value_parser = role_parser())]
    role: Role,
    /// File with the first password, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    password_file: SecretSource,
}

/// A user to delete.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// E-mail address or id.
    user: String,
    #[command(flatten)]
    confirm: Confirm,
}

fn role_parser() -> impl TypedValueParser<Value = Role> {
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
        let control = context.control()?;
        match self {
            Self::List => {
                let users: Vec<platform::User> = control.list("/users", &[], None).await?;
                context.out.list(&users)
            }
            Self::Create(Create { email, name, role, password_file }) => {
                let body = CreateUser { email, name, role, password: password_file.read("password")? };
                let user: platform::User = control.post("/users", &body).await?;
                context.out.item(&user)
            }
            Self::Delete(Delete { user, confirm }) => {
                let id = id_of::<platform::User>(&control, "/users", &user, |_| true).await?;
                confirm.ask(&format!("Delete the user '{user}' ({id})"))?;
                control.delete(&format!("/users/{id}")).await?;
                context.out.deed("user.delete", id, &format!("Deleted the user '{user}'."))
            }
        }
    }
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
