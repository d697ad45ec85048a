//! A site as a file.

use gateway_proto::{
    api::{
        engine::{EngineLink, ServerEngine},
        platform::{Behavior, Channel, DirectoryEntry, Grant, Server},
    },
    engine::plan::EndState,
    id::OrganizationId,
    peering::GrantStatus,
};
use serde_json::{Value, json};

use crate::world::{World, agreement, channel, grant, organization, page, server};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/site.example.toml");

/// An organization with these things, and the example site in its directory.
async fn world(servers: Vec<Server>, channels: Vec<Channel>, grants: Vec<Grant>) -> World {
    let world = World::signed_in().await;
    std::fs::copy(EXAMPLE, world.path("site.toml")).unwrap();
    world.control.answer("GET /api/v1/organization", 200, &organization());
    for server in &servers {
        world.control.answer(&format!("GET /api/v1/servers/{}/engine", server.id), 200, &engine(server, &[]));
    }
    world.control.answer("GET /api/v1/servers", 200, &page(servers));
    world.control.answer("GET /api/v1/channels", 200, &page(channels));
    world.control.answer("GET /api/v1/peering-requests", 200, &page(Vec::<Value>::new()));
    world.control.answer("GET /api/v1/agreements", 200, &page(vec![agreement(2, "Clinic B")]));
    world.control.answer("GET /api/v1/grants", 200, &page(grants));
    world.control.answer("POST /api/v1/servers", 201, &server(1, "lab"));
    world.control.answer("POST /api/v1/channels", 201, &channel());
    world.control.answer("POST /api/v1/grants", 201, &grant());
    world
}

/// The same that has an agreement only.
async fn begun() -> World {
    world(Vec::new(), Vec::new(), Vec::new()).await
}

/// The engine beside a server, with the channels that follow it.
fn engine(server: &Server, following: &[&Channel]) -> ServerEngine {
    let link = |(n, channel): (usize, &&Channel)| EngineLink {
        channel_id: channel.id,
        engine_channel: format!("id{n}"),
        state: EndState::Started,
    };
    ServerEngine {
        server_id: server.id,
        head: None,
        reported_at: None,
        channels: Vec::new(),
        links: following.iter().enumerate().map(link).collect(),
        proposals: Vec::new(),
    }
}

/// The example's grant, approved.
fn in_force() -> Grant {
    let expires_at = Some(grant().created_at + 90 * 86_400);
    Grant { status: GrantStatus::Active, expires_at, ..grant() }
}

/// The state and the words of each step.
fn shown(stdout: &str) -> Vec<(String, String)> {
    let steps: Vec<Value> = serde_json::from_str(stdout).unwrap();
    let text = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
    steps.iter().map(|step| (text(step, "state"), text(step, "step"))).collect()
}

#[tokio::test]
async fn a_dry_run_says_what_an_application_does_and_does_nothing() {
    let world = begun().await;
    let planned: Vec<Value> = world.run(&["apply", "-f", "site.toml", "--dry-run", "--json"]).await.json();
    let asked = world.control.asked();
    let changes = asked.iter().filter(|asked| !asked.line.starts_with("GET ") && !asked.line.ends_with("/sessions"));
    assert_eq!(changes.count(), 0, "a dry run changes nothing: {asked:?}");
    assert!(!world.path("site.partners.toml").exists());
    let steps = |shown: &[Value], state: &str| -> Vec<String> {
        assert!(shown.iter().all(|step| step["state"] == state), "{shown:?}");
        shown.iter().map(|step| step["step"].as_str().unwrap().to_owned()).collect()
    };
    let planned = steps(&planned, "planned");
    assert_eq!(
        planned,
        ["create the server 'lab'", "create the channel 'lab/adt-in'", "offer the channel 'lab/adt-in' to 'Clinic B'"]
    );
    let done: Vec<Value> = world.run(&["apply", "-f", "site.toml", "--json"]).await.json();
    assert_eq!(steps(&done, "done"), planned);
    // Each step stands on what the one before made.
    assert_eq!(world.control.asked_once("POST /api/v1/channels").body["server_id"], json!(server(1, "lab").id));
    let offered = world.control.asked_once("POST /api/v1/grants").body;
    assert_eq!(offered["channel_id"], json!(channel().id));
}

#[tokio::test]
async fn what_differs_from_the_platform_in_its_spelling_only_is_left_alone() {
    let world = world(vec![server(1, "lab")], vec![channel()], vec![in_force()]).await;
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let text = text.replace("\"lab\"", "\" LAB \"").replace("127.0.0.1:6661", "127.0.0.1:06661");
    std::fs::write(world.path("site.toml"), text).unwrap();
    let outcome = world.run(&["apply", "-f", "site.toml"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "(none)\n"), "{outcome:?}");
}

#[tokio::test]
async fn a_partner_that_renamed_itself_is_still_the_one_that_the_site_means() {
    let world = begun().await;
    // As it is when the site is applied for the second time.
    let renamed = vec![agreement(3, "Clinic B"), agreement(2, "Clinic B North")];
    world.control.answer("GET /api/v1/agreements", 200, &page(renamed));
    assert_eq!(world.run(&["apply", "-f", "site.toml"]).await.code, 0);
    let memory = std::fs::read_to_string(world.path("site.partners.toml")).unwrap();
    assert!(memory.contains(&agreement(2, "").peer_id.to_string()), "{memory}");
    let outcome = world.run(&["apply", "-f", "site.toml"]).await;
    assert!(outcome.stdout.contains("'Clinic B' (called 'Clinic B North' now)"), "{outcome:?}");
    let asked = world.control.asked();
    let offers: Vec<_> = asked.iter().filter(|asked| asked.line == "POST /api/v1/grants").collect();
    assert_eq!(offers.len(), 2);
    assert!(offers.iter().all(|offer| offer.body["agreement_id"] == json!(agreement(2, "").id)), "{offers:?}");
}

#[tokio::test]
async fn a_file_that_asks_for_what_is_refused_is_told_so_before_anything_is_done() {
    let world = begun().await;
    let text = std::fs::read_to_string(EXAMPLE).unwrap().replace("ADT feed", "Self");
    std::fs::write(world.path("site.toml"), text).unwrap();
    for run in [&["apply", "-f", "site.toml", "--dry-run"][..], &["apply", "-f", "site.toml"]] {
        let outcome = world.run(run).await;
        assert_eq!(outcome.code, 64, "{outcome:?}");
        let words = "site.toml is not usable:\n  - the channel 'lab/adt-in': publish may not be \"Self\"";
        assert!(outcome.stderr.contains(words), "{outcome:?}");
    }
    let asked = world.control.asked();
    assert!(!asked.iter().any(|asked| asked.line == "POST /api/v1/servers"), "{asked:?}");
}

#[tokio::test]
async fn a_dry_run_refuses_the_kind_of_exchange_that_the_platform_would_refuse() {
    let world = begun().await;
    let behavior = |name: &str| Behavior { name: name.into(), description: String::new() };
    world.control.answer("GET /api/v1/behaviors", 200, &page(vec![behavior("hl7v2-mllp"), behavior("tcp")]));
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let engine = "engine = \"127.0.0.1:6661\"";
    let unknown = text.replace(engine, &format!("behavior = \"hl7v3-mllp\"\n{engine}"));
    std::fs::write(world.path("site.toml"), unknown).unwrap();
    let outcome = world.run(&["apply", "-f", "site.toml", "--dry-run"]).await;
    assert_eq!(outcome.code, 64, "{outcome:?}");
    let words = "'lab/adt-in': behavior 'hl7v3-mllp' is none of this platform: known are hl7v2-mllp, tcp";
    assert!(outcome.stderr.contains(words), "{outcome:?}");
    // Nor is a grant narrowed to what there is not.
    let narrowed = text.replace("# behaviors = [\"hl7v2-mllp\"]", "behaviors = [\"hl7v2-mllp\", \"nonsense\"]");
    std::fs::write(world.path("site.toml"), narrowed).unwrap();
    let outcome = world.run(&["apply", "-f", "site.toml", "--dry-run"]).await;
    assert_eq!(outcome.code, 64, "{outcome:?}");
    let words = "the grant of 'lab/adt-in' to 'Clinic B': behavior 'nonsense' is none of this platform";
    assert!(outcome.stderr.contains(words), "{outcome:?}");
}

#[tokio::test]
async fn a_partner_named_by_its_id_is_asked_if_the_directory_has_it_and_waited_for_otherwise() {
    let world = begun().await;
    let (there, hidden) = (OrganizationId::new(1, [5; 10]), OrganizationId::new(1, [6; 10]));
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let peers = format!("\n[[peer]]\norganization = \"{there}\"\n[[peer]]\norganization = \"{hidden}\"\n");
    std::fs::write(world.path("site.toml"), text + &peers).unwrap();
    let entry =
        DirectoryEntry { id: there, name: "Clinic E".into(), description: String::new(), relation: "none".into() };
    world.control.answer(&format!("GET /api/v1/directory/{there}"), 200, &entry);
    let planned: Vec<Value> = world.run(&["apply", "-f", "site.toml", "--dry-run", "--json"]).await.json();
    let state_of = |id: OrganizationId| {
        let step = planned.iter().find(|step| step["step"].as_str().unwrap().contains(&id.to_string()));
        step.map(|step| step["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        (state_of(there).as_deref(), state_of(hidden).as_deref()),
        (Some("planned"), Some("waits")),
        "{planned:?}"
    );
    let asked = world.control.asked();
    let whole = asked.iter().find(|asked| asked.line.starts_with("GET /api/v1/directory?"));
    assert!(whole.is_none(), "the directory is not read for an id: {whole:?}");
}

#[tokio::test]
async fn the_step_that_failed_is_named_in_the_list_and_in_the_error() {
    let refused = json!({"code": "conflict", "status": 409, "detail": "the tier allows no more channels"});
    let world = World::signed_in().await;
    for line in ["servers", "channels", "peering-requests", "grants"] {
        world.control.answer(&format!("GET /api/v1/{line}"), 200, &page(Vec::<Value>::new()));
    }
    world.control.answer("GET /api/v1/organization", 200, &organization());
    world.control.answer("GET /api/v1/agreements", 200, &page(vec![agreement(2, "Clinic B")]));
    world.control.answer("POST /api/v1/servers", 201, &server(1, "lab"));
    world.control.answer("POST /api/v1/channels", 409, &refused);
    std::fs::copy(EXAMPLE, world.path("site.toml")).unwrap();
    let outcome = world.run(&["apply", "-f", "site.toml", "--json"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let expected = [
        ("done", "create the server 'lab'"),
        ("failed", "create the channel 'lab/adt-in'"),
        ("skipped", "offer the channel 'lab/adt-in' to 'Clinic B'"),
    ];
    assert_eq!(shown(&outcome.stdout), expected.map(|(state, step)| (state.to_owned(), step.to_owned())));
    let words = "could not create the channel 'lab/adt-in': ";
    assert!(outcome.stderr.contains(words) && outcome.stderr.contains("no more channels"), "{outcome:?}");
}

#[tokio::test]
async fn a_partner_that_cannot_be_asked_stops_nothing_of_the_others() {
    let world = begun().await;
    let (gone, other) = (OrganizationId::new(1, [5; 10]), OrganizationId::new(1, [6; 10]));
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let peers = format!("\n[[peer]]\norganization = \"{gone}\"\n[[peer]]\norganization = \"{other}\"\n");
    std::fs::write(world.path("site.toml"), text + &peers).unwrap();
    let entry =
        |id, name: &str| DirectoryEntry { id, name: name.into(), description: String::new(), relation: "none".into() };
    for (id, name) in [(gone, "Clinic E"), (other, "Clinic F")] {
        world.control.answer(&format!("GET /api/v1/directory/{id}"), 200, &entry(id, name));
    }
    let hidden = json!({"code": "not_found", "status": 404, "detail": "there is no such organization"});
    let often = json!({"code": "rate_limited", "status": 429, "detail": "asked in vain too often"});
    world.control.answer("POST /api/v1/peering-requests", 404, &hidden);
    world.control.answer("POST /api/v1/peering-requests", 429, &often);
    let outcome = world.run(&["apply", "-f", "site.toml", "--json"]).await;
    let states: Vec<_> = shown(&outcome.stdout).into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, ["done", "done", "failed", "failed", "done"], "{outcome:?}");
    world.control.asked_once("POST /api/v1/grants");
    // Not now is worse than no, and both are told with their partner.
    assert_eq!(outcome.code, 2, "{outcome:?}");
    let words = [format!("could not ask '{gone}'"), format!("could not ask '{other}'"), "2 steps failed".to_owned()];
    assert!(words.iter().all(|words| outcome.stderr.contains(words)), "{outcome:?}");
}

#[tokio::test]
async fn a_control_plane_that_can_do_nothing_now_is_not_asked_for_the_rest() {
    let world = World::signed_in().await;
    for line in ["servers", "channels", "peering-requests", "agreements", "grants"] {
        world.control.answer(&format!("GET /api/v1/{line}"), 200, &page(Vec::<Value>::new()));
    }
    world.control.answer("GET /api/v1/organization", 200, &organization());
    let away = json!({"code": "unavailable", "status": 503, "detail": "the database is away"});
    world.control.answer("POST /api/v1/servers", 503, &away);
    std::fs::write(world.path("site.toml"), "[[server]]\nname = \"a\"\n[[server]]\nname = \"b\"\n").unwrap();
    let outcome = world.run(&["apply", "-f", "site.toml", "--json"]).await;
    let states: Vec<_> = shown(&outcome.stdout).into_iter().map(|(state, _)| state).collect();
    assert_eq!((outcome.code, states), (2, vec!["failed".to_owned(), "skipped".to_owned()]));
    world.control.asked_once("POST /api/v1/servers");
}

#[tokio::test]
async fn a_channel_that_follows_its_engine_is_neither_moved_back_nor_made_again() {
    let lab = server(1, "lab");
    for name in ["adt-in", "adt-new"] {
        let followed = Channel { name: name.into(), engine: "127.0.0.1:7771".into(), ..channel() };
        let world = World::signed_in().await;
        let links = engine(&lab, &[&followed]);
        world.control.answer(&format!("GET /api/v1/servers/{}/engine", lab.id), 200, &links);
        world.control.answer("GET /api/v1/organization", 200, &organization());
        world.control.answer("GET /api/v1/servers", 200, &page(vec![lab.clone()]));
        world.control.answer("GET /api/v1/channels", 200, &page(vec![followed]));
        world.control.answer("GET /api/v1/peering-requests", 200, &page(Vec::<Value>::new()));
        world.control.answer("GET /api/v1/agreements", 200, &page(vec![agreement(2, "Clinic B")]));
        world.control.answer("GET /api/v1/grants", 200, &page(vec![in_force()]));
        std::fs::copy(EXAMPLE, world.path("site.toml")).unwrap();
        let outcome = world.run(&["apply", "-f", "site.toml", "--json"]).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let shown = shown(&outcome.stdout);
        assert!(matches!(&shown[..], [(state, _)] if state == "waits"), "{name}: {shown:?}");
        assert!(shown[0].1.contains("127.0.0.1:7771") && shown[0].1.contains("let the file say so"), "{shown:?}");
    }
}
