//! The HTTP edge: extract, call the service, map the answer. The only place that knows of status codes.
//!
//! Every request passes, from the outside in: problem form and request id ([`problem`]), security headers, panic
//! guard, time limit, size limit, rate limit by address; then the route. Routes and OpenAPI document come from the same
//! declarations.

mod accounts;
mod admin;
mod agreements;
mod audit;
mod channels;
mod connections;
mod credentials;
mod device_tokens;
mod devices;
mod engines;
mod extract;
mod gateway;
mod gateway_audits;
mod grants;
mod health;
mod idempotency;
mod keys;
mod links;
mod oidc;
mod openapi;
mod peering;
mod problem;
mod relays;
mod serve;
mod servers;
mod shares;
mod sources;
mod tenants;
mod tiers;
mod totp;
mod watch;

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
    routing::get,
};
use gateway_net::shutdown::Shutdown;
use gateway_proto::id::UserId;
pub use health::metrics_router;
pub use openapi::document;
pub use problem::{CODES, Code, errors_document};
pub use serve::{ServeOptions, serve};
use tokio_util::task::TaskTracker;
use tower_http::{
    catch_panic::CatchPanicLayer, limit::RequestBodyLimitLayer, set_header::SetResponseHeaderLayer,
    timeout::TimeoutLayer,
};

use crate::{limits::KeyedLimiter, metrics::Metrics, service::Service};

/// The largest request body.
const MAX_BODY: usize = 1 << 20;
/// A request that takes longer is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses and users whose rates are remembered.
const KNOWN_CLIENTS: usize = 50_000;

/// The address a connection comes from, put into every request by [`serve()`].
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

/// What every handler gets.
#[derive(Debug, Clone)]
pub struct App {
    service: Service,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    watches: TaskTracker,
    document: Bytes,
}

#[derive(Debug)]
struct Limits {
    addresses: KeyedLimiter<IpAddr>,
    users: KeyedLimiter<UserId>,
    logins: KeyedLimiter<(IpAddr, String)>,
    strangers: KeyedLimiter<IpAddr>,
    enrollments: KeyedLimiter<IpAddr>,
}

/// Rates that the operator may choose.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Requests per second of one user, and of one address.
    pub requests_per_second: NonZeroU32,
    /// Sign-in attempts per minute for one account from one address; six times that from one address.
    pub logins_per_minute: NonZeroU32,
}

impl App {
    /// Puts it together.
    pub fn new(service: Service, rates: Rates, metrics: Arc<Metrics>, shutdown: Shutdown) -> Self {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let requests = rates.requests_per_second;
        let burst = requests.saturating_mul(NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN));
        let logins = rates.logins_per_minute;
        let strangers = logins.saturating_mul(NonZeroU32::new(6).unwrap_or(NonZeroU32::MIN));
        Self {
            service,
            limits: Arc::new(Limits {
                addresses: KeyedLimiter::new(requests, second, burst, KNOWN_CLIENTS),
                users: KeyedLimiter::new(requests, second, burst, KNOWN_CLIENTS),
                logins: KeyedLimiter::new(logins, minute, logins, KNOWN_CLIENTS),
                strangers: KeyedLimiter::new(strangers, minute, strangers, KNOWN_CLIENTS),
                // Real enrolments are rare; a hundred gateways behind one address still enrol within minutes.
                enrollments: KeyedLimiter::new(strangers, minute, strangers, KNOWN_CLIENTS),
            }),
            metrics,
            shutdown,
            watches: TaskTracker::new(),
            document: document().into(),
        }
    }

    /// The watches that run now.
    pub fn watches(&self) -> &TaskTracker {
        &self.watches
    }

    /// The routes with everything around them.
    pub fn router(&self) -> Router {
        let (api, _) = openapi::routes().split_for_parts();
        let fixed = |name: HeaderName, value: &'static str| {
            SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
        };
        Router::new()
            .merge(api)
            .route(gateway_proto::api::gateway::WATCH_PATH, get(watch::watch))
            .route("/api/v1/openapi.json", get(openapi::serve))
            .route(gateway_proto::api::invitation::INVITATION_PATH, get(credentials::about_invitation))
            .route("/healthz", get(health::live))
            .route("/readyz", get(health::ready))
            .with_state(self.clone())
            .layer(middleware::from_fn_with_state(self.clone(), idempotency::once))
            .layer(middleware::from_fn_with_state(self.clone(), problem::limit_addresses))
            .layer(RequestBodyLimitLayer::new(MAX_BODY))
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
            .layer(CatchPanicLayer::new())
            .layer(fixed(header::CACHE_CONTROL, "no-store"))
            .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
            .layer(fixed(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
            .layer(middleware::from_fn_with_state(self.clone(), problem::finish))
    }
}
