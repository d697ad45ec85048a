//! What was reported of the engine on a link already: states and settings go out as they change, counts no more often than
//! every [`COUNTS_INTERVAL`]. A new link starts over and so sends everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_proto::{
    api::gateway::{EngineHead, EngineReport, MAX_REPORT_ENGINE_BYTES, MAX_REPORT_ENGINE_CHANNELS},
    engine::{EngineChannel, EngineCounts},
};

/// Messages pass all the time: their numbers alone are news once in this time.
const COUNTS_INTERVAL: Duration = Duration::from_secs(60);

/// The engine now, as far as the platform may know it.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSnapshot {
    /// How we get on with it, and what sends through us.
    pub head: EngineHead,
    /// Its channels.
    pub channels: Arc<Vec<EngineChannel>>,
}

/// The last report of every channel; bounded by what discovery looks at.
#[derive(Debug, Default)]
pub(super) struct EngineReporter {
    head: Option<EngineHead>,
    sent: BTreeMap<String, Sent>,
    /// Channels of which there is nothing to tell any more: mostly those of the last look.
    told: Option<Arc<Vec<EngineChannel>>>,
}

#[derive(Debug)]
struct Sent {
    channel: EngineChannel,
    at: Instant,
}

impl EngineReporter {
    /// Hands the changes to `send`, in reports of limited size. What `send` does not take is tried again next time.
    pub(super) fn update(
        &mut self,
        snapshot: &EngineSnapshot,
        now: Instant,
        mut send: impl FnMut(EngineReport) -> bool,
    ) {
        let is_told = self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &snapshot.channels));
        if is_told && self.head.as_ref() == Some(&snapshot.head) {
            return;
        }
        let mut waits = false;
        let mut news = Vec::new();
        for channel in snapshot.channels.iter() {
            match self.news(channel, now) {
                News::None => {}
                News::Later => waits = true,
                News::Now => news.push(channel),
            }
        }
        let ids: BTreeSet<_> = snapshot.channels.iter().map(|channel| &channel.id).collect();
        let mut gone: Vec<String> = self.sent.keys().filter(|id| !ids.contains(id)).cloned().collect();
        while self.head.as_ref() != Some(&snapshot.head) || !news.is_empty() || !gone.is_empty() {
            let part: Vec<_> = news.drain(..part_len(&news)).cloned().collect();
            let left: Vec<_> = gone.drain(..gone.len().min(MAX_REPORT_ENGINE_CHANNELS)).collect();
            let report = EngineReport {
                head: snapshot.head.clone(),
                complete: self.head.is_none(),
                more: !news.is_empty() || !gone.is_empty(),
                channels: part.clone(),
                gone: left.clone(),
            };
            if !send(report) {
                return;
            }
            self.head = Some(snapshot.head.clone());
            left.iter().for_each(|id| drop(self.sent.remove(id)));
            self.sent.extend(part.into_iter().map(|channel| (channel.id.clone(), Sent { channel, at: now })));
        }
        self.told = (!waits).then(|| snapshot.channels.clone());
    }

    fn news(&self, channel: &EngineChannel, now: Instant) -> News {
        let Some(sent) = self.sent.get(&channel.id) else { return News::Now };
        if sent.channel == *channel {
            return News::None;
        }
        let without_counts =
            |channel: &EngineChannel| EngineChannel { counts: EngineCounts::default(), ..channel.clone() };
        let is_due =
            without_counts(&sent.channel) != without_counts(channel) || now.duration_since(sent.at) >= COUNTS_INTERVAL;
        if is_due { News::Now } else { News::Later }
    }
}

/// Whether a channel is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// It is as it was told.
    None,
    /// Its counts are other ones, but were told not long ago.
    Later,
    /// It is new or has changed.
    Now,
}

/// How many of the channels go into one report.
fn part_len(news: &[&EngineChannel]) -> usize {
    let mut bytes = 0;
    let fits = |channel: &&&EngineChannel| {
        let is_first = bytes == 0;
        bytes += serde_json::to_vec(channel).map_or(0, |json| json.len());
        is_first || bytes <= MAX_REPORT_ENGINE_BYTES
    };
    news.iter().take(MAX_REPORT_ENGINE_CHANNELS).take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use gateway_proto::engine::{EngineChannelState, EngineDestination, EngineState, MAX_DESTINATIONS, MAX_TEXT};

    use super::*;

    fn channel(id: usize) -> EngineChannel {
        EngineChannel {
            id: format!("c{id:04}"),
            name: "adt".into(),
            state: EngineChannelState::Started,
            undeployed_changes: false,
            listener: None,
            destinations: Vec::new(),
            counts: EngineCounts::default(),
        }
    }

    fn snapshot(channels: Vec<EngineChannel>) -> EngineSnapshot {
        let head = EngineHead {
            state: EngineState::Up,
            version: None,
            problem: None,
            left_out: 0,
            senders: Vec::new(),
            advice: Vec::new(),
        };
        EngineSnapshot { head, channels: Arc::new(channels) }
    }

    /// Of each report: whether it is complete, channels and ids that are gone in it.
    fn sent(reporter: &mut EngineReporter, snapshot: &EngineSnapshot, now: Instant) -> Vec<(bool, usize, usize)> {
        let mut reports = Vec::new();
        reporter.update(snapshot, now, |report| {
            assert_eq!(report.more, report.channels.len() == 50, "the last part says that it is");
            reports.push((report.complete, report.channels.len(), report.gone.len()));
            true
        });
        reports
    }

    #[test]
    fn everything_goes_out_first_in_parts_and_then_only_what_changed() {
        let (mut reporter, now) = (EngineReporter::default(), Instant::now());
        let all: Vec<_> = (0..120).map(channel).collect();
        assert_eq!(sent(&mut reporter, &snapshot(all.clone()), now), [(true, 50, 0), (false, 50, 0), (false, 20, 0)]);
        assert_eq!(sent(&mut reporter, &snapshot(all.clone()), now), []);
        let mut changed = all[1..].to_vec();
        changed[5].state = EngineChannelState::Stopped;
        assert_eq!(sent(&mut reporter, &snapshot(changed.clone()), now), [(false, 1, 1)]);
        assert_eq!(sent(&mut reporter, &snapshot(changed), now), []);
    }

    #[test]
    fn a_report_stays_far_below_what_the_control_plane_takes_however_long_the_names_are() {
        let (mut reporter, now) = (EngineReporter::default(), Instant::now());
        let destination = |id| EngineDestination {
            id,
            name: "\u{1f3e5}".repeat(MAX_TEXT),
            transport: "\u{1f3e5}".repeat(MAX_TEXT),
            host: Some("\"".repeat(MAX_TEXT)),
            port: Some(6661),
            enabled: true,
            queue: true,
            validate_response: true,
        };
        let destinations: Vec<_> = (0..MAX_DESTINATIONS as u32).map(destination).collect();
        let channels = (0..200).map(|id| EngineChannel { destinations: destinations.clone(), ..channel(id) }).collect();
        let (mut sizes, mut count) = (Vec::new(), 0);
        reporter.update(&snapshot(channels), now, |report| {
            count += report.channels.len();
            sizes.push(serde_json::to_vec(&report).unwrap().len());
            true
        });
        assert_eq!(count, 200);
        assert!(sizes.iter().all(|size| *size < MAX_REPORT_ENGINE_BYTES + 1024), "{sizes:?}");
        assert!(sizes.len() < 60, "{}", sizes.len());
    }

    #[test]
    fn counts_alone_are_news_once_a_minute() {
        let (mut reporter, now) = (EngineReporter::default(), Instant::now());
        sent(&mut reporter, &snapshot(vec![channel(1)]), now);
        let counts = EngineCounts { received: 1, ..EngineCounts::default() };
        let counted = snapshot(vec![EngineChannel { counts, ..channel(1) }]);
        assert_eq!(sent(&mut reporter, &counted, now + Duration::from_secs(59)), []);
        assert_eq!(sent(&mut reporter, &counted, now + COUNTS_INTERVAL), [(false, 1, 0)]);
        // An engine that does not answer any more is as it was.
        assert!(reporter.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &counted.channels)));
        assert_eq!(sent(&mut reporter, &counted, now + 2 * COUNTS_INTERVAL), []);
        let head = EngineHead { state: EngineState::Down, ..counted.head.clone() };
        let down = EngineSnapshot { head, ..counted };
        assert_eq!(sent(&mut reporter, &down, now + 2 * COUNTS_INTERVAL), [(false, 0, 0)]);
    }

    #[test]
    fn what_was_not_taken_is_sent_again() {
        let (mut reporter, now) = (EngineReporter::default(), Instant::now());
        reporter.update(&snapshot(vec![channel(1)]), now, |_| false);
        assert_eq!(sent(&mut reporter, &snapshot(vec![channel(1)]), now), [(true, 1, 0)]);
    }
}
