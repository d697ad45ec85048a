//! The relay map: read by everybody who is signed in, changed by the platform's operator.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{CreateRelay, Relay, UpdateRelay},
    },
    id::RelayId,
};

use super::{
    App,
    extract::{At, Body, ConditionalOperator, Operator, Somebody, Tagged, Whole},
    problem::ApiResult,
};

/// The relay map; it is short and comes on one page.
#[utoipa::path(get, path = "/relays", tag = "relays", responses((status = 200, body = Page<Relay>)))]
pub(super) async fn list(State(app): State<App>, _: Somebody, _: Whole) -> ApiResult<Json<Page<Relay>>> {
    Ok(Json(Page { items: app.service.relays().await?, next: None }))
}

/// Add a relay to the map.
#[utoipa::path(post, path = "/relays", tag = "relays", request_body = CreateRelay,
    responses((status = 201, body = Relay)), security(("operator" = [])))]
pub(super) async fn create(
    State(app): State<App>,
    Operator(operator): Operator,
    Body(body): Body<CreateRelay>,
) -> ApiResult<(StatusCode, Tagged<Relay>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_relay(&operator, body).await?)))
}

/// One relay of the map.
#[utoipa::path(get, path = "/relays/{id}", tag = "relays", params(("id" = RelayId, Path)),
    responses((status = 200, body = Relay)))]
pub(super) async fn show(State(app): State<App>, _: Somebody, At(id): At<RelayId>) -> ApiResult<Tagged<Relay>> {
    Ok(Tagged(app.service.relay(id).await?))
}

/// Change what the map says of a relay, which keeps its id and its place.
#[utoipa::path(patch, path = "/relays/{id}", tag = "relays", params(("id" = RelayId, Path)),
    request_body = UpdateRelay, responses((status = 200, body = Relay)), security(("operator" = [])))]
pub(super) async fn update(
    State(app): State<App>,
    ConditionalOperator(operator): ConditionalOperator,
    At(id): At<RelayId>,
    Body(body): Body<UpdateRelay>,
) -> ApiResult<Tagged<Relay>> {
    Ok(Tagged(app.service.update_relay(&operator, id, body).await?))
}

/// Take a relay out of the map.
#[utoipa::path(delete, path = "/relays/{id}", tag = "relays", params(("id" = RelayId, Path)),
    responses((status = 204)), security(("operator" = [])))]
pub(super) async fn delete(
    State(app): State<App>,
    Operator(operator): Operator,
    At(id): At<RelayId>,
) -> ApiResult<StatusCode> {
    app.service.delete_relay(&operator, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
