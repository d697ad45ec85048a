//! The web dashboard (`/webadmin`): a sign-in by a form of its own, a session of its own, and what its page polls.

use http_body_util::{BodyExt, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, header};

use super::{
    access::Login,
    answers,
    body::Body,
    perform,
    rest::{Shared, cookie, plain, with_cookie},
};

/// The largest form that is read.
const MAX_FORM: usize = 64 << 10;

/// Answers a request. `page` is its path below the dashboard's, `url` where the client says that the dashboard is.
pub async fn answer(shared: &Shared, page: &str, url: &str, request: Request<Incoming>) -> Response<Body> {
    let base = format!("{}/webadmin", shared.context_path);
    let is_signed_in = cookie(request.headers()).is_some_and(|cookie| shared.access.session(&base, cookie).is_some());
    match (request.method().as_str(), page) {
        ("GET" | "HEAD", "") => redirect(&format!("{url}/")),
        ("GET" | "HEAD", "/" | "/Index.action") => sign_in_page(""),
        ("POST", "/Login.action") => sign_in(shared, &base, url, request).await,
        ("GET" | "HEAD", "/DashboardStatistics.action") if is_signed_in => {
            let statuses = answers::statuses(&*shared.channels.lock().await, false);
            plain(StatusCode::OK, "application/json", &statuses.to_json().to_string())
        }
        ("GET" | "HEAD", "/DashboardStatistics.action") => redirect(&format!("{url}/Index.action")),
        _ => plain(StatusCode::NOT_FOUND, "text/html", "<html><title>Error 404</title></html>"),
    }
}

async fn sign_in(shared: &Shared, base: &str, url: &str, request: Request<Incoming>) -> Response<Body> {
    let Ok(body) = Limited::new(request.into_body(), MAX_FORM).collect().await.map(|body| body.to_bytes()) else {
        return plain(StatusCode::BAD_REQUEST, "text/html", "<html><title>Error 400</title></html>");
    };
    let form = perform::form(std::str::from_utf8(&body).unwrap_or_default());
    let value = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let user = value("username");
    tokio::time::sleep(shared.login_cost).await;
    match shared.access.login(user, value("password")) {
        Login::Success => {
            let response = redirect(&format!("{url}/DashboardStatistics.action"));
            with_cookie(response, base, &shared.access.open_session(base, user))
        }
        // The page once more, and no 401.
        Login::Fail | Login::LockedOut => sign_in_page("Incorrect username or password."),
    }
}

fn sign_in_page(said: &str) -> Response<Body> {
    let page = format!("<html><title>Web Dashboard Sign in</title><form action=\"Login.action\">{said}</form></html>");
    plain(StatusCode::OK, "text/html", &page)
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = plain(StatusCode::FOUND, "", "");
    if let Ok(to) = to.parse() {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}
