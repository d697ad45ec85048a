//! Whose a probe may be, by the session id it carries.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use gateway_proto::{identity::GatewayPublicKey, path::probe_session_id};

/// Which peers a probe's session id may belong to. Ids are chosen by the offering side, so two peers may share one.
#[derive(Debug, Clone, Default)]
pub struct SessionIndex(Arc<Mutex<HashMap<[u8; 8], Vec<GatewayPublicKey>>>>);

impl SessionIndex {
    /// The peers that know this id.
    pub fn peers(&self, id: &[u8; 8]) -> Vec<GatewayPublicKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    /// Whether a probe carries an id that some peer knows.
    pub fn knows(&self, probe: &[u8]) -> bool {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        probe_session_id(probe).is_some_and(|id| index.contains_key(&id))
    }

    pub(crate) fn replace(&self, peer: GatewayPublicKey, old: &[[u8; 8]], new: &[[u8; 8]]) {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in old {
            if let Some(peers) = index.get_mut(id) {
                peers.retain(|p| *p != peer);
                if peers.is_empty() {
                    index.remove(id);
                }
            }
        }
        for id in new {
            index.entry(*id).or_default().push(peer);
        }
    }
}
