//! `gateway-ctl device token`: short-lived tokens that say which device somebody is.

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{CreateDeviceToken, CreatedDeviceToken, DeviceToken, IntrospectToken, Introspection},
    id::DeviceTokenId,
};

use super::{One, PATH, own};
use crate::{
    args::{Confirm, Span},
    cmd::Context,
    error::CtlError,
    output::{View, or_dash, time, word, yes_no},
    secret::SecretSource,
};

const TOKENS: &str = "/device-tokens";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List the tokens that have not ended, of one device or of all.
    List {
        /// Name or id of the device; default: all.
        device: Option<String>,
    },
    /// Make a token of a device; it is printed once, alone on standard output.
    Create(Create),
    /// Revoke a token.
    Revoke(Revoke),
    /// Ask whether a token counts now.
    Check(Check),
}

/// A new token.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    one: One,
    /// Whom it is for; default: the integrator endpoints of gateways.
    #[arg(long)]
    audience: Option<String>,
    /// How long it is valid; default and maximum are the platform's, see `token-key terms`.
    #[arg(long, value_name = "TIME")]
    valid: Option<Span>,
    /// The device's own Ed25519 public key, the `x` of its JWK: the token is worth nothing without a proof of it.
    #[arg(long, value_name = "X")]
    key: Option<String>,
}

/// A token to revoke.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Its id (`jti`).
    token: DeviceTokenId,
    #[command(flatten)]
    confirm: Confirm,
}

/// A token to ask about.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// File with the token, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    token_file: SecretSource,
    /// Whom it is to be for; default: the integrator endpoints of gateways.
    #[arg(long)]
    audience: Option<String>,
}

impl Token {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::List { device } => {
                let path = match device {
                    Some(device) => format!("{PATH}/{}/tokens", own(&control, &device).await?),
                    None => TOKENS.to_owned(),
                };
                let tokens: Vec<DeviceToken> = control.list(&path, &[], None).await?;
                context.out.list(&tokens)
            }
            Self::Create(Create { one, audience, valid, key }) => {
                let id = own(&control, &one.device).await?;
                let body = CreateDeviceToken { audience, valid_secs: valid.map(|span| span.secs), key };
                let created: CreatedDeviceToken = control.post(&format!("{PATH}/{id}/tokens"), &body).await?;
                if context.out.is_json() {
                    return context.out.json(&created);
                }
                let end = time::relative(gateway_net::time::unix_secs(), created.device_token.expires_at);
                let id = created.device_token.id;
                context.out.remark(&format!("{id}, ends {end}; it is not shown again."));
                context.out.line(&created.token.0)
            }
            Self::Revoke(Revoke { token, confirm }) => {
                confirm.ask(&format!("Revoke the token {token}"))?;
                control.delete(&format!("{TOKENS}/{token}")).await?;
                context.out.deed("device_token.revoke", token, &format!("Revoked the token {token}."))
            }
            Self::Check(Check { token_file, audience }) => {
                let body = IntrospectToken { token: token_file.read("token")?, audience, proof: None };
                let answer: Introspection = control.post(&format!("{TOKENS}/introspect"), &body).await?;
                context.out.item(&answer)
            }
        }
    }
}

impl View for DeviceToken {
    const HEADERS: &'static [&'static str] = &["ID", "AUDIENCE", "BOUND", "ENDS", "REVOKED", "ISSUED BY", "DEVICE"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.audience.clone(),
            yes_no(self.key_thumbprint.is_some()),
            time::relative(now, self.expires_at),
            or_dash(self.revoked_at.map(|at| time::relative(now, at))),
            self.issued_by.clone(),
            self.device_id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Id", "Audience", "Bound", "Ends", "Revoked", "Issued by", "Device"].into_iter().zip(self.row(now)).collect()
    }
}

impl View for Introspection {
    const HEADERS: &'static [&'static str] = &["COUNTS", "DEVICE", "ENDS", "PROBLEM"];

    fn row(&self, now: u64) -> Vec<String> {
        let claims = self.claims.as_ref();
        vec![
            yes_no(self.active),
            or_dash(claims.map(|claims| claims.sub)),
            or_dash(claims.map(|claims| time::relative(now, claims.exp))),
            or_dash(self.problem.clone()),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Counts", yes_no(self.active))];
        if let Some(problem) = &self.problem {
            lines.push(("Problem", problem.clone()));
        }
        if let Some(kind) = &self.device_kind {
            lines.push(("Kind", word(kind)));
        }
        if let Some(claims) = &self.claims {
            lines.extend([
                ("Device", claims.sub.to_string()),
                ("Organization", claims.organization_id.to_string()),
                ("Tenant", claims.tenant_id.to_string()),
                ("Audience", claims.aud.clone()),
                ("Ends", time::relative(now, claims.exp)),
            ]);
        }
        lines
    }
}
