//! Devices, and the behaviors they perform.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{Behavior, CreateDevice, CreateSystemDevice, Device, PutBehavior, UpdateDevice},
    },
    id::DeviceId,
};

use super::{
    App,
    extract::{Ask, At, Body, Operator, SignedIn, Somebody, Tagged, Whole},
    problem::ApiResult,
};
use crate::service::Paging;

/// Devices of the own organization; its servers are among them.
#[utoipa::path(get, path = "/devices", tag = "devices", params(Paging),
    responses((status = 200, body = Page<Device>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<Device>>> {
    Ok(Json(app.service.devices(&actor, &paging).await?))
}

/// One device of the own organization, or of the platform.
#[utoipa::path(get, path = "/devices/{id}", tag = "devices", params(("id" = DeviceId, Path)),
    responses((status = 200, body = Device)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<DeviceId>,
) -> ApiResult<Tagged<Device>> {
    Ok(Tagged(app.service.device(&actor, id).await?))
}

/// Add a device.
#[utoipa::path(post, path = "/devices", tag = "devices", request_body = CreateDevice,
    responses((status = 201, body = Device)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateDevice>,
) -> ApiResult<(StatusCode, Tagged<Device>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_device(&actor, body).await?)))
}

/// Change a device.
#[utoipa::path(patch, path = "/devices/{id}", tag = "devices", params(("id" = DeviceId, Path)),
    request_body = UpdateDevice, responses((status = 200, body = Device)))]
pub(super) async fn update(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<DeviceId>,
    Body(body): Body<UpdateDevice>,
) -> ApiResult<Tagged<Device>> {
    Ok(Tagged(app.service.update_device(&actor, id, body).await?))
}

/// Remove a device with its tokens; that of a server goes with the server.
#[utoipa::path(delete, path = "/devices/{id}", tag = "devices", params(("id" = DeviceId, Path)),
    responses((status = 204)))]
pub(super) async fn delete(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<DeviceId>,
) -> ApiResult<StatusCode> {
    app.service.delete_device(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Devices of the platform, which everybody may link to.
#[utoipa::path(get, path = "/system-devices", tag = "devices", params(Paging),
    responses((status = 200, body = Page<Device>)))]
pub(super) async fn system(
    State(app): State<App>,
    _: Somebody,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<Device>>> {
    Ok(Json(app.service.system_devices(&paging).await?))
}

/// Add a device of the platform.
#[utoipa::path(post, path = "/system-devices", tag = "devices", request_body = CreateSystemDevice,
    responses((status = 201, body = Device)), security(("operator" = [])))]
pub(super) async fn create_system(
    State(app): State<App>,
    Operator(operator): Operator,
    Body(body): Body<CreateSystemDevice>,
) -> ApiResult<(StatusCode, Tagged<Device>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_system_device(&operator, body).await?)))
}

/// Remove a device of the platform.
#[utoipa::path(delete, path = "/system-devices/{id}", tag = "devices", params(("id" = DeviceId, Path)),
    responses((status = 204)), security(("operator" = [])))]
pub(super) async fn delete_system(
    State(app): State<App>,
    Operator(operator): Operator,
    At(id): At<DeviceId>,
) -> ApiResult<StatusCode> {
    app.service.delete_system_device(&operator, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All behaviors, on one page.
#[utoipa::path(get, path = "/behaviors", tag = "devices", responses((status = 200, body = Page<Behavior>)))]
pub(super) async fn behaviors(State(app): State<App>, _: Somebody, _: Whole) -> ApiResult<Json<Page<Behavior>>> {
    Ok(Json(Page { items: app.service.behaviors().await?, next: None }))
}

/// Add a behavior, or describe one anew.
#[utoipa::path(put, path = "/behaviors/{name}", tag = "devices", params(("name" = String, Path)),
    request_body = PutBehavior, responses((status = 200, body = Behavior)), security(("operator" = [])))]
pub(super) async fn put_behavior(
    State(app): State<App>,
    Operator(operator): Operator,
    At(name): At<String>,
    Body(body): Body<PutBehavior>,
) -> ApiResult<Json<Behavior>> {
    Ok(Json(app.service.put_behavior(&operator, &name, body).await?))
}

/// Remove a behavior that no channel and no device names.
#[utoipa::path(delete, path = "/behaviors/{name}", tag = "devices", params(("name" = String, Path)),
    responses((status = 204)), security(("operator" = [])))]
pub(super) async fn delete_behavior(
    State(app): State<App>,
    Operator(operator): Operator,
    At(name): At<String>,
) -> ApiResult<StatusCode> {
    app.service.delete_behavior(&operator, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
