//! A storage that fails when it is told so.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;

use crate::storage::{NewsLine, SqlStorage, Storage, StorageError, StorageResult, Transaction};

/// With what the next changes fail to begin, in this order; empty: with nothing.
pub(crate) type Faults = Arc<Mutex<VecDeque<StorageError>>>;

#[derive(Debug)]
pub(super) struct Failing {
    pub(super) storage: SqlStorage,
    pub(super) faults: Faults,
}

#[async_trait]
impl Storage for Failing {
    async fn read(&self) -> StorageResult<Box<dyn Transaction>> {
        self.storage.read().await
    }

    async fn read_for_gateways(&self) -> StorageResult<Box<dyn Transaction>> {
        self.storage.read_for_gateways().await
    }

    async fn begin(&self) -> StorageResult<Box<dyn Transaction>> {
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(fault) => Err(fault),
            None => self.storage.begin().await,
        }
    }

    async fn ping(&self) -> StorageResult<()> {
        self.storage.ping().await
    }

    fn news_line(&self) -> Option<Box<dyn NewsLine>> {
        self.storage.news_line()
    }

    async fn lead(&self) -> StorageResult<bool> {
        self.storage.lead().await
    }

    async fn close(&self) {
        self.storage.close().await;
    }
}
