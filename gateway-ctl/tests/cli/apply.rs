//! A site as a file.

use gateway_proto::{
    api::platform::{Agreement, Channel, Grant, Server},
    id::{AgreementId, ChannelId, GrantId, OrganizationId},
    peering::{AgreementStatus, GrantStatus},
};
use serde_json::{Value, json};

use crate::world::{World, organization, page, server};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/site.example.toml");

fn agreement(peer: u8, name: &str) -> Agreement {
    Agreement {
        id: AgreementId::new(1, [peer; 10]),
        peer_id: OrganizationId::new(1, [peer; 10]),
        peer_name: name.into(),
        status: AgreementStatus::Active,
        suspended_by_us: false,
        suspended_by_peer: false,
        created_at: 1_760_000_000,
        ended_at: None,
    }
}

fn channel() -> Channel {
    Channel {
        id: ChannelId::new(1, [7; 10]),
        server_id: server(1, "lab").id,
        name: "adt-in".into(),
        engine: "127.0.0.1:6661".into(),
        behavior: "hl7v2-mllp".into(),
        published: true,
        public_name: "ADT feed".into(),
        public_description: "Admissions, discharges, transfers".into(),
        created_at: 1_760_000_000,
    }
}

fn grant() -> Grant {
    Grant {
        id: GrantId::new(1, [0; 10]),
        agreement_id: agreement(2, "").id,
        channel_id: channel().id,
        endpoint: "ADT feed".into(),
        direction: "given".into(),
        peer_name: "Clinic B".into(),
        behavior: "hl7v2-mllp".into(),
        status: GrantStatus::Pending,
        connection_id: None,
        expires_at: None,
        max_streams: 32,
        staleness_secs: 259_200,
        require_post_quantum: false,
        created_at: 1_760_000_000,
    }
}

/// An organization with these things, and the example site in its directory.
async fn world(servers: Vec<Server>, channels: Vec<Channel>, grants: Vec<Grant>) -> World {
    let world = World::signed_in().await;
    std::fs::copy(EXAMPLE, world.path("site.toml")).unwrap();
    world.control.answer("GET /api/v1/organization", 200, &organization());
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
    let granted = Grant { status: GrantStatus::Active, ..grant() };
    let world = world(vec![server(1, "lab")], vec![channel()], vec![granted]).await;
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
