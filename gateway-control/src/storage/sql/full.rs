//! A database whose disk is full is told apart from one that is away: it can be read.

use super::{Location, Pools, SqlStorage, query};
use crate::{
    service::ServiceError,
    storage::{Storage, StorageError},
};

#[tokio::test]
async fn a_full_disk_is_called_one_and_what_is_there_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqlStorage::open(&Location::Sqlite(directory.path().join("control.sqlite"))).await.unwrap();
    let Pools::Sqlite { writer, .. } = &storage.pools else { panic!("another database") };
    // As large as it is, and no larger.
    sqlx::query("PRAGMA max_page_count = 1").execute(writer).await.unwrap();
    let mut tx = storage.writing().await.unwrap();
    let mut refused = None;
    for n in 0..1_000 {
        let insert = query("INSERT INTO facts (name, content) VALUES ($1, $2)").bind(format!("fact {n}"));
        if let Err(error) = insert.bind("x".repeat(4096)).execute(tx.db()).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.unwrap();
    assert!(matches!(refused, StorageError::Full(_)), "{refused:?}");
    let told = ServiceError::from(refused);
    assert!(matches!(told, ServiceError::Unavailable(_)) && told.to_string().contains("disk"), "{told}");
    drop(tx);
    storage.ping().await.unwrap();
    drop(storage.read().await.unwrap());
    storage.close().await;
}

#[tokio::test]
async fn what_became_read_only_is_called_so_and_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqlStorage::open(&Location::Sqlite(directory.path().join("control.sqlite"))).await.unwrap();
    let Pools::Sqlite { readers, .. } = &storage.pools else { panic!("another database") };
    // These refuse to write with the code of a file system that has become read-only.
    let refused = sqlx::query("INSERT INTO facts (name, content) VALUES ('a', 'b')").execute(readers).await;
    let refused = StorageError::from(refused.unwrap_err());
    assert!(matches!(refused, StorageError::ReadOnly(_)), "{refused:?}");
    let told = ServiceError::from(refused);
    assert!(matches!(told, ServiceError::Unavailable(_)) && told.to_string().contains("read-only"), "{told}");
    storage.ping().await.unwrap();
    storage.close().await;
}
