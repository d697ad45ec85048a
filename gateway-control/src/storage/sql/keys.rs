//! The keys by which names are compared, made anew where an older version made them in another way: no query of the
//! database can fold a name.
//!
//! Two names that were different and are the same by now both stay: the younger row gets a key of its own until somebody
//! renames it. Nothing else may take either name.

use std::collections::BTreeSet;

use super::{Columns, SqlStorage, SqlTransaction, accounts::search_key_of, key, query};
use crate::storage::{StorageResult, Transaction};

/// The fact that says how the keys were made.
const FACT: &str = "name_keys";
/// Raise it when [`gateway_proto::names::fold`] answers something else than before, and add a migration, be it an empty one:
/// by its number replicas of the version before notice.
const HOW: &str = "nfkc-1";

/// A table with names.
struct Table {
    /// Every row that has its name to itself, oldest first; `scope`: where no two names are the same.
    read: &'static str,
    /// Sets the key of a row.
    write: &'static str,
}

const TABLES: &[Table] = &[
    Table {
        read: "SELECT id, name, name_key, '' AS scope FROM organizations WHERE removed_at IS NULL ORDER BY id",
        write: "UPDATE organizations SET name_key = $2 WHERE id = $1",
    },
    Table {
        read: "SELECT id, name, name_key, organization_id AS scope FROM servers WHERE removed_at IS NULL ORDER BY id",
        write: "UPDATE servers SET name_key = $2 WHERE id = $1",
    },
    Table {
        read: "SELECT id, name, name_key, server_id AS scope FROM channels WHERE removed_at IS NULL ORDER BY id",
        write: "UPDATE channels SET name_key = $2 WHERE id = $1",
    },
    Table {
        read: "SELECT id, sender_name AS name, sender_name_key AS name_key, sender_server_id AS scope FROM connections
               WHERE sender_name IS NOT NULL AND NOT ended ORDER BY id",
        write: "UPDATE connections SET sender_name_key = $2 WHERE id = $1",
    },
    Table {
        read: "SELECT id, name, name_key, COALESCE(organization_id || ' ' || kind, '') AS scope FROM devices
               WHERE removed_at IS NULL ORDER BY id",
        write: "UPDATE devices SET name_key = $2 WHERE id = $1",
    },
];

impl SqlStorage {
    /// Makes the keys anew, all or none, unless they are as this version makes them.
    pub(super) async fn renew_keys(&self) -> StorageResult<()> {
        let mut tx = self.writing().await?;
        let known = query("SELECT content FROM facts WHERE name = $1").bind(FACT).fetch_optional(tx.db()).await?;
        if known.is_some_and(|row| row.text("content").is_ok_and(|how| how == HOW)) {
            return Ok(());
        }
        for table in TABLES {
            tx.renew(table).await?;
        }
        tx.renew_search_keys().await?;
        query(
            "INSERT INTO facts (name, content) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET content = excluded.content",
        )
        .bind(FACT)
        .bind(HOW)
        .execute(tx.db())
        .await?;
        Box::new(tx).commit().await
    }
}

impl SqlTransaction {
    async fn renew(&mut self, table: &Table) -> StorageResult<()> {
        let mut taken = BTreeSet::new();
        let mut changed = Vec::new();
        for row in query(table.read).fetch_all(self.db()).await? {
            let (id, scope) = (row.text("id")?, row.text("scope")?);
            let mut fresh = key(&row.text("name")?);
            if !taken.insert((scope.clone(), fresh.clone())) {
                tracing::warn!(id, "this name looks like that of an older one: rename one of them");
                fresh = format!("{fresh} {id}");
                taken.insert((scope, fresh.clone()));
            }
            if row.text("name_key")? != fresh {
                changed.push((id, fresh));
            }
        }
        // In two steps: nobody gets a key that another row still has.
        for (id, _) in &changed {
            query(table.write).bind(id).bind(id).execute(self.db()).await?;
        }
        for (id, fresh) in &changed {
            query(table.write).bind(id).bind(fresh).execute(self.db()).await?;
        }
        Ok(())
    }

    async fn renew_search_keys(&mut self) -> StorageResult<()> {
        let rows = query("SELECT id, name, description, search_key FROM organizations").fetch_all(self.db()).await?;
        for row in rows {
            let fresh = search_key_of(&row.text("name")?, &row.text("description")?);
            if row.text("search_key")? != fresh {
                query("UPDATE organizations SET search_key = $2 WHERE id = $1")
                    .bind(row.text("id")?)
                    .bind(fresh)
                    .execute(self.db())
                    .await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Location, Storage};

    #[tokio::test]
    async fn names_that_were_different_once_both_stay_and_the_older_keeps_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(directory.path().join("control.sqlite"));
        let storage = SqlStorage::open(&location).await.unwrap();
        let mut tx = storage.writing().await.unwrap();
        for (id, name) in [("org_1", "Lab"), ("org_2", "Lab\u{200b}"), ("org_3", "Straße"), ("org_4", "Clinic")] {
            query(
                "INSERT INTO organizations (id, tenant_id, name, name_key, description, search_key, discoverable,
                 created_at, two_person_admin) VALUES ($1, $1, $2, $3, 'X', $3, $4, 1, $4)",
            )
            .bind(id)
            .bind(name)
            .bind(name.to_lowercase())
            .bind(false)
            .execute(tx.db())
            .await
            .unwrap();
        }
        query("DELETE FROM facts WHERE name = $1").bind(FACT).execute(tx.db()).await.unwrap();
        Box::new(tx).commit().await.unwrap();
        storage.close().await;

        // Twice: what is made anew stays as it is.
        for _ in 0..2 {
            let storage = SqlStorage::open(&location).await.unwrap();
            let mut tx = storage.writing().await.unwrap();
            let rows = query("SELECT name_key, search_key FROM organizations ORDER BY id").fetch_all(tx.db()).await;
            let both = |column: &str| rows.as_ref().unwrap().iter().map(|row| row.text(column).unwrap()).collect();
            let (keys, searched): (Vec<String>, Vec<String>) = (both("name_key"), both("search_key"));
            assert_eq!(keys, ["lab", "lab org_2", "strasse", "clinic"]);
            assert_eq!(searched, ["lab\nx", "lab\nx", "strasse\nx", "clinic\nx"]);
            drop(tx);
            storage.close().await;
        }
    }
}
