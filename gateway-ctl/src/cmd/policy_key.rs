//! `gateway-ctl policy-key`: the keys that sign policies (for the operator of the platform).

use clap::{Args, Subcommand};
use gateway_proto::api::{
    Page,
    platform::{self, RotatePolicyKey},
};

use crate::{
    args::{Confirm, Span},
    cmd::{Context, relay::Operator},
    error::CtlError,
    output::{View, or_dash, time, word},
};

const PATH: &str = "/policy-keys";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyKey {
    /// List the keys, what each does now, and how many gateways lag behind it.
    List {
        #[command(flatten)]
        operator: Operator,
    },
    /// Make a new key: policies name it from now on, and it signs after the lead. Relays that ask the control plane learn it by
    /// themselves; others must have it among their `control_keys` by then.
    Rotate(Rotate),
    /// Forget a retired key and those before it: gateways that were away since then have to be enrolled anew.
    Forget(Forget),
}

/// A new key.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// For how long it is made known before it signs; default: a day.
    #[arg(long, value_name = "TIME", conflicts_with = "at_once")]
    lead: Option<Span>,
    /// The old key became known to others: the new one signs now, and gateways believe the old one no more as soon as they
    /// are reached. Relays refuse new relay tokens until they have the new key: those that ask, for seconds.
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    confirm: Confirm,
}

/// A key to forget.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The key, 64 hex digits.
    key: String,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    confirm: Confirm,
}

impl PolicyKey {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List { operator } => {
                let keys: Vec<platform::PolicyKey> = operator.control(context)?.list(PATH, &[], None).await?;
                context.out.list(&keys)
            }
            Self::Rotate(Rotate { lead, at_once, operator, confirm }) => {
                let control = operator.control(context)?;
                if at_once {
                    confirm.ask("Sign every policy with a new key now; relays have to be told at once")?;
                }
                let body = RotatePolicyKey { lead_secs: lead.map(|lead| lead.secs), at_once };
                let page: Page<platform::PolicyKey> = control.post(&format!("{PATH}/rotate"), &body).await?;
                context.out.remark("Add the newest key to `control_keys` of every relay; take the old one out later.");
                context.out.remark(
                    "Make a backup of the control plane now: once the new key signs, one from before it would lock every gateway out.",
                );
                context.out.list(&page.items)
            }
            Self::Forget(Forget { key, operator, confirm }) => {
                let control = operator.control(context)?;
                confirm
                    .ask(&format!("Forget the key {key}: gateways that know no newer one have to be enrolled anew"))?;
                control.delete(&format!("{PATH}/{key}")).await?;
                context.out.deed("policy_key.forget", &key, &format!("Forgot the key {key}."))
            }
        }
    }
}

impl View for platform::PolicyKey {
    const HEADERS: &'static [&'static str] = &["KEY", "STATE", "SIGNS FROM", "GATEWAYS BEHIND", "CREATED"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.key.clone(),
            word(&self.state),
            time::relative(now, self.signs_from),
            or_dash(self.gateways_behind.map(|count| count.to_string())),
            time::relative(now, self.created_at),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Key", "State", "Signs from", "Gateways behind", "Created"].into_iter().zip(self.row(now)).collect()
    }
}
