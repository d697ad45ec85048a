//! Where the data of a grant comes from: the peer says so, with its request or its approval, and then it stays.

use gateway_proto::{
    api::platform::ApproveGrant,
    id::{OrganizationId, ServerId},
};

use super::super::{ServiceError, ServiceResult, Work, kept::NamedEnd};
use crate::storage::GrantRow;

impl Work {
    /// The sending server of an organization: the one named, or its only one.
    pub(super) async fn sender_server(
        &mut self,
        organization: OrganizationId,
        named: Option<ServerId>,
    ) -> ServiceResult<ServerId> {
        self.only_server(organization, named, "sender_server_id").await
    }

    /// An approval that comes again may name the sending end that is in place, and no other one.
    pub(super) async fn check_sender_kept(
        &mut self,
        row: &GrantRow,
        own: OrganizationId,
        body: &ApproveGrant,
    ) -> ServiceResult<()> {
        if row.peer != own {
            is_the_peers(body)?;
        }
        let named = NamedEnd {
            server: ("sender_server_id", body.sender_server_id),
            port: ("sender_port", body.sender_port),
            auto_activate: body.auto_activate,
        };
        match self.connection_of_grant(row.id).await? {
            Some(connection) => named.check_kept(&connection),
            None => Ok(()),
        }
    }
}

/// Refuses an approval of the channel's owner that says where the data comes from.
pub(super) fn is_the_peers(body: &ApproveGrant) -> ServiceResult<()> {
    if body.sender_server_id.is_none() && body.sender_port.is_none() {
        return Ok(());
    }
    let words = "the peer names its sending server, with its request or its approval: leave it out";
    Err(ServiceError::Invalid(words.to_owned()))
}
