//! Names wherever an id is asked for. An id is taken as it is; a name is looked up in the list of its kind; a name that fits several
//! is an error that lists them, because acting on the wrong one could cut a hospital off.
//!
//! What a partner has is called as the partner likes, with slashes too. So `PEER/NAME` is what that peer has and nothing else: a name
//! of somebody else's that reads the same is never meant by it.

use std::{collections::BTreeSet, fmt::Display, str::FromStr};

use gateway_proto::names::fold;

use crate::output::text::printable;

/// Candidates listed in an error at most.
const MAX_CANDIDATES: usize = 20;

/// Something with an id that people call by a name.
pub(crate) trait Named {
    /// Its id.
    type Id: FromStr + Display + Copy + PartialEq;
    /// What it is, in words.
    const KIND: &'static str;
    /// The command that lists it.
    const LIST: &'static str;

    /// Its id.
    fn id(&self) -> Self::Id;
    /// What people may call it.
    fn names(&self) -> Vec<String>;
    /// The peer it is with, who may have chosen its name: `PEER/NAME` means it too, and its name alone does where it holds no slash.
    /// None: it has nothing to do with a peer.
    fn peer(&self) -> Option<&str> {
        None
    }
    /// How it is told from others of the same name.
    fn describe(&self) -> String;
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// Nothing has this name.
    #[error("there is no {kind} '{wanted}': see `gateway-ctl {list}`")]
    Unknown {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        wanted: String,
        /// Command that lists the kind.
        list: &'static str,
    },
    /// Several things have this name.
    #[error("'{wanted}' fits several of kind {kind}; say which one by its id:{candidates}")]
    Ambiguous {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        wanted: String,
        /// A line for each.
        candidates: String,
    },
    /// It reads as a peer and a name, and that peer has no such thing.
    #[error(
        "no peer has a {kind} that is called '{wanted}' as PEER/NAME; others are called so without their peer, say which one as \
         PEER/{wanted} or by its id:{candidates}"
    )]
    OtherPeers {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        wanted: String,
        /// A line for each.
        candidates: String,
    },
}

/// The one that `wanted` means: by id, by exact name, by name as the platform compares names, in this order. Where several of one peer
/// fit, only those that `prefer` points at count, if there are any: "approve ADT" means the grant that waits for approval, not last
/// year's.
pub(crate) fn pick<'a, T: Named>(
    wanted: &str,
    items: &'a [T],
    prefer: impl Fn(&T) -> bool,
) -> Result<&'a T, ResolveError> {
    if let Ok(id) = wanted.parse::<T::Id>()
        && let Some(item) = items.iter().find(|item| item.id() == id)
    {
        return Ok(item);
    }
    let mut matches = named(wanted, items)?;
    let is_exact = |item: &&T| item.names().iter().chain(&full_names(*item)).any(|name| name == wanted);
    if matches.iter().any(is_exact) {
        matches.retain(is_exact);
    }
    if matches.iter().any(|item| prefer(item)) {
        matches.retain(|item| prefer(item));
    }
    match matches.as_slice() {
        [] => Err(ResolveError::Unknown { kind: T::KIND, wanted: wanted.to_owned(), list: T::LIST }),
        [item] => Ok(item),
        several => Err(ambiguous(wanted, several)),
    }
}

/// All that have this name, in any spelling: with their peer, which is one only, or else without.
fn named<'a, T: Named>(wanted: &str, items: &'a [T]) -> Result<Vec<&'a T>, ResolveError> {
    let folded = fold(wanted);
    let is_called = |names: Vec<String>| names.iter().any(|name| fold(name) == folded);
    let with_peer: Vec<&T> = items.iter().filter(|item| is_called(full_names(*item))).collect();
    let peers: BTreeSet<String> = with_peer.iter().filter_map(|item| item.peer()).map(fold).collect();
    match peers.len() {
        0 => {}
        1 => return Ok(with_peer),
        // `A/b/c` is the `b/c` of A, and the `c` of one that is called `A/b`.
        _ => return Err(ambiguous(wanted, &with_peer)),
    }
    let alone: Vec<&T> = items.iter().filter(|item| is_called(item.names())).collect();
    if folded.contains('/') && alone.iter().any(|item| item.peer().is_some()) {
        let candidates = lines(&alone);
        return Err(ResolveError::OtherPeers { kind: T::KIND, wanted: wanted.to_owned(), candidates });
    }
    Ok(alone)
}

fn full_names<T: Named>(item: &T) -> Vec<String> {
    let peer = item.peer();
    peer.map_or_else(Vec::new, |peer| item.names().iter().map(|name| format!("{peer}/{name}")).collect())
}

fn ambiguous<T: Named>(wanted: &str, items: &[&T]) -> ResolveError {
    ResolveError::Ambiguous { kind: T::KIND, wanted: wanted.to_owned(), candidates: lines(items) }
}

fn lines<T: Named>(items: &[&T]) -> String {
    let mut text: String = items
        .iter()
        .take(MAX_CANDIDATES)
        .map(|item| format!("\n  {}  {}", item.id(), printable(&item.describe())))
        .collect();
    if items.len() > MAX_CANDIDATES {
        text.push_str(&format!("\n  … and {} more", items.len() - MAX_CANDIDATES));
    }
    text
}

#[cfg(test)]
mod tests {
    use gateway_proto::id::ServerId;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Thing(u64, &'static str);

    impl Named for Thing {
        type Id = ServerId;
        const KIND: &'static str = "server";
        const LIST: &'static str = "server list";

        fn id(&self) -> ServerId {
            ServerId::new(self.0, [0; 10])
        }

        fn names(&self) -> Vec<String> {
            vec![self.1.to_owned()]
        }

        fn describe(&self) -> String {
            self.1.to_owned()
        }
    }

    #[test]
    fn an_id_wins_over_a_name_and_an_exact_name_over_a_loose_one() {
        let things = [Thing(1, "lab"), Thing(2, "LAB"), Thing(3, "x-ray")];
        assert_eq!(pick(&things[2].id().to_string(), &things, |_| true).unwrap().0, 3);
        assert_eq!(pick("LAB", &things, |_| true).unwrap().0, 2);
        assert_eq!(pick("X-Ray", &things, |_| true).unwrap().0, 3);
        assert_eq!(pick(" x-ray ", &things, |_| true).unwrap().0, 3, "as the platform compares");
    }

    #[test]
    fn an_ambiguous_name_lists_the_candidates_with_their_ids() {
        let things = [Thing(1, "lab"), Thing(2, "LAB")];
        let error = pick("Lab", &things, |_| true).unwrap_err().to_string();
        for thing in &things {
            assert!(error.contains(&format!("{}  {}", thing.id(), thing.1)), "{error}");
        }
    }

    #[test]
    fn among_several_the_preferred_one_is_meant_and_none_preferred_leaves_all() {
        let things = [Thing(1, "lab"), Thing(2, "lab")];
        assert_eq!(pick("lab", &things, |thing| thing.0 == 2).unwrap().0, 2);
        assert!(matches!(pick("lab", &things, |_| false), Err(ResolveError::Ambiguous { .. })));
        assert_eq!(pick("lab", &things[..1], |_| false).unwrap().0, 1);
    }

    /// What a peer calls something, and whether a verb can act on it.
    struct Theirs(u64, &'static str, &'static str, bool);

    impl Named for Theirs {
        type Id = ServerId;
        const KIND: &'static str = "grant";
        const LIST: &'static str = "grant list";

        fn id(&self) -> ServerId {
            ServerId::new(self.0, [0; 10])
        }

        fn names(&self) -> Vec<String> {
            vec![self.2.to_owned()]
        }

        fn peer(&self) -> Option<&str> {
            Some(self.1)
        }

        fn describe(&self) -> String {
            format!("{}/{}", self.1, self.2)
        }
    }

    fn meant(wanted: &str, items: &[Theirs]) -> Result<u64, ResolveError> {
        pick(wanted, items, |item| item.3).map(|item| item.0)
    }

    #[test]
    fn a_peer_and_a_name_mean_what_that_peer_has_and_never_what_another_one_calls_the_same() {
        let grants = [Theirs(1, "Clinic A", "ADT", false), Theirs(2, "Mallory", "Clinic A/ADT", true)];
        for wanted in ["Clinic A/ADT", "clinic a/adt"] {
            assert_eq!(meant(wanted, &grants), Ok(1), "also where the verb could act on the other one only");
        }
        assert_eq!(meant("Mallory/Clinic A/ADT", &grants), Ok(2));
        let error = meant("Clinic A/ADT", &grants[1..]).unwrap_err();
        assert!(matches!(error, ResolveError::OtherPeers { .. }), "{error}");
        assert!(error.to_string().contains("Mallory/Clinic A/ADT"), "{error}");
        assert!(matches!(meant("Clinic A/Orders", &grants), Err(ResolveError::Unknown { .. })));
    }

    #[test]
    fn a_text_that_fits_two_peers_is_ambiguous_whatever_the_verb_could_act_on() {
        let grants = [Theirs(1, "A", "b/c", false), Theirs(2, "A/B", "c", true)];
        for wanted in ["A/b/c", "A/B/c", "a/b/c"] {
            assert!(matches!(meant(wanted, &grants), Err(ResolveError::Ambiguous { .. })), "{wanted}");
        }
        assert_eq!(meant("c", &grants), Ok(2));
        let again = [Theirs(1, "A", "ADT", false), Theirs(2, "A", "ADT", true)];
        assert_eq!(meant("A/ADT", &again), Ok(2), "of one peer, the one that the verb can act on");
    }

    #[test]
    fn an_unknown_name_says_where_to_look() {
        let error = pick::<Thing>("lab", &[], |_| true).unwrap_err().to_string();
        assert_eq!(error, "there is no server 'lab': see `gateway-ctl server list`");
    }

    #[test]
    fn a_long_list_of_candidates_is_cut() {
        let things: Vec<Thing> = (0..50).map(|n| Thing(n, "lab")).collect();
        let error = pick("lab", &things, |_| true).unwrap_err().to_string();
        assert!(error.ends_with("… and 30 more"), "{error}");
    }
}
