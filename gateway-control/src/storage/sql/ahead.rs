//! Reading ahead: what a page of a list is going to ask for one by one is read in one query of each kind, and answered from a shelf.
//!
//! A list shows rows that name others: a grant its channel, a connection its servers. Asked for one by one, a page of two hundred
//! costs a thousand queries. Before it shows them, a list says what they name ([`Ahead`]); each kind is one query, whose rows are
//! put on the [`Shelf`] under the very queries that would be asked. Whoever asks finds the answer there, and needs not know.
//!
//! Only in transactions that read: there nothing changes meanwhile, because each is a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::{
    Columns, Row, SqlTransaction, accounts, big, channels, connections, deliveries, devices, peering, policies,
    query::{Value, query_in},
    replicas, servers, shares,
};
use crate::storage::{Ahead, ReadAhead, StorageResult};

/// Answers that were read ahead, by the text of the query and its values.
#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<&'static str, BTreeMap<Vec<Value>, Vec<Arc<Row>>>>);

impl Shelf {
    /// The rows of a query that was read ahead; none: it was not.
    pub(super) fn rows(&self, text: &'static str, values: &[Value]) -> Option<Vec<Row>> {
        if self.0.is_empty() {
            return None;
        }
        let rows = self.0.get(text)?.get(values)?;
        Some(rows.iter().map(|row| Row::Shelved(row.clone())).collect())
    }
}

/// One kind: the query that is asked one by one, and the one that answers many of them, with `{}` for the list and the values
/// that are the same for all from `$1` on.
struct Kind<'a> {
    single: &'static str,
    many: &'static str,
    same: Vec<Value>,
    /// What stands in the list.
    list: Vec<String>,
    /// The values of each single query.
    asked: Vec<Vec<Value>>,
    /// Those that a row answers.
    answers: &'a (dyn Fn(&Row) -> StorageResult<Vec<Value>> + Send + Sync),
}

fn texts<T: ToString>(ids: impl IntoIterator<Item = T>) -> Vec<String> {
    ids.into_iter().map(|id| id.to_string()).collect()
}

#[async_trait]
impl ReadAhead for SqlTransaction {
    async fn read_ahead(&mut self, what: Ahead) -> StorageResult<()> {
        let by_id = |row: &Row| -> StorageResult<Vec<Value>> { Ok(vec![row.text("id")?.into()]) };
        let by =
            |column: &'static str| move |row: &Row| -> StorageResult<Vec<Value>> { Ok(vec![row.text(column)?.into()]) };
        match what {
            Ahead::Organizations(ids) => {
                self.by_one(accounts::ORGANIZATION, accounts::ORGANIZATIONS, texts(ids), &by_id).await
            }
            Ahead::Users(ids) => self.by_one(accounts::USER, accounts::USERS, texts(ids), &by_id).await,
            Ahead::Servers(ids) => self.by_one(servers::SERVER, servers::SERVERS, texts(ids), &by_id).await,
            Ahead::Channels(ids) => self.by_one(channels::CHANNEL, channels::CHANNELS, texts(ids), &by_id).await,
            Ahead::Grants(ids) => self.by_one(channels::GRANT, channels::GRANTS, texts(ids), &by_id).await,
            Ahead::Agreements(ids) => self.by_one(peering::AGREEMENT, peering::AGREEMENTS, texts(ids), &by_id).await,
            Ahead::Devices(ids) => self.by_one(devices::DEVICE, devices::DEVICES, texts(ids), &by_id).await,
            Ahead::Revisions(ids) => {
                self.by_one(policies::REVISION, policies::REVISIONS, texts(ids), &by("server_id")).await
            }
            Ahead::Deliveries(ids) => {
                self.by_one(deliveries::DELIVERY, deliveries::DELIVERIES, texts(ids), &by("connection_id")).await
            }
            Ahead::ConnectionsOfGrants(ids) => {
                self.by_one(connections::OF_GRANT, connections::OF_GRANTS, texts(ids), &by("grant_id")).await
            }
            Ahead::ConnectionsOfShares(ids) => {
                self.by_one(shares::CONNECTIONS_OF, shares::CONNECTIONS_OF_ALL, texts(ids), &by("share_id")).await
            }
            Ahead::GrantsOfChannels(ids) => {
                self.by_one(channels::GRANTS_OF, channels::GRANTS_OF_ALL, texts(ids), &by("channel_id")).await
            }
            Ahead::Watches(ids, alive_since) => {
                let since: Value = big(alive_since).into();
                let list = texts(ids);
                let asked = list.iter().map(|id| vec![id.into(), since.clone()]).collect();
                let answers =
                    |row: &Row| -> StorageResult<Vec<Value>> { Ok(vec![row.text("server_id")?.into(), since.clone()]) };
                self.shelve(Kind {
                    single: replicas::WATCH_HEARD,
                    many: replicas::WATCHES_HEARD,
                    same: vec![since.clone()],
                    list,
                    asked,
                    answers: &answers,
                })
                .await
            }
            Ahead::Reports(ends, alive_since) => {
                let since: Value = big(alive_since).into();
                let list = texts(ends.iter().map(|(_, connection)| connection));
                let asked = ends.iter().map(|(server, connection)| {
                    vec![server.to_string().into(), connection.to_string().into(), since.clone()]
                });
                let answers = |row: &Row| -> StorageResult<Vec<Value>> {
                    Ok(vec![row.text("server_id")?.into(), row.text("connection_id")?.into(), since.clone()])
                };
                self.shelve(Kind {
                    single: replicas::REPORT,
                    many: replicas::REPORTS,
                    same: vec![since.clone()],
                    list,
                    asked: asked.collect(),
                    answers: &answers,
                })
                .await
            }
            Ahead::AgreementsWith(own, others) => {
                let own: Value = own.to_string().into();
                let answers = |row: &Row| pair(&own, row, "first_organization", "second_organization");
                let list = texts(others);
                let asked = list.iter().map(|other| vec![own.clone(), other.into()]).collect();
                self.shelve(Kind {
                    single: peering::AGREEMENT_BETWEEN,
                    many: peering::AGREEMENTS_WITH,
                    same: vec![own.clone()],
                    list,
                    asked,
                    answers: &answers,
                })
                .await
            }
            Ahead::RequestsWith(own, others, now) => {
                let (own, now): (Value, Value) = (own.to_string().into(), big(now).into());
                let answers = |row: &Row| -> StorageResult<Vec<Value>> {
                    let mut values = pair(&own, row, "from_organization", "to_organization")?;
                    values.push(now.clone());
                    Ok(values)
                };
                let list = texts(others);
                let asked = list.iter().map(|other| vec![own.clone(), other.into(), now.clone()]).collect();
                self.shelve(Kind {
                    single: peering::PENDING_BETWEEN,
                    many: peering::PENDING_WITH,
                    same: vec![own.clone(), now.clone()],
                    list,
                    asked,
                    answers: &answers,
                })
                .await
            }
        }
    }
}

/// Ourselves, and the other one of a row with two.
fn pair(own: &Value, row: &Row, one: &str, other: &str) -> StorageResult<Vec<Value>> {
    let (one, other): (Value, Value) = (row.text(one)?.into(), row.text(other)?.into());
    let them = if one == *own { other } else { one };
    Ok(vec![own.clone(), them])
}

impl SqlTransaction {
    async fn by_one(
        &mut self,
        single: &'static str,
        many: &'static str,
        list: Vec<String>,
        answers: &(dyn Fn(&Row) -> StorageResult<Vec<Value>> + Send + Sync),
    ) -> StorageResult<()> {
        let asked = list.iter().map(|id| vec![id.into()]).collect();
        self.shelve(Kind { single, many, same: Vec::new(), list, asked, answers }).await
    }

    async fn shelve(&mut self, kind: Kind<'_>) -> StorageResult<()> {
        // A change must see what it changed itself.
        if !self.is_snapshot || kind.list.is_empty() {
            return Ok(());
        }
        let rows = query_in(kind.many, kind.same, kind.list).fetch_all(self.db()).await?;
        let shelf = self.shelf.0.entry(kind.single).or_default();
        for values in kind.asked {
            shelf.entry(values).or_default();
        }
        for row in rows {
            let row = Arc::new(row);
            // What nobody asked for is left.
            if let Some(answer) = shelf.get_mut(&(kind.answers)(&row)?) {
                answer.push(row);
            }
        }
        Ok(())
    }
}
