//! What bounds a grant: as it was offered or asked for, and as the owner of the channel approves it.

use gateway_proto::{
    api::{
        platform::{ApproveGrant, CreateGrant},
        values::{MAX_STREAMS, between_clocks},
    },
    limits::{
        ChannelLimits, MAX_BYTES_PER_SECOND, MAX_RECEIVE_TIMEOUT_SECS, MIN_BYTES_PER_SECOND, MIN_RECEIVE_TIMEOUT_SECS,
    },
};

use super::super::{ServiceError, ServiceResult, validate, work::changes};
use crate::storage::GrantRow;

const DEFAULT_MAX_STREAMS: u32 = 64;

/// How many streams may be open.
pub(super) fn streams(asked: Option<u32>) -> ServiceResult<u32> {
    validate::range("max_streams", asked.unwrap_or(DEFAULT_MAX_STREAMS), 1, MAX_STREAMS)
}

/// What is to be limited beside the open streams.
pub(super) fn of(body: &CreateGrant) -> ServiceResult<ChannelLimits> {
    beside(body.bytes_per_second, body.receive_timeout_secs)
}

fn beside(rate: Option<u64>, secs: Option<u32>) -> ServiceResult<ChannelLimits> {
    let rate = rate.map(|rate| validate::range("bytes_per_second", rate, MIN_BYTES_PER_SECOND, MAX_BYTES_PER_SECOND));
    let (least, most) = (MIN_RECEIVE_TIMEOUT_SECS, MAX_RECEIVE_TIMEOUT_SECS);
    let secs = secs.map(|secs| validate::range("receive_timeout_secs", secs, least, most));
    Ok(ChannelLimits { bytes_per_second: rate.transpose()?, receive_timeout_secs: secs.transpose()? })
}

/// Whether an approval names limits.
pub(super) fn are_named(body: &ApproveGrant) -> bool {
    let ApproveGrant { expires_at, max_streams, bytes_per_second, receive_timeout_secs, .. } = body;
    expires_at.is_some() || max_streams.is_some() || bytes_per_second.is_some() || receive_timeout_secs.is_some()
}

/// Whether the limits that an approval names, if any, are limits at all, whatever grant it is for.
pub(super) fn check(body: &ApproveGrant, now: u64) -> ServiceResult<()> {
    validate::in_future(body.expires_at, now)?;
    body.max_streams.map(|_| streams(body.max_streams)).transpose()?;
    beside(body.bytes_per_second, body.receive_timeout_secs)?;
    Ok(())
}

/// Puts a request under the limits that an approval names and [`check`] let pass, each as it was asked for or tighter; what that
/// changed, in words.
pub(super) fn tighten(row: &mut GrantRow, body: &ApproveGrant) -> ServiceResult<String> {
    let asked = row.limits;
    let expires_at = tighter("expires_at", row.expires_at, body.expires_at)?;
    let streams = tighter("max_streams", Some(row.max_streams), body.max_streams)?.unwrap_or(row.max_streams);
    let rate = tighter("bytes_per_second", asked.bytes_per_second, body.bytes_per_second)?;
    let secs = tighter("receive_timeout_secs", asked.receive_timeout_secs, body.receive_timeout_secs)?;
    let words = changes(&[
        ("expires_at", &or_none(row.expires_at), &or_none(expires_at)),
        ("max_streams", &row.max_streams, &streams),
        ("bytes_per_second", &or_none(asked.bytes_per_second), &or_none(rate)),
        ("receive_timeout_secs", &or_none(asked.receive_timeout_secs), &or_none(secs)),
    ]);
    (row.expires_at, row.max_streams) = (expires_at, streams);
    row.limits = ChannelLimits { bytes_per_second: rate, receive_timeout_secs: secs };
    Ok(words)
}

/// An approved grant keeps its limits: an approval that comes again may name those it has, and no others. "For 30 days" that is said
/// again at `now` is the same end; an earlier one is another, and nobody is to take it for the one in force.
pub(super) fn check_kept(row: &GrantRow, body: &ApproveGrant, now: u64) -> ServiceResult<()> {
    let is_end = |named: u64| {
        let later = row.expires_at.and_then(|end| named.checked_sub(end));
        later.is_some_and(|later| later <= between_clocks(named.saturating_sub(now)))
    };
    let is_kept = body.expires_at.is_none_or(is_end)
        && body.max_streams.is_none_or(|streams| row.max_streams == streams)
        && body.bytes_per_second.is_none_or(|rate| row.limits.bytes_per_second == Some(rate))
        && body.receive_timeout_secs.is_none_or(|secs| row.limits.receive_timeout_secs == Some(secs));
    if is_kept {
        return Ok(());
    }
    Err(ServiceError::Conflict(
        "the grant is approved already, under other limits, and they do not change; revoke it and offer the channel under those \
         that you want"
            .to_owned(),
    ))
}

/// The limit named where there is one: not above the one asked for.
fn tighter<T: PartialOrd + std::fmt::Display>(
    field: &str,
    asked: Option<T>,
    named: Option<T>,
) -> ServiceResult<Option<T>> {
    match (asked, named) {
        (Some(asked), Some(named)) if named > asked => Err(ServiceError::Invalid(format!(
            "{field} is {named}, and the request asks for {asked}: an approval may be tighter than the request, not wider"
        ))),
        (_, Some(named)) => Ok(Some(named)),
        (asked, None) => Ok(asked),
    }
}

fn or_none<T: std::fmt::Display>(limit: Option<T>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}
