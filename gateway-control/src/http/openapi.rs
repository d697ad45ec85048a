//! The routes of the API and the OpenAPI document made from them.

mod bounds;
mod headers;

use axum::{extract::State, http::header, response::IntoResponse};
use gateway_proto::api::{
    Problem,
    platform::{AuditOrder, PlatformToken},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        RefOr, Response, ResponseBuilder,
        content::ContentBuilder,
        schema::Ref,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App, accounts, admin, agreements, audit, channels, connections, credentials, device_tokens, devices, engines,
    gateway, gateway_audits, grants, keys, links, oidc, peering, relays, servers, shares, tenants, tiers, totp,
};

/// What stands above the routes in the document.
#[derive(OpenApi)]
#[openapi(
    info(title = "gateway-control", description = "Servers, agreements, grants and connections between organizations"),
    components(schemas(
        Problem,
        AuditOrder,
        PlatformToken,
        peering::PeeringVerb,
        agreements::AgreementVerb,
        grants::GrantVerb,
        channels::DirectionFilter,
        grants::GrantDirection,
        peering::PeeringDirection,
        connections::ConnectionVerb,
        connections::KindFilter
    )),
    security(("session" = [])),
    modifiers(&Security)
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let session = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of POST /api/v1/sessions"))
            .build();
        components.add_security_scheme("session", SecurityScheme::Http(session));
        let operator = ApiKeyValue::with_description(
            "Authorization",
            "`Operator ` followed by the token in the operator-token file of the control plane",
        );
        components.add_security_scheme("operator", SecurityScheme::ApiKey(ApiKey::Header(operator)));
        let gateway = ApiKeyValue::with_description(
            "Authorization",
            "`Gateway ` followed by an assertion that the gateway's key signed for this method and path, once",
        );
        components.add_security_scheme("gateway", SecurityScheme::ApiKey(ApiKey::Header(gateway)));
    }
}

/// The routes below `/api/v1`.
pub(super) fn routes() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .routes(routes!(accounts::create_organization, tiers::organizations))
        .routes(routes!(accounts::login))
        .routes(routes!(accounts::logout))
        .routes(routes!(accounts::me))
        .routes(routes!(accounts::organization, accounts::update_organization, tenants::delete_own))
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show, tenants::delete))
        .routes(routes!(tenants::invite))
        .routes(routes!(accounts::users, accounts::create_user))
        .routes(routes!(accounts::user, accounts::update_user, accounts::delete_user))
        .routes(routes!(accounts::directory))
        .routes(routes!(accounts::directory_entry))
        .routes(routes!(servers::list, servers::create))
        .routes(routes!(servers::show, servers::delete))
        .routes(routes!(servers::enrollment_codes, servers::create_enrollment_code))
        .routes(routes!(servers::delete_enrollment_code))
        .routes(routes!(gateway_audits::show))
        .routes(routes!(gateway_audits::heads))
        .routes(routes!(gateway_audits::acknowledge))
        .routes(routes!(engines::show))
        .routes(routes!(engines::publish))
        .routes(routes!(peering::list, peering::create))
        .routes(routes!(peering::act))
        .routes(routes!(agreements::list))
        .routes(routes!(agreements::show))
        .routes(routes!(agreements::act))
        .routes(routes!(channels::list, channels::create))
        .routes(routes!(channels::show, channels::update, channels::delete))
        .routes(routes!(channels::endpoints))
        .routes(routes!(grants::list, grants::create))
        .routes(routes!(grants::show))
        .routes(routes!(grants::approve))
        .routes(routes!(grants::act))
        .routes(routes!(connections::list))
        .routes(routes!(connections::show))
        .routes(routes!(connections::act))
        .routes(routes!(connections::rotate_secret))
        .routes(routes!(admin::offer))
        .routes(routes!(admin::approve))
        .routes(routes!(admin::accept))
        .routes(routes!(admin::enter))
        .routes(routes!(admin::leave))
        .routes(routes!(admin::decline))
        .routes(routes!(shares::list, shares::create))
        .routes(routes!(shares::show))
        .routes(routes!(shares::open))
        .routes(routes!(shares::end))
        .routes(routes!(servers::access))
        .routes(routes!(channels::access))
        .routes(routes!(credentials::tokens, credentials::create_token))
        .routes(routes!(credentials::delete_token))
        .routes(routes!(credentials::invitations, credentials::invite))
        .routes(routes!(credentials::delete_invitation))
        .routes(routes!(credentials::accept_invitation))
        .routes(routes!(credentials::change_password))
        .routes(routes!(totp::status, totp::enroll))
        .routes(routes!(totp::confirm))
        .routes(routes!(totp::disable))
        .routes(routes!(totp::reset))
        .routes(routes!(oidc::providers))
        .routes(routes!(oidc::start))
        .routes(routes!(oidc::callback))
        .routes(routes!(oidc::finish))
        .routes(routes!(oidc::ways))
        .routes(routes!(oidc::identities))
        .routes(routes!(oidc::unlink))
        .routes(routes!(devices::list, devices::create))
        .routes(routes!(devices::show, devices::update, devices::delete))
        .routes(routes!(devices::system, devices::create_system))
        .routes(routes!(devices::delete_system))
        .routes(routes!(devices::behaviors))
        .routes(routes!(devices::put_behavior, devices::delete_behavior))
        .routes(routes!(device_tokens::of_device, device_tokens::create))
        .routes(routes!(device_tokens::list))
        .routes(routes!(device_tokens::revoke))
        .routes(routes!(device_tokens::introspect))
        .routes(routes!(device_tokens::keys))
        .routes(routes!(device_tokens::rotate))
        .routes(routes!(device_tokens::terms, device_tokens::put_terms))
        .routes(routes!(links::list, links::create))
        .routes(routes!(links::show, links::delete))
        .routes(routes!(links::linkable))
        .routes(routes!(links::executions))
        .routes(routes!(links::executions_of))
        .routes(routes!(tiers::usage))
        .routes(routes!(tiers::list))
        .routes(routes!(tiers::put))
        .routes(routes!(tiers::assign))
        .routes(routes!(relays::list, relays::create))
        .routes(routes!(relays::show, relays::update, relays::delete))
        .routes(routes!(audit::list))
        .routes(routes!(audit::anchor))
        .routes(routes!(audit::platform))
        .routes(routes!(keys::policy_keys))
        .routes(routes!(keys::rotate_policy_key))
        .routes(routes!(keys::forget_policy_key))
        .routes(routes!(keys::relay_keys))
        .routes(routes!(keys::rotate_token))
        .routes(routes!(audit::platform_anchor))
        .routes(routes!(gateway::enroll));
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", api).routes(routes!(device_tokens::jwks))
}

/// The OpenAPI document as JSON.
pub fn document() -> String {
    let (_, mut document) = routes().split_for_parts();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem()));
        }
    }
    let mut document = serde_json::to_value(&document).unwrap_or_default();
    headers::declare(&mut document);
    bounds::declare(&mut document);
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

fn problem() -> Response {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    ResponseBuilder::new()
        .description("What went wrong")
        .content("application/problem+json", ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

/// The document, for whoever asks.
pub(super) async fn serve(State(app): State<App>) -> impl IntoResponse {
    let document = app.document;
    ([(header::CONTENT_TYPE, "application/json")], document)
}
