//! How SQLite goes about each query: none may read a table from end to end that grows with the fleet or with time.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{connections, policies, senders};

/// The sources whose texts are the queries.
const SOURCES: &[(&str, &str)] = &[
    ("accounts", include_str!("accounts.rs")),
    ("audit", include_str!("audit.rs")),
    ("channels", include_str!("channels.rs")),
    ("connections", include_str!("connections.rs")),
    ("credentials", include_str!("credentials.rs")),
    ("deliveries", include_str!("deliveries.rs")),
    ("device_tokens", include_str!("device_tokens.rs")),
    ("devices", include_str!("devices.rs")),
    ("engines", include_str!("engines.rs")),
    ("enrollment_codes", include_str!("enrollment_codes.rs")),
    ("gateway_audits", include_str!("gateway_audits.rs")),
    ("idempotency", include_str!("idempotency.rs")),
    ("identities", include_str!("identities.rs")),
    ("links", include_str!("links.rs")),
    ("peering", include_str!("peering.rs")),
    ("policies", include_str!("policies.rs")),
    ("policy_connections", include_str!("policy_connections.rs")),
    ("policy_keys", include_str!("policy_keys.rs")),
    ("relays", include_str!("relays.rs")),
    ("replicas", include_str!("replicas.rs")),
    ("senders", include_str!("senders.rs")),
    ("servers", include_str!("servers.rs")),
    ("shares", include_str!("shares.rs")),
    ("tiers", include_str!("tiers.rs")),
    ("totp", include_str!("totp.rs")),
];

/// Queries that are put together from parts.
const COMPOSED: &[&str] = &[
    policies::MARK_SOME,
    policies::MARK_ALL,
    policies::MARK_NEIGHBOURS,
    policies::STALE_BY_AN_END,
    policies::STALE_BY_OTHERS,
    connections::OPEN_CONNECTIONS,
    connections::ALL_CONNECTIONS,
    senders::SENDERS,
    senders::SENDER,
];

/// Tables of a few rows each, and what the reconciler sweeps every ten minutes.
const SMALL: &[&str] = &[
    "relays",
    "tiers",
    "replicas",
    "removed_gateways",
    "behaviors",
    "token_keys",
    "token_terms",
    "policy_keys",
    "platform_tokens",
];
/// What only the operator of the platform does, and seldom: revoking every device token, removing a behavior, asking how
/// many gateways lag behind a new key. And what the reconciler sweeps every ten minutes, and a replica when it leaves.
const SELDOM: &[&str] = &[
    "DELETE FROM watches WHERE replica_id NOT IN",
    "DELETE FROM reports WHERE server_id NOT IN",
    "UPDATE device_tokens SET revoked_at = $1 WHERE revoked_at IS NULL",
    "SELECT (SELECT COUNT(*)",
    "SELECT COUNT(*) AS number FROM servers WHERE gateway_key IS NOT NULL AND removed_at IS NULL AND (stale OR",
    "SELECT id FROM servers WHERE gateway_key IS NOT NULL AND removed_at IS NULL LIMIT 1",
];

/// The queries of a source: its string literals that begin with a verb of SQL, but for parts of one that is composed.
fn queries(source: &str) -> Vec<String> {
    let texts = source.split('"').skip(1).step_by(2);
    let is_query = |text: &&str| ["SELECT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb));
    let is_part = |text: &&str| text.trim_end().ends_with(" AND");
    texts.filter(is_query).filter(|text| !is_part(text)).map(with_one).collect()
}

/// A query with one value in the place of a list, which is as good, in one line.
fn with_one(text: &str) -> String {
    text.replace("{}", "$9").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A database with the schema and nothing in it.
async fn empty() -> SqliteConnection {
    let mut database = SqliteConnection::connect_with(&SqliteConnectOptions::new().in_memory(true)).await.unwrap();
    super::open::MIGRATIONS.run(&mut database).await.unwrap();
    database
}

async fn plan(database: &mut SqliteConnection, query: &str) -> Vec<String> {
    let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
    let rows = sqlx::query(text).fetch_all(database).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[tokio::test]
async fn no_query_reads_a_growing_table_from_end_to_end() {
    let mut database = empty().await;
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut database)
        .await
        .unwrap();
    let mut looked_at = 0;
    let of_sources = SOURCES.iter().map(|(file, source)| (*file, queries(source)));
    for (file, queries) in of_sources.chain([("composed", COMPOSED.iter().map(|text| with_one(text)).collect())]) {
        for query in queries {
            if SELDOM.iter().any(|seldom| query.starts_with(seldom)) {
                continue;
            }
            looked_at += 1;
            for step in plan(&mut database, &query).await {
                let Some(scanned) = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next()) else {
                    continue;
                };
                // A partial index that holds only what is looked for, and what a subquery answered, are not the table.
                let is_part =
                    step.contains("USING INDEX servers_to_compile") || query.contains(") AS connections JOIN");
                let grows = tables.iter().any(|table| table == scanned) && !SMALL.contains(&scanned);
                assert!(!grows || is_part, "{file}: {step}\n{query}");
            }
        }
    }
    assert!(looked_at > 100, "{looked_at} queries found in the sources");
}

#[tokio::test]
async fn counting_connections_that_ended_reads_a_bounded_part_of_an_index_at_each_end() {
    let mut database = empty().await;
    let source = SOURCES.iter().find(|(file, _)| *file == "connections").unwrap().1;
    let counts = |query: &String| query.contains("COUNT(*)") && query.contains("ended = TRUE");
    let counting: Vec<_> = queries(source).into_iter().filter(counts).collect();
    assert_eq!(counting.len(), 1);
    assert_eq!(counting[0].matches("LIMIT $2").count(), 2, "{}", counting[0]);
    let steps = plan(&mut database, &counting[0]).await;
    for index in ["connections_of_sender", "connections_of_listener"] {
        let step = format!("SEARCH connections USING COVERING INDEX {index} (");
        assert!(steps.iter().any(|taken| taken.starts_with(&step)), "{index}: {steps:?}");
    }
}

#[tokio::test]
async fn counting_what_is_open_costs_what_is_open_and_not_what_ever_was() {
    let mut database = empty().await;
    let source = SOURCES.iter().find(|(file, _)| *file == "tiers").unwrap().1;
    let counts = |query: &String| query.contains("COUNT(*) AS number FROM grants");
    let counting: Vec<_> = queries(source).into_iter().filter(counts).collect();
    assert_eq!(counting.len(), 2, "of a channel, and of each channel of an organization");
    for query in counting {
        let steps = plan(&mut database, &query).await;
        assert!(steps.iter().any(|step| step.contains(" INDEX grants_open")), "{steps:?}\n{query}");
    }
}
