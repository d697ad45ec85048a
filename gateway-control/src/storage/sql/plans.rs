//! How SQLite goes about each query: none may read a table from end to end that grows with the fleet or with time.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

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
    ("gateway_audits", include_str!("gateway_audits.rs")),
    ("idempotency", include_str!("idempotency.rs")),
    ("identities", include_str!("identities.rs")),
    ("links", include_str!("links.rs")),
    ("peering", include_str!("peering.rs")),
    ("policy_keys", include_str!("policy_keys.rs")),
    ("replicas", include_str!("replicas.rs")),
    ("servers", include_str!("servers.rs")),
    ("shares", include_str!("shares.rs")),
    ("tiers", include_str!("tiers.rs")),
    ("totp", include_str!("totp.rs")),
];

/// Tables of a few rows each, and what the reconciler sweeps every ten minutes.
const SMALL: &[&str] = &[
    "relays",
    "tiers",
    "replicas",
    "removed_gateways",
    "watches",
    "reports",
    "behaviors",
    "token_keys",
    "token_terms",
    "policy_keys",
    "platform_tokens",
];
/// What only the operator of the platform does, and seldom: revoking every device token, removing a behavior, asking how
/// many gateways lag behind a new key.
const SELDOM: &[&str] = &[
    "UPDATE device_tokens SET revoked_at = $1 WHERE revoked_at IS NULL",
    "SELECT (SELECT COUNT(*)",
    "SELECT COUNT(*) AS number FROM servers WHERE gateway_key IS NOT NULL AND removed_at IS NULL AND applied_revision",
];

/// The queries of a source: its string literals that begin with a verb of SQL.
fn queries(source: &str) -> Vec<String> {
    let texts = source.split('"').skip(1).step_by(2);
    let is_query = |text: &&str| ["SELECT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb));
    // A list is as good as one value.
    let one = |text: &str| text.replace("{}", "$9").split_whitespace().collect::<Vec<_>>().join(" ");
    texts.filter(is_query).map(one).collect()
}

async fn plan(database: &mut SqliteConnection, query: &str) -> Vec<String> {
    let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
    let rows = sqlx::query(text).fetch_all(database).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[tokio::test]
async fn no_query_reads_a_growing_table_from_end_to_end() {
    let mut database = SqliteConnection::connect_with(&SqliteConnectOptions::new().in_memory(true)).await.unwrap();
    super::open::MIGRATIONS.run(&mut database).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut database)
        .await
        .unwrap();
    let mut looked_at = 0;
    for (file, source) in SOURCES {
        for query in queries(source) {
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
