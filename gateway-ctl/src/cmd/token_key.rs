//! `gateway-ctl token-key`: the keys that sign device tokens, and how long those live (for the operator of the platform).

use clap::{Args, Subcommand};
use gateway_proto::api::{
    Page,
    platform::{self, RotateTokenKeys, TokenTerms},
};

use crate::{
    args::{Confirm, Span},
    cmd::{Context, relay::Operator},
    error::CtlError,
    output::{View, or_dash, time, word},
};

const PATH: &str = "/token-keys";
const TERMS: &str = "/token-terms";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenKey {
    /// List the keys and what each does now.
    List {
        #[command(flatten)]
        operator: Operator,
    },
    /// Make a new key: it is published now, signs in ten minutes, and the old one goes when its tokens have ended.
    Rotate(Rotate),
    /// How long tokens live, by default and at most.
    Terms,
    /// Change how long new tokens live.
    SetTerms(SetTerms),
}

/// A new key.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// A key became known to others: forget the old keys now, with every token they signed.
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    confirm: Confirm,
}

/// Other terms.
#[derive(Debug, Args)]
pub(crate) struct SetTerms {
    /// When nothing else is asked for.
    #[arg(long, value_name = "TIME")]
    default: Span,
    /// At most; a day is the limit.
    #[arg(long, value_name = "TIME")]
    max: Span,
    #[command(flatten)]
    operator: Operator,
}

impl TokenKey {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List { operator } => {
                let keys: Vec<platform::TokenKey> = operator.control(context)?.list(PATH, &[], None).await?;
                context.out.list(&keys)
            }
            Self::Rotate(Rotate { at_once, operator, confirm }) => {
                let control = operator.control(context)?;
                if at_once {
                    confirm.ask("End every device token of the platform now")?;
                }
                let page: Page<platform::TokenKey> =
                    control.post(&format!("{PATH}/rotate"), &RotateTokenKeys { at_once }).await?;
                context.out.list(&page.items)
            }
            Self::Terms => {
                let terms: TokenTerms = context.control()?.get(TERMS).await?;
                context.out.item(&terms)
            }
            Self::SetTerms(SetTerms { default, max, operator }) => {
                let body = TokenTerms { default_secs: default.secs, max_secs: max.secs };
                let terms: TokenTerms = operator.control(context)?.put(TERMS, &body).await?;
                context.out.item(&terms)
            }
        }
    }
}

impl View for platform::TokenKey {
    const HEADERS: &'static [&'static str] = &["KEY", "STATE", "SIGNS FROM", "VERIFIES UNTIL", "CREATED"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.kid.clone(),
            word(&self.state),
            time::relative(now, self.signs_from),
            or_dash(self.verifies_until.map(|at| time::relative(now, at))),
            time::relative(now, self.created_at),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Key", "State", "Signs from", "Verifies until", "Created"].into_iter().zip(self.row(now)).collect()
    }
}

impl View for TokenTerms {
    const HEADERS: &'static [&'static str] = &["DEFAULT", "AT MOST"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![format!("{} s", self.default_secs), format!("{} s", self.max_secs)]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Default", "At most"].into_iter().zip(self.row(now)).collect()
    }
}
