//! Pages of other sites: no answer lets a browser hand them anything, whatever they ask for and however.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::Control;

const ELSEWHERE: &str = "https://elsewhere.example";

/// Every route there is: those of the document, those beside it, and none.
fn routes() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&gateway_control::http::document()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace(['{', '}'], "");
        routes.extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    assert!(routes.len() > 80, "{routes:?}");
    let beside = [
        "/healthz",
        "/readyz",
        "/api/v1/openapi.json",
        gateway_proto::api::invitation::INVITATION_PATH,
        gateway_proto::api::gateway::WATCH_PATH,
        "/nowhere",
        "/",
    ];
    routes.extend(beside.map(|path| ("GET".to_owned(), path.to_owned())));
    routes
}

fn is_closed(about: &str, answer: &reqwest::Response) {
    let opens = answer.headers().keys().find(|name| name.as_str().starts_with("access-control-"));
    assert!(opens.is_none(), "{about}: {} {opens:?}", answer.status());
}

#[tokio::test]
async fn no_route_answers_a_preflight_or_lets_a_page_of_another_site_read_an_answer() {
    let control = Control::start_with("[limits]\nrequests_per_second = 1000000\nlogins_per_minute = 1000\n").await;
    let hospital = control.organization("Hospital").await;
    let signed_in = format!("Bearer {}", hospital.token);
    let mut read = 0;
    for (method, path) in routes() {
        let about = format!("{method} {path}");
        let preflight = control
            .request("OPTIONS", &path)
            .header("origin", ELSEWHERE)
            .header("access-control-request-method", &method)
            .header("access-control-request-headers", "authorization, content-type, idempotency-key")
            .header("access-control-request-private-network", "true");
        let answer = preflight.send().await.unwrap();
        is_closed(&about, &answer);
        assert!(answer.status().is_client_error(), "{about}: a preflight is answered with {}", answer.status());
        // What changes something is asked for by nobody: the test goes on after `DELETE /organization`.
        let who = if method == "GET" { vec!["", signed_in.as_str()] } else { vec!["", "Bearer gws_wrong"] };
        for (who, origin) in who.into_iter().flat_map(|who| [(who, ELSEWHERE), (who, "null")]) {
            let request = control.request(&method, &path).header("origin", origin).header("authorization", who);
            let request = if method == "GET" { request } else { request.json(&json!({})) };
            let answer = request.send().await.unwrap();
            is_closed(&about, &answer);
            read += usize::from(answer.status().is_success());
        }
    }
    assert!(read > 30, "only {read} were let in at all");
    // One that anybody may make, and that is done.
    let login = json!({"email": hospital.session.user.email, "password": "correct horse battery"});
    for kind in ["application/json", "text/plain"] {
        let request = control.request("POST", "/api/v1/sessions").header("origin", ELSEWHERE);
        let answer = request.header("content-type", kind).body(login.to_string()).send().await.unwrap();
        assert_eq!(answer.status().is_success(), kind == "application/json", "{kind}");
        is_closed(kind, &answer);
    }
}

async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn nor_does_the_listener_of_the_metrics() {
    let control = Control::start_with("metrics_listen = '127.0.0.1:0'\n").await;
    let address = control.ready.metrics_listen.unwrap();
    for (method, status) in [("GET", "200"), ("OPTIONS", "405")] {
        let request = format!(
            "{method} /metrics HTTP/1.1\r\nhost: x\r\norigin: {ELSEWHERE}\r\naccess-control-request-method: GET\r\n\
             connection: close\r\n\r\n"
        );
        let answer = raw(address, &request).await.to_lowercase();
        let head = answer.split("\r\n\r\n").next().unwrap();
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert!(!head.contains("access-control-"), "{head}");
    }
}
