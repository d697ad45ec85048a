//! The stand-in shows what was measured on the real engine.

use std::time::{Duration, Instant};

use gateway_net::tls::engine_client_config;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    StandIn,
    access::Executed,
    definition::{ChannelDefinition, DestinationDefinition, EngineDefinition, SourceDefinition},
};
use crate::{
    mllp::{Broken, Connection, Ending, Engine, Manners, Sender, Verdict},
    wait,
};

const MESSAGE: &[u8] = b"MSH|^~\\&|A|B|C|D|20250301||ADT^A01|ID1|T|2.5.1\rEVN|A01\r";
const LIMIT: Duration = Duration::from_secs(10);

/// An engine and whoever asks it.
struct World {
    engine: StandIn,
    client: reqwest::Client,
}

impl World {
    async fn with(channels: Vec<ChannelDefinition>) -> Self {
        let definition = EngineDefinition {
            login_cost_ms: 40,
            boot_ms: 100,
            bypass_password: Some("let-me-in".into()),
            configuration_map: [("adtPort".to_owned(), "0".to_owned())].into(),
            channels,
            ..EngineDefinition::default()
        };
        let client = reqwest::Client::builder().tls_backend_preconfigured(engine_client_config(None)).no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { engine: StandIn::start(definition, None).await.unwrap(), client }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.engine.https));
        request.header("X-Requested-With", "test").header("Accept", "application/json")
    }

    async fn login(&self, context: &str, password: &str) -> Response {
        let request = self.request(Method::POST, &format!("{context}/users/_login"));
        let body = format!("username=admin&password={password}");
        request.header("Content-Type", "application/x-www-form-urlencoded").body(body).send().await.unwrap()
    }

    async fn cookie(&self, context: &str) -> String {
        let response = self.login(context, "admin").await;
        let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.ends_with(&format!("; Path={context}; Secure")), "{cookie}");
        cookie.split(';').next().unwrap().to_owned()
    }

    async fn get(&self, path: &str, cookie: &str) -> Value {
        let response = self.request(Method::GET, path).header("Cookie", cookie).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    async fn back_door(&self, method: Method, path: &str) -> String {
        let response = self.client.request(method, format!("{}{path}", self.engine.back_door)).send().await.unwrap();
        response.text().await.unwrap()
    }
}

fn id(number: u32) -> String {
    format!("a0000000-0000-4000-8000-{number:012}")
}

#[tokio::test]
async fn requests_without_the_header_are_refused_in_html_whoever_asks() {
    let world = World::with(Vec::new()).await;
    let url = format!("{}/api/server/version", world.engine.https);
    let response = world.client.get(url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.unwrap().contains("All requests must have 'X-Requested-With' header"));
}

#[tokio::test]
async fn a_session_is_good_in_its_own_context_only_and_dies_with_a_restart() {
    let world = World::with(Vec::new()).await;
    let begun = Instant::now();
    let refused = world.login("/api", "wrong").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(begun.elapsed() >= Duration::from_millis(40), "a login costs time");
    let text = refused.text().await.unwrap();
    assert!(text.contains("FAIL") && text.contains("Incorrect username or password."), "{text}");

    let (short, versioned) = (world.cookie("/api").await, world.cookie("/api/4.5.2").await);
    world.get("/api/channels", &short).await;
    world.get("/api/4.5.2/channels", &versioned).await;
    let status = async |path: &str, cookie: &str| {
        world.request(Method::GET, path).header("Cookie", cookie).send().await.unwrap().status()
    };
    assert_eq!(status("/api/4.5.2/channels", &short).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("/api/channels", &versioned).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("/api/4.5.1/channels", &versioned).await, StatusCode::NOT_FOUND);

    world.back_door(Method::POST, "/restart").await;
    wait::until_true(LIMIT, "the session is gone", async || {
        let request = world.request(Method::GET, "/api/channels").header("Cookie", &short);
        Ok(request.send().await.is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn basic_authentication_works_on_every_request_and_bypass_from_loopback() {
    let world = World::with(Vec::new()).await;
    for (user, password, expected) in [
        ("admin", "admin", StatusCode::OK),
        ("admin", "wrong", StatusCode::UNAUTHORIZED),
        ("bypass", "let-me-in", StatusCode::OK),
        ("bypass", "wrong", StatusCode::UNAUTHORIZED),
    ] {
        let request = world.request(Method::GET, "/api/channels").basic_auth(user, Some(password));
        // Believed whoever sends it.
        let response = request.header("X-Forwarded-For", "203.0.113.9").send().await.unwrap();
        assert_eq!(response.status(), expected, "{user} {password}");
    }
    let executed: Vec<Executed> = serde_json::from_str(&world.back_door(Method::GET, "/executed").await).unwrap();
    assert!(executed.iter().all(|executed| executed.address == "203.0.113.9"));
}

#[tokio::test]
async fn matrix_parameters_reach_the_operation_and_stop_the_channel() {
    let world = World::with(vec![ChannelDefinition::mllp_listener(&id(1), "adt_in")]).await;
    let cookie = world.cookie("/api").await;
    let port = world.get("/api/channels/portsInUse", &cookie).await;
    let ports = &port["list"]["com.mirth.connect.donkey.model.channel.Ports"];
    assert_eq!(ports["name"], "ADT_IN", "one element is an object, its name in upper case");
    let address = format!("127.0.0.1:{}", ports["port"].as_u64().unwrap()).parse().unwrap();
    let mut sender = Sender::new(address, true);
    assert_eq!(sender.send(MESSAGE).await, Verdict::Acknowledged);

    let path = format!("/api/channels;v=1/{};x=1/_stop;y", id(1));
    let response = world.request(Method::POST, &path).header("Cookie", &cookie).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let (ended, _) = sender.connection().unwrap().end(LIMIT).await;
    assert_eq!(ended, Broken::Fin { partial: false });
    assert_eq!(Connection::open(address).await.unwrap_err(), Broken::Refused);
    let statuses = world.get("/api/channels/statuses", &cookie).await;
    assert_eq!(statuses["list"]["dashboardStatus"]["state"], "STOPPED");
    assert_eq!(statuses["list"]["dashboardStatus"]["statistics"]["entry"][0]["long"], 1);
}

#[tokio::test]
async fn plain_text_operations_have_no_json_and_errors_follow_the_accept_header() {
    let world = World::with(Vec::new()).await;
    let cookie = world.cookie("/api").await;
    let send = async |method: Method, path: &str, accept: &str| {
        let url = format!("{}{path}", world.engine.https);
        let request = world.client.request(method, url).header("X-Requested-With", "x").header("Cookie", &cookie);
        let response = request.header("Accept", accept).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(send(Method::GET, "/api/server/version", "application/json").await.0, 406);
    assert_eq!(send(Method::GET, "/api/server/version", "*/*").await, (200, "4.5.2".into()));
    assert_eq!(send(Method::GET, "/api/channels", "*/*").await, (200, "<list/>".into()));
    assert_eq!(send(Method::GET, "/api/channels", "application/json").await.1, "{\"list\":null}");
    assert!(send(Method::GET, "/api/nothing", "application/json").await.1.starts_with('{'));
    assert!(send(Method::GET, "/api/nothing", "*/*").await.1.starts_with("<html>"));
    for (method, path, status) in [
        ("PATCH", "/api/channels", 405),
        ("TRACE", "/api/channels", 405),
        ("HEAD", "/api/channels", 200),
        ("OPTIONS", "/api/channels", 200),
        ("GET", "/api//channels", 404),
    ] {
        assert_eq!(send(method.parse().unwrap(), path, "*/*").await.0, status, "{method} {path}");
    }
    let http = world.client.get(format!("{}/api/server/version", world.engine.http));
    assert_eq!(http.header("X-Requested-With", "x").send().await.unwrap().status(), 404, "plain HTTP has no API");
}

#[tokio::test]
async fn a_channel_with_a_queue_delivers_when_the_far_end_is_back_and_one_without_does_not() {
    let far = id(1);
    let world = World::with(vec![ChannelDefinition::mllp_listener(&far, "far")]).await;
    let cookie = world.cookie("/api").await;
    let ports = world.get("/api/channels/portsInUse", &cookie).await;
    let port = ports["list"]["com.mirth.connect.donkey.model.channel.Ports"]["port"].as_u64().unwrap();
    let destination = |queue| DestinationDefinition {
        queue,
        retry_interval_ms: 50,
        ..DestinationDefinition::tcp("to far", "127.0.0.1", u16::try_from(port).unwrap())
    };
    for (number, queue) in [(2, true), (3, false)] {
        let channel = ChannelDefinition::sender(&id(number), "out", destination(queue));
        let url = format!("{}/channel?deploy", world.engine.back_door);
        world.client.put(url).body(serde_json::to_vec(&channel).unwrap()).send().await.unwrap();
    }
    let post = async |path: String| {
        let request = world.request(Method::POST, &path).header("Cookie", &cookie);
        request.body(MESSAGE).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post(format!("/api/channels/{far}/_stop")).await, 204);
    assert_eq!(post(format!("/api/channels/{}/messages", id(2))).await, 201);
    assert_eq!(post(format!("/api/channels/{}/messages", id(3))).await, 201);
    let status = async |number: u32| {
        let text = world.back_door(Method::GET, &format!("/messages/{}", id(number))).await;
        serde_json::from_str::<Value>(&text).unwrap()[0]["status"].clone()
    };
    let becomes = async |number: u32, word: &str| {
        let what = format!("{number} is {word}");
        wait::until_true(LIMIT, what, async || Ok(status(number).await == word)).await.unwrap();
    };
    becomes(2, "QUEUED").await;
    becomes(3, "ERROR").await;
    assert_eq!(post(format!("/api/channels/{far}/_start")).await, 204);
    becomes(2, "SENT").await;
    assert_eq!(status(3).await, "ERROR", "without a queue nobody tries again");
    let received: Value =
        serde_json::from_str(&world.back_door(Method::GET, &format!("/received/{far}")).await).unwrap();
    assert_eq!(received.as_array().unwrap().len(), 1);
    assert_eq!(post(format!("/api/channels/{}/_stop", id(2))).await, 204);
    assert_eq!(post(format!("/api/channels/{}/messages", id(2))).await, 500, "a stopped channel takes no message");
}

#[tokio::test]
async fn channels_of_every_kind_are_shown_as_the_engine_shows_them() {
    let source = |transport: &str, port: &str| SourceDefinition::of(transport, port);
    let client = SourceDefinition { server_mode: false, ..source("TCP Listener", "6001") };
    let http = SourceDefinition { context_path: "fhir".into(), ..source("HTTP Listener", "0") };
    let undeployed = ChannelDefinition { deployed: false, ..ChannelDefinition::mllp_listener(&id(4), "later") };
    let world = World::with(vec![
        ChannelDefinition::with_source(&id(1), "client", client),
        ChannelDefinition::with_source(&id(2), "fhir", http),
        ChannelDefinition::with_source(&id(3), "files", source("File Reader", "")),
        undeployed,
    ])
    .await;
    let cookie = world.cookie("/api").await;
    let ports = world.get("/api/channels/portsInUse", &cookie).await;
    let ports = ports["list"]["com.mirth.connect.donkey.model.channel.Ports"].as_array().unwrap().clone();
    let names: Vec<_> = ports.iter().map(|port| port["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["CLIENT", "FHIR", "LATER"], "also the undeployed and the one that does not listen");
    let statuses = world.get("/api/channels/statuses", &cookie).await;
    assert_eq!(statuses["list"]["dashboardStatus"].as_array().unwrap().len(), 3);
    let one = world.get(&format!("/api/channels?channelId={}", id(1)), &cookie).await;
    let connector = &one["list"]["channel"]["sourceConnector"];
    assert_eq!(connector["properties"]["serverMode"], json!(false));
    assert_eq!(connector["properties"]["listenerConnectorProperties"]["port"], 6001);
    assert_eq!(one["list"]["channel"]["destinationConnectors"], json!(null));

    let url = format!("http://127.0.0.1:{}/fhir", ports[1]["port"]);
    let response = world.client.post(&url).body("{}").send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["location"].to_str().unwrap()),
        (302, format!("{url}/").as_str())
    );
    assert_eq!(world.client.post(format!("{url}/")).body("{}").send().await.unwrap().status(), 201);
    let url = url.trim_end_matches("/fhir");
    for (path, status) in [("/fhir/Patient/1", 201), ("/fhirx", 404), ("/fhirx/Patient", 404), ("/", 404)] {
        let response = world.client.post(format!("{url}{path}")).body("{}").send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_idle_is_closed_in_order_and_the_next_message_goes_on_a_new_one() {
    let far = Engine::start(Manners::Polite).unwrap();
    let destination = DestinationDefinition {
        keep_connection_open: true,
        send_timeout_ms: 200,
        ..DestinationDefinition::tcp("to far", "127.0.0.1", far.address().port())
    };
    let world = World::with(vec![ChannelDefinition::sender(&id(1), "out", destination)]).await;
    let cookie = world.cookie("/api").await;
    for number in 1..3 {
        let request = world.request(Method::POST, &format!("/api/channels/{}/messages", id(1)));
        let response = request.header("Cookie", &cookie).body(MESSAGE).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        far.wait_for(number, LIMIT).await.unwrap();
        let (ending, _) = far.wait_for_end(LIMIT).await.unwrap();
        assert_eq!((ending, far.accepted()), (Ending::Fin, number as u64));
    }
}

#[tokio::test]
async fn documents_come_in_chunks_and_texts_with_their_length() {
    let world = World::with(vec![ChannelDefinition::mllp_listener(&id(1), "adt_in")]).await;
    let cookie = world.cookie("/api").await;
    for (path, is_chunked) in [("/api/channels", true), ("/api/server/version", false)] {
        let request = world.client.get(format!("{}{path}", world.engine.https)).header("X-Requested-With", "test");
        let response = request.header("Cookie", &cookie).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let headers = response.headers();
        let has = |name: &str| headers.contains_key(name);
        assert_eq!([has("transfer-encoding"), has("content-length")], [is_chunked, !is_chunked], "{path}");
    }
}

#[tokio::test]
async fn the_web_dashboard_has_a_form_a_session_and_a_cookie_of_its_own() {
    let world = World::with(Vec::new()).await;
    let url = format!("{}/webadmin", world.engine.https);
    let sign_in = async |form: &'static str| {
        let request = world.client.post(format!("{url}/Login.action")).body(form);
        request.header("Content-Type", "application/x-www-form-urlencoded").send().await.unwrap()
    };
    assert_eq!(sign_in("op=login&username=admin&password=wrong").await.status(), StatusCode::OK, "the page once more");
    let signed_in = sign_in("op=login&username=admin&password=admin").await;
    assert_eq!(signed_in.status(), StatusCode::FOUND);
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; Path=/webadmin; Secure"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let poll = async |session: &str| {
        let request = world.client.get(format!("{url}/DashboardStatistics.action"));
        request.header("Cookie", session).send().await.unwrap().status()
    };
    assert_eq!(poll(session).await, StatusCode::OK);
    assert_eq!(poll("JSESSIONID=node0guess").await, StatusCode::FOUND);
    let api = world.request(Method::GET, "/api/channels").header("Cookie", session).send().await.unwrap();
    assert_eq!(api.status(), StatusCode::UNAUTHORIZED);
}
