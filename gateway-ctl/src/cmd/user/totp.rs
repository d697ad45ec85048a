//! `gateway-ctl user totp`: the second factor.

use clap::{Args, Subcommand};
use gateway_proto::api::platform::{
    ConfirmTotp, ConfirmedTotp, DisableTotp, EnrollTotp, Hidden, TotpEnrollment, TotpStatus,
};

use crate::{
    args::Confirm,
    cmd::Context,
    error::CtlError,
    output::{View, yes_no},
    secret::SecretSource,
};

const PATH: &str = "/me/totp";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Totp {
    /// Whether signing in needs a code, and how many recovery codes are left.
    Status,
    /// Begin: prints what the authenticator needs, once, alone on standard output (a URI for a QR code).
    Enroll(Password),
    /// Confirm with the code that the authenticator shows; prints the recovery codes, once.
    Confirm {
        /// The code.
        code: String,
    },
    /// Give the own second factor up.
    Disable(Disable),
    /// Take the second factor of a user off, who lost it.
    Reset(Reset),
}

/// The own password.
#[derive(Debug, Args)]
pub(crate) struct Password {
    /// File with the own password, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    password_file: SecretSource,
}

/// A second factor to give up.
#[derive(Debug, Args)]
pub(crate) struct Disable {
    /// The code of now, or a recovery code.
    code: String,
    #[command(flatten)]
    password: Password,
}

/// A second factor to take off.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// E-mail address or id of the user.
    user: String,
    #[command(flatten)]
    confirm: Confirm,
}

impl Totp {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::Status => {
                let status: TotpStatus = control.get(PATH).await?;
                context.out.item(&status)
            }
            Self::Enroll(Password { password_file }) => {
                let body = EnrollTotp { password: password_file.read("password")? };
                let enrollment: TotpEnrollment = control.post(PATH, &body).await?;
                if context.out.is_json() {
                    return context.out.json(&enrollment);
                }
                context.out.remark("Give it to the authenticator, then `gateway-ctl user totp confirm CODE`.");
                context.out.line(&enrollment.uri.0)
            }
            Self::Confirm { code } => {
                let body = ConfirmTotp { code: Hidden(code) };
                let confirmed: ConfirmedTotp = control.post(&format!("{PATH}/confirm"), &body).await?;
                if context.out.is_json() {
                    return context.out.json(&confirmed);
                }
                context
                    .out
                    .remark("Signing in needs a code from now on. Keep these recovery codes: each is good once.");
                confirmed.recovery_codes.iter().try_for_each(|code| context.out.line(&code.0))
            }
            Self::Disable(Disable { code, password }) => {
                let body = DisableTotp { password: password.password_file.read("password")?, code: Hidden(code) };
                control.post_only(&format!("{PATH}/disable"), &body).await?;
                context.out.deed("user.disable_totp", "me", "Signing in needs no code any more.")
            }
            Self::Reset(Reset { user, confirm }) => {
                let id = super::user_id(&control, &user).await?;
                confirm.ask(&format!("Take the second factor of '{user}' ({id}) off"))?;
                control.delete(&format!("/users/{id}/totp")).await?;
                context.out.deed(
                    "user.reset_totp",
                    id,
                    &format!("'{user}' signs in without a code; the sessions ended."),
                )
            }
        }
    }
}

impl View for TotpStatus {
    const HEADERS: &'static [&'static str] = &["ENABLED", "RECOVERY CODES"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![yes_no(self.enabled), self.recovery_codes.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Enabled", "Recovery codes"].into_iter().zip(self.row(now)).collect()
    }
}
