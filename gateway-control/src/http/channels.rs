//! Channels and published endpoints.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{AccessEntry, Channel, ChannelDirection, CreateChannel, PublishedEndpoint, UpdateChannel},
    },
    id::{AgreementId, ChannelId, ServerId},
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::{service::Paging, storage::ChannelFilter};

/// Which channels.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChannelQuery {
    /// Those of one server.
    server: Option<ServerId>,
    /// `listener`, `sender` or `any`; left out: `listener`.
    direction: Option<DirectionFilter>,
    /// Only those that are published, or only those that are not.
    published: Option<bool>,
    /// Those whose name contains this; case does not count.
    #[serde(default)]
    search: String,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// Directions of channels, as far as lists tell them apart. Whoever names none is an older program as well, which takes all channels for
/// listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DirectionFilter {
    /// Those that receive.
    #[default]
    Listener,
    /// Those that deliver.
    Sender,
    /// All of them.
    Any,
}

impl DirectionFilter {
    fn wanted(self) -> Option<ChannelDirection> {
        match self {
            Self::Listener => Some(ChannelDirection::Listener),
            Self::Sender => Some(ChannelDirection::Sender),
            Self::Any => None,
        }
    }
}

/// Channels of the own organization.
#[utoipa::path(get, path = "/channels", tag = "channels", params(ChannelQuery),
    responses((status = 200, body = Page<Channel>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<ChannelQuery>,
) -> ApiResult<Json<Page<Channel>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    let filter = ChannelFilter { server: query.server, published: query.published, search: query.search };
    let direction = query.direction.unwrap_or_default().wanted();
    Ok(Json(app.service.channels(&actor, direction, &filter, &paging).await?))
}

/// One channel.
#[utoipa::path(get, path = "/channels/{id}", tag = "channels", params(("id" = ChannelId, Path)),
    responses((status = 200, body = Channel)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ChannelId>,
) -> ApiResult<Tagged<Channel>> {
    Ok(Tagged(app.service.channel(&actor, id).await?))
}

/// Add a channel.
#[utoipa::path(post, path = "/channels", tag = "channels", request_body = CreateChannel,
    responses((status = 201, body = Channel)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateChannel>,
) -> ApiResult<(StatusCode, Tagged<Channel>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_channel(&actor, body).await?)))
}

/// Change a channel; of a sender its name.
#[utoipa::path(patch, path = "/channels/{id}", tag = "channels", params(("id" = ChannelId, Path)),
    request_body = UpdateChannel, responses((status = 200, body = Channel)))]
pub(super) async fn update(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ChannelId>,
    Body(body): Body<UpdateChannel>,
) -> ApiResult<Tagged<Channel>> {
    Ok(Tagged(app.service.update_channel(&actor, id, body).await?))
}

/// Remove a channel: its grants are revoked, their connections end. A sender goes with its connection.
#[utoipa::path(delete, path = "/channels/{id}", tag = "channels", params(("id" = ChannelId, Path)),
    responses((status = 204)))]
pub(super) async fn delete(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ChannelId>,
) -> ApiResult<StatusCode> {
    app.service.delete_channel(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whose endpoints.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EndpointQuery {
    /// The agreement whose peer published them.
    agreement: AgreementId,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// What the peer of an agreement published.
#[utoipa::path(get, path = "/endpoints", tag = "channels", params(EndpointQuery),
    responses((status = 200, body = Page<PublishedEndpoint>)))]
pub(super) async fn endpoints(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<EndpointQuery>,
) -> ApiResult<Json<Page<PublishedEndpoint>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    Ok(Json(app.service.endpoints(&actor, query.agreement, &paging).await?))
}

/// Who has access to it, and who was offered or asked for it.
#[utoipa::path(get, path = "/channels/{id}/access", tag = "channels", params(("id" = ChannelId, Path), Paging),
    responses((status = 200, body = Page<AccessEntry>)))]
pub(super) async fn access(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ChannelId>,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<AccessEntry>>> {
    Ok(Json(app.service.channel_access(&actor, id, &paging).await?))
}
