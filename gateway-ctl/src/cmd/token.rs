//! `gateway-ctl token`: tokens for automation, that act as their user within their scopes.

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{ApiToken, CreateApiToken, CreatedApiToken},
    id::ApiTokenId,
};

use crate::{
    args::{Confirm, Span},
    cmd::{Context, id_of},
    error::CtlError,
    output::{View, time},
    resolve::Named,
};

const PATH: &str = "/api-tokens";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List the tokens: the own ones, or as admin those of the organization.
    List,
    /// Make a token that acts as us; it is printed once, alone on standard output.
    Create(Create),
    /// Revoke a token, at once.
    Revoke(Revoke),
}

/// A new token.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What it is for.
    name: String,
    /// What it may do: the nouns of docs/permissions.md, for example `read,connection`.
    #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE,…")]
    scopes: Vec<String>,
    /// How long it is valid; default 90 days, a year at most.
    #[arg(long, value_name = "TIME")]
    valid: Option<Span>,
}

/// A token to revoke.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// What it is for, or its id.
    token: String,
    #[command(flatten)]
    confirm: Confirm,
}

impl Token {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::List => {
                let tokens: Vec<ApiToken> = control.list(PATH, &[], None).await?;
                context.out.list(&tokens)
            }
            Self::Create(Create { name, scopes, valid }) => {
                let body = CreateApiToken { name, scopes, valid_secs: valid.map(|span| span.secs) };
                let created: CreatedApiToken = control.post(PATH, &body).await?;
                if context.out.is_json() {
                    return context.out.json(&created);
                }
                let end = time::relative(gateway_net::time::unix_secs(), created.api_token.expires_at);
                context
                    .out
                    .remark(&format!("Send it as `Authorization: Bearer …`. Ends {end}; it is not shown again."));
                context.out.line(&created.token.0)
            }
            Self::Revoke(Revoke { token, confirm }) => {
                let id = id_of::<ApiToken>(&control, PATH, &token, |_| true).await?;
                confirm.ask(&format!("Revoke the token '{token}' ({id})"))?;
                control.delete(&format!("{PATH}/{id}")).await?;
                context.out.deed("api_token.delete", id, &format!("Revoked the token '{token}'."))
            }
        }
    }
}

impl Named for ApiToken {
    type Id = ApiTokenId;
    const KIND: &'static str = "token";
    const LIST: &'static str = "token list";

    fn id(&self) -> ApiTokenId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{}, {}", self.name, self.scopes.join(", "))
    }
}

impl View for ApiToken {
    const HEADERS: &'static [&'static str] = &["NAME", "SCOPES", "EXPIRES", "LAST USED", "USER", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            self.scopes.join(","),
            time::relative(now, self.expires_at),
            time::or_never(now, self.last_used_at),
            self.user_id.to_string(),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Name", "Scopes", "Expires", "Last used", "User", "Id"].into_iter().zip(self.row(now)).collect()
    }
}
