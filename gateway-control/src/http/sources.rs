//! How many connections one source holds: no single host may take the places of all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Open connections by source; no larger than the connections that are open.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

impl Sources {
    /// Lets each source hold `limit` connections, one at least.
    pub(super) fn new(limit: usize) -> Self {
        Self { open: Arc::default(), limit: limit.max(1) }
    }

    /// Counts a connection of `source` until the guard is dropped; `None`: the source holds as many as it may.
    pub(super) fn enter(&self, source: IpAddr) -> Option<SourceGuard> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(SourceGuard { sources: self.clone(), source })
    }
}

/// A connection of a source.
#[derive(Debug)]
pub(super) struct SourceGuard {
    sources: Sources,
    source: IpAddr,
}

impl Drop for SourceGuard {
    fn drop(&mut self) {
        let mut open = self.sources.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::relay::aggregate;

    use super::*;

    #[test]
    fn a_source_holds_no_more_than_its_share_and_gets_it_back() {
        let sources = Sources::new(2);
        let (one, two): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let first = sources.enter(one);
        let second = sources.enter(one);
        assert!(first.is_some() && second.is_some() && sources.enter(one).is_none());
        assert!(sources.enter(two).is_some(), "others are not concerned");
        drop(first);
        assert!(sources.enter(one).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_a_source_that_left() {
        let sources = Sources::new(2);
        drop(sources.enter([192, 0, 2, 1].into()));
        assert!(sources.open.lock().unwrap().is_empty());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let same = |text: &str| aggregate(text.parse().unwrap());
        assert_eq!(same("2001:db8::1"), same("2001:db8::ffff:1"));
        assert_ne!(same("2001:db8::1"), same("2001:db8:0:1::1"));
        assert_eq!(same("::ffff:192.0.2.1"), same("192.0.2.1"));
    }
}
