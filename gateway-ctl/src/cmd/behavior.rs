//! `gateway-ctl behavior`: the kinds of exchange there are. Everybody reads them, the operator of the platform adds to them.

use clap::{Args, Subcommand};
use gateway_proto::api::platform::{self, PutBehavior};

use crate::{
    args::Confirm,
    cmd::{Context, relay::Operator},
    error::CtlError,
    output::View,
};

const PATH: &str = "/behaviors";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Behavior {
    /// List the behaviors.
    List,
    /// Add a behavior, or describe one anew (for the operator of the platform).
    Set(Set),
    /// Delete a behavior that nothing names (for the operator of the platform).
    Delete(Delete),
}

/// A behavior to add.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Name: a word of a-z, 0-9 and '-'.
    name: String,
    /// What it is.
    #[arg(long)]
    description: String,
    #[command(flatten)]
    operator: Operator,
}

/// A behavior to delete.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Name.
    name: String,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    confirm: Confirm,
}

impl Behavior {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List => {
                let behaviors: Vec<platform::Behavior> = context.control()?.list(PATH, &[], None).await?;
                context.out.list(&behaviors)
            }
            Self::Set(Set { name, description, operator }) => {
                let control = operator.control(context)?;
                let behavior: platform::Behavior =
                    control.put(&format!("{PATH}/{name}"), &PutBehavior { description }).await?;
                context.out.item(&behavior)
            }
            Self::Delete(Delete { name, operator, confirm }) => {
                let control = operator.control(context)?;
                confirm.ask(&format!("Delete the behavior '{name}'"))?;
                control.delete(&format!("{PATH}/{name}")).await?;
                context.out.deed("behavior.delete", &name, &format!("Deleted the behavior '{name}'."))
            }
        }
    }
}

impl View for platform::Behavior {
    const HEADERS: &'static [&'static str] = &["NAME", "DESCRIPTION"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.name.clone(), self.description.clone()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        ["Name", "Description"].into_iter().zip(self.row(now)).collect()
    }
}
