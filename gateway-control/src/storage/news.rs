//! What replicas tell each other through the database: sent with the commit of a change, heard by all the others.

use async_trait::async_trait;
use gateway_proto::id::ServerId;
use serde::{Deserialize, Serialize};

use super::StorageResult;

/// Consequences of a committed change for those who did not make it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct News {
    /// The replica that tells; it knows already.
    pub from: String,
    /// Servers with a newer policy.
    pub changed: Vec<ServerId>,
    /// Servers whose gateway was removed.
    pub removed: Vec<ServerId>,
    /// Servers whose gateway watches at the telling replica from now on.
    pub moved: Vec<ServerId>,
    /// There is work for the reconciler.
    pub backlog: bool,
}

impl News {
    /// Whether nobody needs to hear it.
    pub fn is_empty(&self) -> bool {
        *self == Self { from: self.from.clone(), ..Self::default() }
    }

    /// The same in pieces of at most `size` servers: what carries them has a largest size.
    pub fn pieces(self, size: usize) -> Vec<Self> {
        let empty = Self { from: self.from.clone(), ..Self::default() };
        let mut pieces = Vec::new();
        pieces.extend(self.changed.chunks(size).map(|ids| Self { changed: ids.to_vec(), ..empty.clone() }));
        pieces.extend(self.removed.chunks(size).map(|ids| Self { removed: ids.to_vec(), ..empty.clone() }));
        pieces.extend(self.moved.chunks(size).map(|ids| Self { moved: ids.to_vec(), ..empty.clone() }));
        if self.backlog {
            pieces.push(Self { backlog: true, ..empty });
        }
        pieces
    }
}

/// What a replica hears.
#[derive(Debug)]
pub enum Heard {
    /// Another replica, or we ourselves, told this.
    News(News),
    /// The line was down: anything may have happened meanwhile.
    Gap,
}

/// The line on which news come.
#[async_trait]
pub trait NewsLine: Send {
    /// Waits for the next news; an error: the line is down, and asking again tries to mend it.
    async fn next(&mut self) -> StorageResult<Heard>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_everything_once() {
        let ids: Vec<_> = (0..5).map(|n| ServerId::new(n, [0; 10])).collect();
        let news = News {
            from: "a".into(),
            changed: ids.clone(),
            removed: ids[..1].to_vec(),
            backlog: true,
            ..News::default()
        };
        let pieces = news.pieces(2);
        assert_eq!(pieces.len(), 5);
        assert!(pieces.iter().all(|piece| piece.from == "a" && !piece.is_empty()));
        let changed: Vec<_> = pieces.iter().flat_map(|piece| piece.changed.clone()).collect();
        assert_eq!(changed, ids);
        assert!(News { from: "a".into(), ..News::default() }.is_empty());
    }
}
