//! Lists in pages: a stable order, a cursor, a bounded length.

use data_encoding::BASE64URL_NOPAD;
use gateway_proto::api::Page;
use serde::Deserialize;

use super::{ServiceError, ServiceResult};
use crate::storage::Slice;

/// Entries of a page when nothing else was asked for.
const DEFAULT_LIMIT: u32 = 100;
/// Entries of a page at most.
pub const MAX_LIMIT: u32 = 200;

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The `next` of the page before; left out: the first page.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Entries of a page at most, 1–200; default 100.
    #[serde(default)]
    pub limit: Option<u32>,
}

impl Paging {
    /// One entry more than asked for is read, to know whether there is a next page.
    pub(super) fn slice(&self) -> ServiceResult<Slice> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        super::validate::range("limit", limit, 1, MAX_LIMIT)?;
        let invalid = || ServiceError::Invalid("cursor is not one that a list answered".to_owned());
        let after = match &self.cursor {
            Some(cursor) => {
                let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| invalid())?;
                String::from_utf8(bytes).map_err(|_| invalid())?
            }
            None => String::new(),
        };
        Ok(Slice { after, limit: limit + 1 })
    }
}

/// Cuts the extra row off; with it, the key of the last row kept is the next cursor.
pub(super) fn cut<R>(mut rows: Vec<R>, slice: &Slice, key: impl Fn(&R) -> String) -> (Vec<R>, Option<String>) {
    let full = rows.len() >= slice.limit as usize;
    rows.truncate(slice.limit as usize - 1);
    let next = if full { rows.last().map(|row| BASE64URL_NOPAD.encode(key(row).as_bytes())) } else { None };
    (rows, next)
}

/// A page whose rows need nothing else to be shown.
pub(super) fn page<R, T>(rows: Vec<R>, slice: &Slice, key: impl Fn(&R) -> String, show: impl Fn(R) -> T) -> Page<T> {
    let (rows, next) = cut(rows, slice, key);
    Page { items: rows.into_iter().map(show).collect(), next }
}
