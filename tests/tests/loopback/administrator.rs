//! The stock Administrator's ways at a partner's engine: its launcher, its message browser, its sessions.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_net::tls::engine_client_config;
use gateway_tests::{ctl::items, wait};
use reqwest::{Client, Method};

use super::admin::{Administrator, Asked, CHANNEL, FORM, Scene, XML};

const LIMIT: Duration = Duration::from_secs(20);
/// The owner's gateway is away this long: less than it takes until the tunnel to it is known to be dead.
const AWAY: Duration = Duration::from_secs(4);

/// What opening the message browser and a message in it asks for, and whether that is patient data.
const BROWSER: [(Asked, bool); 8] = [
    (("GET", "/channels/ID/connectorNames", None), false),
    (("GET", "/channels/ID/metaDataColumns", None), false),
    (("GET", "/channels/ID/messages/maxMessageId", None), false),
    (("GET", "/channels/ID/messages/count", None), false),
    (
        (
            "POST",
            "/channels/ID/messages/_search?includeContent=false&offset=0&limit=21",
            Some((XML, "<messageFilter/>")),
        ),
        true,
    ),
    (("GET", "/channels/ID/messages/1", None), true),
    (("GET", "/channels/ID/messages/1/attachments", None), true),
    (("POST", "/channels/_auditAccessedPHIMessage", Some((XML, "<map/>"))), false),
];

#[tokio::test]
async fn the_message_browser_works_where_patient_data_was_offered_and_says_why_where_it_was_not() -> anyhow::Result<()>
{
    let scene = Scene::set().await?;
    let mut offered = Vec::new();
    for (options, patient_data) in [(&[][..], false), (&["--patient-data"][..], true)] {
        let (id, address) = scene.connect(options).await?;
        let administrator = Administrator::sign_in(&address, "/api/4.5.2").await?;
        for ((method, path, body), is_patient_data) in BROWSER {
            let path = path.replace("ID", CHANNEL);
            let answer = administrator.send(method.parse()?, &path, body).await?;
            if is_patient_data && !patient_data {
                ensure!(answer.status() == 403, "{method} {path}: {}", answer.status());
                let text = answer.text().await?;
                ensure!(text.contains("needs the option patient data"), "{method} {path}: {text}");
            } else {
                ensure!(answer.status().is_success(), "{method} {path}: {}", answer.status());
            }
        }
        // Reading messages is no leave to send, change or remove one.
        for (method, path) in [
            ("POST", "/channels/ID/messages"),
            ("POST", "/channels/ID/messages/_reprocess"),
            ("DELETE", "/channels/ID/messages/1"),
            ("DELETE", "/channels/ID/messages/_removeAll"),
        ] {
            let status = administrator.status(method.parse()?, &path.replace("ID", CHANNEL), None).await?;
            ensure!(status == 403, "{method} {path}: {status}");
        }
        // Both sides see what was offered.
        for (profile, site) in [("north", &scene.north), ("south", &scene.south)] {
            let shown = scene.platform.ctl.json(&["admin", "show", &id, "--profile", profile]).await?;
            ensure!(shown["admin"]["scope"]["patient_data"] == patient_data, "{profile}: {shown}");
            let seen = site.seen(&id).await?.context("the connection")?;
            ensure!(seen.admin.is_some_and(|scope| scope.patient_data == patient_data), "{}: {seen:?}", site.name);
        }
        offered.push(id);
    }
    // What was read stands in the owner's log, by operation and never by message.
    let audit = ["gateway", "audit", "list", "--act", "admin", "--limit", "1000", "--socket", scene.south.socket()];
    let audit = scene.platform.ctl.json(&audit).await?;
    let read = items(&audit)?.iter().filter(|call| call["path"] == "/channels/{channelId}/messages/{messageId}");
    let read: Vec<_> = read.filter(|call| call["method"] == "GET").collect();
    ensure!(read.len() == 2 && read[0]["status"] == 403 && read[1]["status"] == 200, "{read:?}");
    ensure!(read[1]["connection"] == offered[1].as_str() && read[1]["class"] == "R#", "{read:?}");
    Ok(())
}

#[tokio::test]
async fn the_launcher_comes_back_to_the_gateway_with_everything_it_loads() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (_, address) = scene.connect(&[]).await?;
    let administrator = Administrator::sign_in(&address, "/api").await?;
    let port = address.rsplit(':').next().context("a port")?;
    let get =
        async |url: String| anyhow::Ok(administrator.client.get(url).send().await?.error_for_status()?.text().await?);
    // By address and by name, with the parameters that the launcher adds.
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        let here = format!("https://{host}");
        for start in ["/webstart.jnlp", "/webstart", "/webstart.jnlp?maxHeapSize=512m&time=1795288425730"] {
            let file = get(format!("{here}{start}")).await?;
            ensure!(file.contains(&format!("codebase=\"{here}\"")), "{start}: {file}");
            // The engine wrote its own port here, whatever it was asked on.
            ensure!(
                file.contains(&format!("<argument>{here}</argument><argument>4.5.2</argument>")),
                "{start}: {file}"
            );
            ensure!(!file.contains(":8443") && !file.contains(&scene.engine.https()?.to_string()), "{start}: {file}");
            let jar = between(&file, "<jar download=\"eager\" href=\"", "\"").context("a jar")?;
            ensure!(get(format!("{here}/{jar}")).await?.contains(jar), "{jar}");
            let extension = between(&file, "<extension href=\"", "\"").context("an extension")?;
            ensure!(get(format!("{here}/{extension}")).await?.contains("<component-desc/>"), "{extension}");
        }
    }
    // The engine answers nothing to a parameter that it does not know; that is its business.
    ensure!(get(format!("{address}/webstart.jnlp?other=1")).await?.is_empty());
    // What the argument names is where its user signs in, under the versioned path, as the Administrator does.
    let administrator = Administrator::sign_in(&format!("https://localhost:{port}"), "/api/4.5.2").await?;
    ensure!(administrator.status(Method::GET, "/channels/statuses", None).await? == 200);
    Ok(())
}

#[tokio::test]
async fn the_engines_own_rules_of_headers_sessions_and_paths_are_met_through_the_gateway() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (_, address) = scene.connect(&[]).await?;
    let administrator = Administrator::sign_in(&address, "/api").await?;
    let client: &Client = &administrator.client;
    let plain = async |path: &str, cookie: &str| {
        let request = client.get(format!("{address}{path}")).header("Cookie", cookie);
        anyhow::Ok(request.header("X-Requested-With", "x").send().await?.status().as_u16())
    };
    // Without X-Requested-With the engine answers 400; the gateway does not add it.
    let bare = client.get(format!("{address}/api/channels/idsAndNames")).header("Cookie", &administrator.cookie);
    ensure!(bare.send().await?.status() == 400);
    // A session is one of its path, and nobody else's.
    ensure!(plain("/api/channels/idsAndNames", &administrator.cookie).await? == 200);
    ensure!(plain("/api/4.5.2/channels/idsAndNames", &administrator.cookie).await? == 401);
    ensure!(plain("/api/4.5.1/channels/idsAndNames", &administrator.cookie).await? == 404);
    ensure!(plain("/api/channels/idsAndNames", "JSESSIONID=node0guess").await? == 401);
    // Two without a sign-in.
    ensure!(plain("/api/server/version", "").await? == 200 && plain("/api/server/status", "").await? == 200);
    // Text where text is asked for, 406 where the engine has none.
    let json = client.get(format!("{address}/api/server/version")).header("X-Requested-With", "x");
    ensure!(json.header("Accept", "application/json").send().await?.status() == 406);
    // One sign-in and a hundred calls: the password was checked once.
    let before = scene.engine.logins().await?;
    for _ in 0..100 {
        ensure!(administrator.status(Method::GET, "/server/id", None).await? == 200);
    }
    ensure!(scene.engine.logins().await? == before, "the gateway signed in by itself");
    // Signed out is signed out.
    ensure!(administrator.status(Method::POST, "/users/_logout", None).await? < 300);
    let gone = async || Ok((plain("/api/channels/idsAndNames", &administrator.cookie).await? == 401).then_some(()));
    wait::until(LIMIT, "the session is over", gone).await?;
    let refused = Some((FORM, "channelId=x"));
    ensure!(administrator.status(Method::POST, "/channels/_stop", refused).await? == 403, "refused all the same");
    Ok(())
}

#[tokio::test]
async fn a_call_made_while_the_owners_gateway_was_killed_is_held_and_answered() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let (_, address) = scene.connect(&[]).await?;
    let signed_in = Administrator::sign_in(&address, "/api").await?;
    scene.south.gateway.kill_and_reap();
    // On a connection of its own: the one that was open goes with its stream.
    let client = Client::builder().tls_backend_preconfigured(engine_client_config(None)).no_proxy().build()?;
    let administrator = Administrator { client, ..signed_in };
    let south = &mut scene.south;
    let back = async {
        tokio::time::sleep(AWAY).await;
        south.restart().await
    };
    let call = administrator.status(Method::POST, "/codeTemplates/_getSummary", Some((XML, "<map/>")));
    let (status, restarted) = tokio::join!(call, back);
    restarted?;
    let status = status?;
    ensure!(status == 200, "the call was answered with {status}");
    Ok(())
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

#[tokio::test]
async fn the_web_dashboard_signs_in_by_its_form_and_polls_with_its_own_cookie() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (_, address) = scene.connect(&[]).await?;
    let client = Client::builder()
        .tls_backend_preconfigured(engine_client_config(None))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let page = async |page: &str| client.get(format!("{address}/webadmin{page}")).send().await;
    let send = async |form: &'static str| {
        let request = client.post(format!("{address}/webadmin/Login.action"));
        request.header("Content-Type", FORM).body(form).send().await
    };
    let start = page("").await?;
    ensure!(start.status() == 302 && location(&start)? == format!("{address}/webadmin/"), "{start:?}");
    ensure!(page("/").await?.text().await?.contains("Sign in"));
    ensure!(page("/DashboardStatistics.action").await?.status() == 302, "nobody has signed in");
    let wrong = send("op=login&username=admin&password=wrong").await?;
    ensure!(wrong.status() == 200 && wrong.headers().get("set-cookie").is_none(), "{wrong:?}");

    let signed_in = send("op=login&username=admin&password=admin&version=4.5.2").await?;
    let cookie = signed_in.headers().get("set-cookie").context("no cookie")?.to_str()?.to_owned();
    ensure!(signed_in.status() == 302 && cookie.contains("Path=/webadmin"), "{signed_in:?}");
    let next = location(&signed_in)?;
    ensure!(next.starts_with(&address), "the browser is sent past the gateway: {next}");
    let session = cookie.split(';').next().unwrap_or_default();
    // As often as a page polls that is left open for a while.
    for _ in 0..5 {
        let polled = client.get(&next).header("Cookie", session).send().await?;
        let (status, text) = (polled.status(), polled.text().await?);
        ensure!(status == 200 && text.contains(CHANNEL), "{status}: {text}");
    }
    // Its session is none of the API, and its sign-in is guarded as every other.
    let api = client.get(format!("{address}/api/channels")).header("X-Requested-With", "x").header("Cookie", session);
    ensure!(api.send().await?.status() == 401);
    ensure!(send("op=login&username=bypass&password=bypass").await?.status() == 403);
    ensure!(client.post(&next).header("Cookie", session).send().await?.status() == 403, "it reads, and posts nothing");
    Ok(())
}

fn location(answer: &reqwest::Response) -> anyhow::Result<String> {
    Ok(answer.headers().get("location").context("it leads nowhere")?.to_str()?.to_owned())
}
