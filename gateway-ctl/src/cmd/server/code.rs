//! `gateway-ctl server enrollment-code`, `enrollment-codes`, `revoke-enrollment-code`: what lets a gateway in, once.

use clap::Args;
use gateway_proto::{
    api::platform::{CreateEnrollmentCode, CreatedEnrollmentCode, OpenEnrollmentCode},
    id::{EnrollmentCodeId, ServerId},
};

use super::{PATH, server_id};
use crate::{
    args::{Confirm, Span},
    client::Control,
    cmd::Context,
    error::CtlError,
    output::{View, time},
};

/// A code to make.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name or id of the server.
    server: String,
    /// How long it may be used, `1m` to `7d`; default one hour.
    #[arg(long, value_name = "TIME")]
    valid: Option<Span>,
}

/// A code to revoke.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Name or id of the server.
    server: String,
    /// Id of the code (`server enrollment-codes`); default: whichever can be used.
    code: Option<EnrollmentCodeId>,
    #[command(flatten)]
    confirm: Confirm,
}

/// Lists the codes of a server that can be used.
pub(super) async fn list(context: &mut Context, control: &Control, server: &str) -> Result<(), CtlError> {
    let id = server_id(control, server).await?;
    context.out.list(&open(control, id).await?)
}

async fn open(control: &Control, server: ServerId) -> Result<Vec<OpenEnrollmentCode>, CtlError> {
    Ok(control.list(&format!("{PATH}/{server}/enrollment-codes"), &[], None).await?)
}

impl Create {
    pub(super) async fn run(self, context: &mut Context, control: &Control) -> Result<(), CtlError> {
        let id = server_id(control, &self.server).await?;
        let body = CreateEnrollmentCode { valid_secs: self.valid.map(|span| span.secs) };
        let code: CreatedEnrollmentCode = control.post(&format!("{PATH}/{id}/enrollment-codes"), &body).await?;
        if context.out.is_json() {
            return context.out.json(&code);
        }
        let end = time::relative(gateway_net::time::unix_secs(), code.expires_at);
        context.out.remark(&format!(
            "On the machine of '{}', give this to `gateway-ctl gateway enroll -`. Good once, ends {end}; it is not shown \
             again.",
            self.server
        ));
        context.out.line(&code.code.0)
    }
}

impl Revoke {
    pub(super) async fn run(self, context: &mut Context, control: &Control) -> Result<(), CtlError> {
        let Self { server, code, confirm } = self;
        let id = server_id(control, &server).await?;
        let codes = open(control, id).await?;
        let Some(found) = codes.into_iter().find(|row| code.is_none_or(|code| row.id == code)) else {
            return Err(CtlError::No(match code {
                Some(code) => format!("'{server}' has no code {code} that can be used"),
                None => format!("'{server}' has no code that can be used"),
            }));
        };
        let code = found.id;
        confirm.ask(&format!("Revoke the enrolment code of the server '{server}' ({code})"))?;
        control.delete(&format!("{PATH}/{id}/enrollment-codes/{code}")).await?;
        context.out.deed("enrollment_code.delete", code, &format!("Revoked the enrolment code of '{server}'."))
    }
}

impl View for OpenEnrollmentCode {
    const HEADERS: &'static [&'static str] = &["CODE", "MADE BY", "ENDS"];

    fn row(&self, now: u64) -> Vec<String> {
        let maker = self.issued_by.clone().unwrap_or_else(|| "not known".to_owned());
        vec![self.id.to_string(), maker, time::relative(now, self.expires_at)]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Code", "Made by", "Ends"].into_iter().zip(self.row(now)).collect()
    }
}
