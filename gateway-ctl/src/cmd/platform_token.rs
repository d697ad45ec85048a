//! `gateway-ctl platform-token`: the tokens of the platform itself (for its operator).

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gateway_net::secret_file;
use gateway_proto::api::platform::{self, RotatePlatformToken, RotatedPlatformToken};

use crate::{
    args::Span,
    cmd::{Context, relay::Operator},
    error::CtlError,
    output::time,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum PlatformToken {
    /// Make a new token and write it into a file; those before it count for a while.
    Rotate(Rotate),
}

/// A new token.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Which one.
    #[arg(value_enum)]
    kind: Kind,
    /// The file to write it into, mode 0600; what is in it is replaced. It belongs into the data directory of every replica.
    #[arg(long, value_name = "FILE")]
    into: PathBuf,
    /// For how long those before it still count; default: a day.
    #[arg(long, value_name = "TIME", conflicts_with = "at_once")]
    overlap: Option<Span>,
    /// Those before it end now: they became known to others.
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    operator: Operator,
}

/// Which token.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// What the operator shows.
    Operator,
    /// What creates an organization.
    Registration,
}

impl PlatformToken {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Self::Rotate(Rotate { kind, into, overlap, at_once, operator }) = self;
        let control = operator.control(context)?;
        let kind = match kind {
            Kind::Operator => platform::PlatformToken::Operator,
            Kind::Registration => platform::PlatformToken::Registration,
        };
        let overlap_secs = if at_once { Some(0) } else { overlap.map(|overlap| overlap.secs) };
        let body = RotatePlatformToken { overlap_secs };
        let path = format!("/platform-tokens/{}/rotate", kind.name());
        let rotated: RotatedPlatformToken = control.post(&path, &body).await?;
        // Without the file it would be lost, and with it perhaps the last token that counts.
        if let Err(error) = secret_file::write(&into, format!("{}\n", rotated.token.0).as_bytes()) {
            context.out.remark(&format!("The new token is {}", rotated.token.0));
            return Err(CtlError::No(format!("{error}; the new token was made and is printed above")));
        }
        let until = time::relative(gateway_net::time::unix_secs(), rotated.old_until);
        let words = format!("The new {} token is in {}; those before it end {until}.", kind.name(), into.display());
        context.out.deed("platform_token.rotate", kind.name(), &words)
    }
}
