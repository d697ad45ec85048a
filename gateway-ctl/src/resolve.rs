//! Names wherever an id is asked for. An id is taken as it is; a name is looked up in the list of its kind; a name that fits several
//! is an error that lists them, because acting on the wrong one could cut a hospital off.

use std::{fmt::Display, str::FromStr};

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
}

/// The one that `wanted` means: by id, by exact name, by name without regard to case, in this order. Where several fit, only those
/// that `prefer` points at count, if there are any: "approve ADT" means the grant that waits for approval, not last year's.
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
    let folded = wanted.to_lowercase();
    let exact = |item: &&T| item.names().iter().any(|name| name == wanted);
    let loose = |item: &&T| item.names().iter().any(|name| name.to_lowercase() == folded);
    let mut matches: Vec<&T> = items.iter().filter(exact).collect();
    if matches.is_empty() {
        matches = items.iter().filter(loose).collect();
    }
    if matches.iter().any(|item| prefer(item)) {
        matches.retain(|item| prefer(item));
    }
    match matches.as_slice() {
        [] => Err(ResolveError::Unknown { kind: T::KIND, wanted: wanted.to_owned(), list: T::LIST }),
        [item] => Ok(item),
        several => {
            Err(ResolveError::Ambiguous { kind: T::KIND, wanted: wanted.to_owned(), candidates: lines(several) })
        }
    }
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
