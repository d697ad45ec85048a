//! `gateway-ctl agreement`: the relationships that carry grants and connections.

use clap::{Args, Subcommand};
use gateway_proto::{api::platform, id::AgreementId, peering::AgreementStatus};

use crate::{
    args::Confirmed,
    client::Control,
    cmd::{Context, id_of},
    error::CtlError,
    output::{View, time, word},
    resolve::Named,
};

const PATH: &str = "/agreements";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Agreement {
    /// List the agreements.
    List,
    /// Show an agreement.
    Show(One),
    /// Stop the data of all its connections; the peer cannot resume it.
    Suspend(One),
    /// Take the own suspension back.
    Resume(One),
    /// End it for good: its grants are revoked, their connections terminated.
    End(Confirmed<One>),
}

/// An agreement.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Name of the peer, or id.
    agreement: String,
}

impl Agreement {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let agreement = match self {
            Self::List => {
                let agreements: Vec<platform::Agreement> = control.list(PATH, &[], None).await?;
                return context.out.list(&agreements);
            }
            Self::Show(One { agreement }) => {
                let id = agreement_id(&control, &agreement).await?;
                control.get(&format!("{PATH}/{id}")).await?
            }
            Self::Suspend(one) => one.act(&control, "suspend").await?,
            Self::Resume(one) => one.act(&control, "resume").await?,
            Self::End(Confirmed { one: One { agreement }, confirm }) => {
                let id = agreement_id(&control, &agreement).await?;
                confirm.ask(&format!("End the agreement with '{agreement}' ({id}), its grants and its connections"))?;
                control.act::<platform::Agreement>(&format!("{PATH}/{id}/end")).await?
            }
        };
        context.out.item(&agreement)
    }
}

impl One {
    async fn act(&self, control: &Control, verb: &str) -> Result<platform::Agreement, CtlError> {
        let id = agreement_id(control, &self.agreement).await?;
        Ok(control.act(&format!("{PATH}/{id}/{verb}")).await?)
    }
}

/// The agreement that `wanted` names: the living one where the peer had several.
pub(crate) async fn agreement_id(control: &Control, wanted: &str) -> Result<AgreementId, CtlError> {
    let lives = |agreement: &platform::Agreement| agreement.status != AgreementStatus::Ended;
    id_of::<platform::Agreement>(control, PATH, wanted, lives).await
}

impl Named for platform::Agreement {
    type Id = AgreementId;
    const KIND: &'static str = "agreement";
    const LIST: &'static str = "agreement list";

    fn id(&self) -> AgreementId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.peer_name.clone()]
    }

    fn describe(&self) -> String {
        format!("{}, {}", self.peer_name, word(&self.status))
    }
}

impl View for platform::Agreement {
    const HEADERS: &'static [&'static str] = &["PEER", "STATUS", "SINCE", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![self.peer_name.clone(), status(self), time::relative(now, self.created_at), self.id.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.to_string()),
            ("Peer", self.peer_name.clone()),
            ("Peer id", self.peer_id.to_string()),
            ("Status", status(self)),
            ("Since", time::relative(now, self.created_at)),
        ];
        if let Some(at) = self.ended_at {
            lines.push(("Ended", time::relative(now, at)));
        }
        lines
    }
}

fn status(agreement: &platform::Agreement) -> String {
    let by = match (agreement.suspended_by_us, agreement.suspended_by_peer) {
        (false, false) => return word(&agreement.status),
        (true, false) => "by us",
        (false, true) => "by the peer",
        (true, true) => "by both sides",
    };
    // An ended agreement keeps its suspensions; they no longer matter.
    match agreement.status {
        AgreementStatus::Suspended => format!("suspended {by}"),
        AgreementStatus::Active | AgreementStatus::Ended => word(&agreement.status),
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::id::OrganizationId;

    use super::*;

    #[test]
    fn a_suspension_says_whose_it_is() {
        let agreement = platform::Agreement {
            id: AgreementId::new(1, [0; 10]),
            peer_id: OrganizationId::new(1, [0; 10]),
            peer_name: "Clinic B".into(),
            status: AgreementStatus::Suspended,
            suspended_by_us: false,
            suspended_by_peer: true,
            created_at: 0,
            ended_at: None,
        };
        assert_eq!(status(&agreement), "suspended by the peer");
        assert_eq!(status(&platform::Agreement { status: AgreementStatus::Ended, ..agreement }), "ended");
    }
}
