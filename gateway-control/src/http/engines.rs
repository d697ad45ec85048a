//! The engines beside servers.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        engine::{PublishEngineChannel, ServerEngine},
        platform::Channel,
    },
    id::ServerId,
};

use super::{
    App,
    extract::{At, Body, SignedIn, Tagged},
    problem::ApiResult,
};

/// The engine beside a server: its channels, which of them are registered, and which could be.
#[utoipa::path(get, path = "/servers/{id}/engine", tag = "servers", params(("id" = ServerId, Path)),
    responses((status = 200, body = ServerEngine)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
) -> ApiResult<Json<ServerEngine>> {
    Ok(Json(app.service.server_engine(&actor, id).await?))
}

/// Register a channel of the engine and publish it.
#[utoipa::path(post, path = "/servers/{id}/engine/channels", tag = "channels", params(("id" = ServerId, Path)),
    request_body = PublishEngineChannel, responses((status = 201, body = Channel)))]
pub(super) async fn publish(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
    Body(body): Body<PublishEngineChannel>,
) -> ApiResult<(StatusCode, Tagged<Channel>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.publish_engine_channel(&actor, id, body).await?)))
}
